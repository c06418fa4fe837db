"""`penstock demo`."""

from __future__ import annotations

import json
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import click

import penstock
from components.steps.context import write_atomically
from components.steps.report import render
from penstock.cli.edge import environment, need, settings_of
from penstock.cli.run import (
    new_run_id,
    raise_failure,
    read_spec,
    run_lifecycle,
    start_cluster,
)
from penstock.cli.story import rollouts, tell
from penstock.cli.users import Users, conversations_in
from penstock.core.errors import ConfigurationError, NotReady
from penstock.core.runs import RunRecord
from penstock.core.settings import GATEWAY_PORT
from penstock.core.spec import ModelSpec

_QUESTION = "What is 47 + 38?"
_USERS_RPS = 40.0
_FEW_RPS = 5.0
"""While a training needs the processor."""


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("out/demo"),
    show_default=True,
    help="Where everything goes: report, summary, store, registry and cluster.",
)
@click.option("--seed", default=1, show_default=True, help="Of the users' questions.")
@click.option(
    "--retrain",
    is_flag=True,
    help="Instead: a schedule each minute that trains again when the data changes.",
)
def command(out: Path, seed: int, retrain: bool) -> None:
    """Carry the example model from a Hub mirror to a served endpoint, on this machine.

    Then three more versions meet the evidence, while users go on asking: one is promoted, one is
    caught before any user meets it, and one on the ramp.

    With --retrain the data changes instead: nothing new, a skill more, and then poison.
    """
    started_at = time.time()
    need("local", "torch", "transformers", "great_expectations", "aiohttp", "mlflow")
    example = Path(penstock.__file__).parents[1] / "examples" / "skills"
    if not (example / "model" / "model.safetensors").exists():
        raise ConfigurationError(f"{example}: no example here", hint="run it from a clone")
    out = out.absolute()
    if retrain:
        _retrain(example, out, seed)
        return
    click.echo("penstock demo: from the Hub to a served model, on this machine")
    root = _repositories(example, out / "hub")
    env = _environment(out)
    settings = settings_of(env)
    later: list[RunRecord] = []
    with _mirror(root, env) as url:
        env["HF_ENDPOINT"] = url
        click.echo(f"  Hub mirror    {url}")
        start_cluster(env)
        click.echo(f"  local cluster http://127.0.0.1:{settings.gateway_port}")
        model = read_spec(example / "model.yaml")
        first = run_lifecycle(model, env, started_at=started_at, quiet=False)
        write_atomically(out / "report.html", render(first))
        raise_failure(first, settings.run_dir)
        with _users(model, settings.gateway_port, seed).asking() as users:
            click.echo(f"\nUsers ask {_USERS_RPS:g} questions per second from now on.")
            for record in tell(model, env):
                later.append(record)
                write_atomically(out / "report.html", render(first, later))
    _finish(out, settings.gateway_port, started_at, _Told(first, later, users))


def _environment(out: Path) -> dict[str, str]:
    env = environment(
        PENSTOCK_HOME=str(out / "home"),
        PENSTOCK_RUN_ID=new_run_id(),
        PENSTOCK_GATEWAY_PORT=str(_port(out / "home")),
    )
    env.pop("MLFLOW_TRACKING_URI", None)
    return env


def _retrain(example: Path, out: Path, seed: int) -> None:
    """Let a schedule train, gate and roll out, while the data changes and users ask."""
    import yaml

    sys.path.append(str(example.parents[1]))  # a clone has the example; the wheel has not
    from examples.skills.lessons import ANSWER, QUESTION
    from penstock.cli import retrain_story as story
    from penstock.cli.chat import ask
    from penstock.core.documents import parse_spec

    need("local", "apscheduler", "peft", "trl")
    started_at = time.time()
    click.echo("penstock demo --retrain: a schedule each minute, on this machine")
    env, data = _environment(out), out / "data"
    body = story.spec_of(yaml.safe_load((example / "model.yaml").read_text()), data)
    model = parse_spec(json.dumps(body))
    asked = conversations_in((example / "data" / "evaluate.jsonl").read_text())
    url = f"http://127.0.0.1:{settings_of(env).gateway_port}"
    with _mirror(_repositories(example, out / "hub"), env) as mirror:
        env["HF_ENDPOINT"] = mirror
        start_cluster(env)
        chapters = story.tell(model, env, data)
        told = [next(chapters)]
        users = Users(url, model.name, asked, rps=_FEW_RPS, seed=seed)
        with users.asking():
            click.echo(f"\nUsers ask {_FEW_RPS:g} questions per second from now on.")
            told += chapters
    question = {"role": "user", "content": QUESTION}
    answer = "".join(ask(url, {"model": model.name, "messages": [question], "temperature": 0}))
    summary = {
        "wall_s": round(time.time() - started_at, 3),
        "chapters": [each.document() for each in told],
        "answer": {"question": QUESTION, "wanted": ANSWER, "answer": answer},
        "users": {"asked": users.asked, "failed": users.failed},
    }
    write_atomically(out / "summary.json", json.dumps(summary, indent=1) + "\n")
    click.echo(f"\n  {QUESTION} → {answer}\n\nDone in {summary['wall_s']:.0f} s.")
    click.echo(f"  users asked {users.asked} questions, {users.failed} failed")
    click.echo(f"  reports  {_shown(out / 'home' / 'runs')}")
    click.echo(f"  summary  {_shown(out / 'summary.json')}")


class _Told(NamedTuple):
    """What happened."""

    first: RunRecord
    later: list[RunRecord]
    users: Users


def _users(model: ModelSpec, port: int, seed: int) -> Users:
    questions = conversations_in(Path(str(model.data.evaluate)).read_text())
    return Users(f"http://127.0.0.1:{port}", model.name, questions, rps=_USERS_RPS, seed=seed)


def _finish(out: Path, port: int, started_at: float, told: _Told) -> None:
    """Ask the model once, write the summary, and say how to go on."""
    from penstock.cli.chat import ask

    url = f"http://127.0.0.1:{port}"
    asked = {"role": "user", "content": _QUESTION}
    answer = "".join(ask(url, {"model": "skills", "messages": [asked], "temperature": 0}))
    summary = {
        **told.first.summary(),
        "wall_s": round(time.time() - started_at, 3),
        "answer": {"question": _QUESTION, "answer": answer},
        "rollouts": rollouts(told.later),
        "users": {"asked": told.users.asked, "failed": told.users.failed},
    }
    write_atomically(out / "summary.json", json.dumps(summary, indent=1) + "\n")
    click.echo("\nWhat became of them:")
    for each in summary["rollouts"]:
        click.echo(
            f"  {each['candidate']:<10} {each['outcome']:<12} {each['decision_s']:5.0f} s, "
            f"{each['user_requests_on_candidate']} of {each['user_requests_total']} users' requests"
            f", {each['user_requests_failed']} failed\n{'':<13}{each['reason']}"
        )
    click.echo(f"  users asked {told.users.asked} questions, {told.users.failed} failed")
    body = json.dumps({"model": "skills", "messages": [asked]})
    click.echo(f"\n  {_QUESTION} → {answer}\n\nDone in {summary['wall_s']:.0f} s.")
    click.echo(
        f"  report   {_shown(out / 'report.html')}\n  summary  {_shown(out / 'summary.json')}"
    )
    click.echo("\nIt goes on answering:")
    program = shlex.quote(str(Path(sys.argv[0])))
    click.echo(f"  {program} chat --url {url} skills {shlex.quote(_QUESTION)}")
    click.echo(f"  curl -s {url}/v1/chat/completions -H 'Content-Type: application/json' \\")
    click.echo(f"    -d {shlex.quote(body)}")
    home = shlex.quote(str(_shown(out / "home")))
    click.echo(f"Stop it: PENSTOCK_HOME={home} {program} local down")


def _shown(path: Path) -> Path:
    """Return a path as people would type it: relative, when it lies below where they are."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _repositories(example: Path, root: Path) -> Path:
    """Lay the example's models out as Hub repositories."""
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(example / "model", root / "penstock" / "skills")
    for variant in ("retrained", "forgetful"):
        target = root / "penstock" / f"skills-{variant}"
        shutil.copytree(example / "variants" / variant, target)
        shutil.copyfile(example / "variants" / "README.md", target / "README.md")
    return root


def _port(home: Path) -> int:
    """Return the port of the gateway that runs, or the default one, or a free one."""
    from serving.local.processes import holder

    told = home / "cluster" / "port"
    if holder(home / "cluster" / "gateway.lock") is not None and told.exists():
        return int(told.read_text())
    port = GATEWAY_PORT
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = int(free.getsockname()[1])
    told.parent.mkdir(parents=True, exist_ok=True)
    told.write_text(str(port))
    return port


@contextmanager
def _mirror(root: Path, env: dict[str, str]) -> Iterator[str]:
    """Serve the folder in a process of its own while the demo pulls from it."""
    command_line = [sys.executable, "-m", "penstock.cli", "hub", "serve", str(root), "--port", "0"]
    process = subprocess.Popen(command_line, stdout=subprocess.PIPE, text=True, env=env)
    try:
        assert process.stdout is not None  # noqa: S101 - PIPE was asked for
        line = process.stdout.readline()
        if " at " not in line:
            raise NotReady("Hub mirror", reason="it ended at once", waited_s=0)
        yield line.rpartition(" at ")[2].strip()
    finally:
        process.terminate()
        process.communicate()
