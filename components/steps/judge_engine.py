"""Says whether what was built may replace the checkpoint it was built from, before it is served.

TensorRT-LLM serves both, one after the other: they share the GPUs. Both answer the evaluation set;
where both tell log-probabilities, their distributions are compared as well. The verdict lies beside
the build, and holds for these files and these questions.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.guard import endpoint, fixed
from components.guard.items import pair_up
from components.guard.measures import measures
from components.steps.context import Context, write_atomically
from components.steps.engine_work import Work, refusals, say
from components.steps.judging import sample
from components.steps.measuring import Asked
from components.steps.scoring import measure
from components.steps.verbs import spec_of
from components.trtllm.builder import node_for
from components.trtllm.cache import Entry
from components.trtllm.key import Runtime, refuse_mismatch
from components.trtllm.plan import Plan
from components.trtllm.server import free_port, served
from penstock.core.errors import ConfigurationError, NotReady, PrecisionRefused, ServingError
from penstock.core.identity import Digest
from registry.store import verify
from serving.endpoint import EndpointCompleter
from serving.logprobs import LogprobEndpoint, ToldAnswer
from serving.runtimes.launch import start_budget_s
from serving.runtimes.trtllm import TRTLLM

START = "PENSTOCK_TRTLLM_START_S"
"""Variable: how long a server may take to answer, where that is not what its weights suggest."""

_MOST_AT_ONCE = 64
_SUBJECTS = ("parent", "candidate")


def judge_engine(
    context: Context,
    env: Mapping[str, str],
    spec: str,
    resolved: str,
    checkpoint_path: str,
    built_path: str,
    out_path: str,
) -> None:
    """Judge what `build_engine` left at `built_path`; what may be served goes to `out_path`.

    Raises:
        PrecisionRefused: It loses what it may not lose, or the items do not show that it does not.
        NotReady: A server did not start; nothing is judged.
        ServingError: A server ended while it was asked; nothing is judged.
    """
    with refusals(context):
        work = Work(context, spec, resolved, checkpoint_path)
        built: Mapping[str, Any] = json.loads(Path(built_path).read_text())
        node = node_for(work.build, env)
    with work.cache.used(Digest.parse(built["key"]), say) as entry:
        if node is not None:
            image = work.build.image
            refuse_mismatch(entry.key, Runtime(image.identity, image.tag, node))
        questions = _questions(work, spec)
        verdict = entry.verdict
        context.reused = verdict is not None and verdict["questions"] == questions
        if verdict is None or not context.reused:
            verdict = {**_judged(context, env, work, spec, entry), "questions": questions}
            entry.judged(verdict)
    context.detail |= {"key": built["key"], "verdict": verdict}
    if verdict["outcome"] != "accept":
        raise PrecisionRefused(
            f"{entry.key.strategy} {entry.key.digest.short}: {verdict['reason']}",
            hint="it is kept, and not served: name another precision"
            + (", or add items to data.evaluate" if verdict["outcome"] == "insufficient" else ""),
        )
    write_atomically(Path(out_path), json.dumps({**built, "verdict": verdict}))


def _questions(work: Work, spec: str) -> dict[str, Any]:
    """Return everything beside the files that a verdict depends on."""
    asked = spec_of(spec).evaluation
    return {
        "parent": str(work.manifest.root),
        "data": work.data.get("evaluate", {}).get("digest"),
        "max_new_tokens": asked.max_new_tokens,
        "margin": asked.max_quality_loss,
    }


def _judged(
    context: Context, env: Mapping[str, str], work: Work, spec: str, entry: Entry
) -> dict[str, Any]:
    model = spec_of(spec)
    if not work.served(entry.files, 0, parent=False).stages:
        return {"outcome": "accept", "reason": "the checkpoint is served as it came"}
    work.unchanged("evaluate")
    entry.verify()
    verify(work.folder, work.manifest)
    bench = _Bench(context, env, work, Asked.of(model, work.data))
    with tempfile.TemporaryDirectory() as scratch:
        parent = bench.ask("parent", Path(scratch))
    candidate = bench.ask("candidate", entry.files)
    silent = parent.silent or candidate.silent
    apart = () if silent else measures(endpoint.distances(parent.told, candidate.told))
    verdict = fixed.judge(
        pair_up(parent.records, candidate.records),
        margin=model.evaluation.max_quality_loss,
        measures=apart,
    )
    return {**verdict.to_json(), "not_compared": silent, "judged_at": time.time()}


@dataclass(frozen=True, slots=True)
class _Said:
    """What one of the two said."""

    records: Sequence[Mapping[str, Any]]
    """The `items` of `scoring.measure`."""

    told: Sequence[ToldAnswer]
    silent: str
    """Why it tells no log-probabilities; empty when it does."""


class _Bench:
    """Starts one server at a time, and asks it everything."""

    def __init__(self, context: Context, env: Mapping[str, str], work: Work, asked: Asked) -> None:
        self._context, self._env, self._work, self._asked = context, env, work, asked
        self._items = asked.items
        self._budget_s = _budget_s(env, work.build.model.weights_bytes)

    def ask(self, subject: str, files: Path) -> _Said:
        """Serve the parent or the candidate, and return what it said.

        Args:
            subject: Which.
            files: What was built; for the parent, a folder to fill.
        """
        port = free_port()
        how = self._work.served(files, port, parent=subject == "parent")
        if subject == "parent":
            _write(how, files)
        url = f"http://127.0.0.1:{port}"
        self._progress(subject, 0, 1, "starting")
        with served(
            f"the server of the {subject}",
            how.serve,
            self._env,
            url=url,
            log=self._context.settings.run_dir / "logs" / f"{subject}.log",
            budget_s=self._budget_s,
        ) as model:
            return self._all(subject, url, model)

    def _all(self, subject: str, url: str, model: str) -> _Said:
        at_once = min(_MOST_AT_ONCE, self._work.build.shape.max_batch_size)
        most = self._asked.max_new_tokens
        with closing(EndpointCompleter(url, model, concurrency=at_once)) as completer:
            found = measure(
                completer,
                self._items,
                max_new_tokens=most,
                on_progress=lambda done, total: self._progress(subject, done, total, "answers"),
            )
        told, silent = list[ToldAnswer](), ""
        chosen = [item.conversation for item in sample(self._items)]
        try:
            with closing(LogprobEndpoint(url, model, concurrency=at_once)) as asking:
                told = asking.answer(chosen, max_new_tokens=most)
        except NotReady:
            raise
        except ServingError as problem:  # engines tell them only if they were built for it
            silent = f"the {subject} tells no log-probabilities: {problem}"
        return _Said(found["items"], told, silent)

    def _progress(self, subject: str, done: int, total: int, what: str) -> None:
        """Tell how far both are, taken together."""
        before = _SUBJECTS.index(subject) * total
        self._context.progress(before + done, len(_SUBJECTS) * total, f"{what} of the {subject}")


def _write(how: Plan, folder: Path) -> None:
    for name, text in how.files.items():
        (folder / name).write_text(text)


def _budget_s(env: Mapping[str, str], weights_bytes: int) -> float:
    try:
        return float(env.get(START) or start_budget_s(TRTLLM, weights_bytes))
    except ValueError as problem:
        raise ConfigurationError(
            f"{START}: found {env[START]!r}; allowed: a number of seconds"
        ) from problem
