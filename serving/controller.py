"""Acts on rollouts: observe, decide, and one compare-and-swap write of everything that follows.

Record, evidence and traffic weights lie in one object, the carrier, and change in one write.
Whatever is interrupted before that write has not happened; what comes after it is done again until
it is seen to be done. The event log is written first: an event whose write did not follow is not
linked to by any record, and counts for nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Protocol

from penstock.core.errors import ConfigurationError, Conflict
from penstock.core.spec import Rollout
from serving import lease
from serving.cluster import Cluster, Object
from serving.manifests import STICKY, replicas_of, scaled
from serving.rollout import events
from serving.rollout.decide import Remove, Resume, Seen, Shift, Stay
from serving.rollout.evidence import Batch
from serving.rollout.judge import Judge
from serving.rollout.loan import Loan
from serving.rollout.record import Command, Record, digest_of
from serving.rollout.step import Step, step
from serving.traffic import LocalTraffic, Traffic

LOCAL = LocalTraffic()
_ATTEMPTS = 4
RECORD = "penstock.dev/rollout"
POLICY = "penstock.dev/rollout-policy"
PREVIOUS = "penstock.dev/previous"
"""The object of the version that was served before, as it was."""

LOAN = "penstock.dev/loan"
"""Replicas that the stable version lends to the candidate; empty: none. It must not stand on the
version itself: KServe hands annotations on to pods, and they would all start again."""

EPOCH = "penstock.dev/rollout-epoch"
PHASE = "penstock.dev/rollout-phase"
"""The record's epoch and phase, apart: a cluster's admission cannot read the record itself."""


class World(Protocol):
    """What a rollout can see. Everything may be asked again, and nothing of it decides."""

    def seen(self, record: Record) -> Seen:
        """Return what there is beside the evidence, and the time."""
        ...

    def evidence(self, record: Record, seen: Seen) -> Batch:
        """Return what came since the record's cursors; an empty batch when nothing did."""
        ...


class EventLog(Protocol):
    """Keeps lines, in order, for each rollout."""

    def append(self, name: str, line: str) -> None:
        """Write a line down for good."""
        ...

    def lines(self, name: str) -> Iterable[str]:
        """Yield every line of a rollout, the first one first."""
        ...


@dataclass(frozen=True, slots=True)
class FileLog:
    """A file of JSON lines per name."""

    folder: Path

    def append(self, name: str, line: str) -> None:
        """Write a line; the line break before it also ends one that was torn by a kill."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._path(name).open("ab") as file:
            file.write(b"\n" + line.encode())

    def lines(self, name: str) -> Iterable[str]:
        """Yield every whole line."""
        if not self._path(name).exists():
            return
        for text in self._path(name).read_text().split("\n"):
            try:
                json.loads(text)
            except ValueError:
                continue  # the end of a line whose writer was killed
            yield text

    def names(self) -> list[str]:
        """Return the names that have a file."""
        return sorted(path.stem for path in self.folder.glob("*.jsonl"))

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.jsonl"


class Controller:
    """Owns rollouts, one look at a time.

    Args:
        cluster: Where the objects are.
        log: Where the events go.
        world: What can be seen.
        owner: Name of this process among all that could do this.
        judge: Makes the tests of a policy.
        traffic: How traffic is split there.
    """

    def __init__(
        self,
        cluster: Cluster,
        log: EventLog,
        world: World,
        owner: str,
        *,
        judge: Callable[[Rollout], Judge] = Judge,
        traffic: Traffic = LOCAL,
    ) -> None:
        self._cluster, self._log, self._world, self._owner = cluster, log, world, owner
        self._traffic = traffic
        self._judging = judge
        self._judges: dict[str, Judge] = {}
        self._written: dict[str, tuple[str, Record]] = {}

    def look(self, name: str) -> Step | None:
        """Look at a rollout once and do what follows; None when it is another's turn.

        Whatever this raises, nothing was lost: looking again goes on from what is recorded.
        """
        obj = self._cluster.get(self._traffic.carrier, name)
        record = self._record(obj) if obj is not None else None
        if obj is None or record is None or not self._traffic.carries(obj):
            return None
        judge, seen = self._judge(obj, record), self._world.seen(record)
        edited = _edited(self._traffic.weights_of(obj), record) or _changed(seen.contents, record)
        loan = loan_of(obj)
        seen = replace(seen, edited=seen.edited or edited, alone=loan is not None and loan.alone)
        if not lease.acquire(self._cluster, name, self._owner, seen.now):
            return None
        try:
            if record.owner != self._owner:
                obj, record = self._take(obj, record)
            made = self._step(obj, record, seen, judge)
            if loan is not None:
                self._lend(loan, made.record)
        except Conflict:
            return None
        else:
            return made

    def _take(self, obj: Object, record: Record) -> tuple[Object, Record]:
        """Become the owner: writers of the epoch before have lost."""
        epoch = record.epoch + 1
        mine = replace(record, owner=self._owner, epoch=epoch)
        event = events.changed(owner=self._owner, epoch=epoch)
        return self._commit(obj, record, mine, event, moves=False)

    def _step(self, obj: Object, record: Record, seen: Seen, judge: Judge) -> Step:
        judged = not (record.over or seen.alone)
        batch = self._world.evidence(record, seen) if judged else Batch()
        made = step(record, batch, seen, judge)
        if isinstance(made.action, Remove):
            service, reason = made.action.service, made.action.reason
            found = leftover(self._cluster, self._traffic, obj, record)
            if found is None:
                made = made._replace(action=Stay(reason))
            else:  # this very one: whoever goes back makes it anew, under the same name
                self._cluster.delete(self._traffic.served, service, read=found)
        still = isinstance(made.action, Stay | Remove) and not (
            batch.size or batch.cursors or made.record.settled_at != record.settled_at
        )
        if not still:
            event = events.looked(batch, seen, made.action)
            if made.record.phase == "promoted" and record.phase != "promoted":
                obj = self._with_previous(obj, record.stable)
            moves = isinstance(made.action, Shift | Resume)
            obj, committed = self._commit(obj, record, made.record, event, moves=moves)
            made = made._replace(record=committed)
        if not still or seen.routed != weights(made.record):
            self._traffic.enforce(self._cluster, obj)
        return made

    def _lend(self, loan: Loan, record: Record) -> None:
        """Make the versions' replicas what a loan says of this phase; may be repeated.

        Raises:
            Conflict: Somebody else wrote all the time.
        """
        for service, replicas in loan.wanted(record.phase).items():
            for attempt in range(1, _ATTEMPTS + 1):
                obj = self._cluster.get(self._traffic.served, service)
                if obj is None or replicas_of(obj) == replicas:
                    break
                try:
                    self._cluster.replace(scaled(obj, replicas))
                except Conflict:  # its controller wrote a status meanwhile
                    if attempt == _ATTEMPTS:
                        raise

    def _with_previous(self, obj: Object, service: str) -> Object:
        """Return the carrier with what it takes to serve a version again after it is removed."""
        served, loan = self._cluster.get(self._traffic.served, service), loan_of(obj)
        if served is not None and loan is not None and loan.stable == service:
            served = scaled(served, loan.owns)
        return obj if served is None else annotated(obj, {PREVIOUS: snapshot(served)})

    def _commit(
        self, obj: Object, before: Record, after: Record, event: str, *, moves: bool
    ) -> tuple[Object, Record]:
        name = obj["metadata"]["name"]
        self._log.append(name, events.line(before.chain, event))
        linked = after.linked(event)
        new = _moved(self._traffic, obj, linked) if moves else _marked(obj, linked)
        replaced = self._cluster.replace(new)
        self._written[name] = (new["metadata"]["annotations"][RECORD], linked)
        return replaced, linked

    def _record(self, obj: Object) -> Record | None:
        """Return the record; one that this process wrote itself need not be parsed again."""
        text, record = self._written.get(obj["metadata"]["name"], ("", None))
        if obj["metadata"].get("annotations", {}).get(RECORD) == text:
            return record
        return record_of(obj)

    def _judge(self, obj: Object, record: Record) -> Judge:
        if record.policy not in self._judges:
            policy = policy_of(obj)
            if digest_of(policy_text(obj)) != record.policy:
                raise ConfigurationError(
                    f"{obj['metadata']['name']}: the policy was changed while the rollout went on",
                    hint="penstock rollout rollback, then run again with the new policy",
                )
            self._judges[record.policy] = self._judging(policy)
        return self._judges[record.policy]


def begin(  # noqa: PLR0913 - all of it is one write
    cluster: Cluster,
    log: EventLog,
    name: str,
    record: Record,
    policy: Rollout,
    *,
    traffic: Traffic = LOCAL,
    loan: Loan | None = None,
) -> Record:
    """Begin a rollout on a name that is served; return its record as written.

    Args:
        cluster: Where the objects are.
        log: Where the events go.
        name: The model's.
        record: The first one.
        policy: How it is judged.
        traffic: How traffic is split there.
        loan: Replicas that the stable version lends; whoever looks after the rollout moves them.

    Raises:
        ConfigurationError: Another rollout goes on there, or nobody knows who serves it.
        Conflict: Somebody else wrote meanwhile, or another version took over.
    """
    obj = cluster.get(traffic.carrier, name)
    if obj is None:
        raise ConfigurationError(f"{name} is not served: there is nothing to compare with")
    running = record_of(obj)
    if running is not None and not running.over:
        if running.candidate == record.candidate:
            return running
        raise going_on(name, running)
    if (serves := _stable_in(obj, traffic)) != record.stable:
        raise Conflict(
            f"{name}: {serves} took over while {record.candidate} was prepared, which was to be "
            f"compared with {record.stable}",
            hint="run again: what was prepared is reused",
        )
    if running is not None:
        record = replace(record, epoch=running.epoch + 1)  # older epochs have lost, also there
    event = events.started(record)
    log.append(name, events.line("", event))
    linked = record.linked(event)
    marks = {POLICY: policy.model_dump_json(), STICKY: str(policy.sticky).lower()}
    if loan is not None or loan_of(obj) is not None:  # an earlier rollout's is settled
        marks[LOAN] = loan.to_json() if loan is not None else ""
    obj = annotated(obj, marks)
    cluster.replace(_moved(traffic, obj, linked))
    return linked


def stable_of(cluster: Cluster, name: str, traffic: Traffic = LOCAL) -> str:
    """Return the version that a new one is compared with; empty when nothing is served.

    While a rollout goes on it is that rollout's, whatever the weights are: in soak all traffic is
    the candidate's, and it is not the stable version yet.

    Raises:
        ConfigurationError: Users are led, and nobody knows to whom.
    """
    obj = cluster.get(traffic.carrier, name)
    return "" if obj is None else _stable_in(obj, traffic)


def leftover(cluster: Cluster, traffic: Traffic, obj: Object, record: Record) -> Object | None:
    """Return what lost a rollout and has yet to be removed, if it has.

    What was made later is another candidate, or is gone back to; what has users was gone back to.

    Args:
        cluster: Where the objects are.
        traffic: How traffic is split there.
        obj: The carrier.
        record: Its record, of a rollout that is over.
    """
    loser = record.stable if record.phase == "promoted" else record.candidate
    if traffic.weights_of(obj).get(loser):
        return None
    found = cluster.get(traffic.served, loser)
    made = found["metadata"].get("creationTimestamp") if found is not None else None
    later = made is not None and datetime.fromisoformat(made).timestamp() > record.entered_at
    return None if later else found


def going_on(name: str, record: Record) -> ConfigurationError:
    """Return why a name cannot be changed now: its rollout has to end before."""
    return ConfigurationError(
        f"{name}: a rollout of {record.candidate} goes on ({record.phase})",
        hint=f"wait for it, or: penstock rollout rollback {name}",
    )


def command(
    cluster: Cluster, log: EventLog, name: str, asked: Command, traffic: Traffic = LOCAL
) -> Record:
    """Write down what is asked of a rollout; its owner does it. Return the record.

    Raises:
        ConfigurationError: Nothing goes on there.
    """
    while True:
        obj = cluster.get(traffic.carrier, name)
        record = record_of(obj) if obj is not None else None
        if obj is None or record is None or record.over:
            raise ConfigurationError(
                f"{name}: no rollout goes on", hint="penstock rollout status shows what there was"
            )
        event = events.changed(command=asked)
        log.append(name, events.line(record.chain, event))
        linked = replace(record, command=asked).linked(event)
        try:
            cluster.replace(_marked(obj, linked))
        except Conflict:
            continue  # its owner wrote meanwhile: read again
        return linked


def _stable_in(obj: Object, traffic: Traffic) -> str:
    name, kind = obj["metadata"]["name"], traffic.carrier
    record = record_of(obj)
    if record is not None and not record.over:
        return record.stable
    if not traffic.carries(obj):
        raise ConfigurationError(
            f"{name}: its {kind} leads to something else than {traffic.served}s",
            hint="set target.kserve.mode to what it is served by; or somebody changed it: kubectl "
            f"get {kind.lower()} {name} -o yaml",
        )
    shares = traffic.weights_of(obj)
    if not shares:
        raise ConfigurationError(
            f"{name}: somebody gave its paths different weights, so who serves it is not known",
            hint=f"kubectl edit {kind.lower()} {name}: the same weights in every rule",
        )
    return max(shares, key=lambda service: shares[service])


def record_of(obj: Object) -> Record | None:
    """Return the record that a carrier has, or None."""
    text = obj["metadata"].get("annotations", {}).get(RECORD)
    return None if text is None else Record.from_json(text)


def loan_of(obj: Object) -> Loan | None:
    """Return the loan of the rollout that a carrier has, or None: its versions have their own."""
    text = obj["metadata"].get("annotations", {}).get(LOAN)
    return Loan.from_json(text) if text else None


def policy_of(obj: Object) -> Rollout:
    """Return the policy that a carrier has."""
    return Rollout.model_validate_json(policy_text(obj))


def policy_text(obj: Object) -> str:
    """Return the policy that a carrier has, as it was written when the rollout began."""
    return str(obj["metadata"]["annotations"][POLICY])


def weights(record: Record) -> dict[str, int]:
    """Return the shares of traffic that a record stands for.

    Who lost is out of the route, and who is not ready yet is not in it: a gateway may refuse, or
    mislead, what goes to a Service that does not exist.
    """
    if record.phase == "promoted":
        return {record.candidate: 100}
    if record.phase in ("deploying", "rolled_back"):
        return {record.stable: 100}
    return {record.candidate: record.weight, record.stable: 100 - record.weight}


def annotated(obj: Object, marks: Mapping[str, str]) -> Object:
    """Return the object with annotations added."""
    annotations = {**obj["metadata"].get("annotations", {}), **marks}
    return {**obj, "metadata": {**obj["metadata"], "annotations": annotations}}


def snapshot(obj: Object) -> str:
    """Return an object as it can be created again: without what the server and status added."""
    kept = ("name", "labels", "annotations")
    metadata = {key: obj["metadata"][key] for key in kept if key in obj["metadata"]}
    body = {"kind": obj["kind"], "metadata": metadata, "spec": obj["spec"]}
    if "apiVersion" in obj:
        body["apiVersion"] = obj["apiVersion"]
    return json.dumps(body, separators=(",", ":"), sort_keys=True)


def _edited(found: Mapping[str, int], record: Record) -> str:
    """Return how the weights differ from what the record stands for; empty when they do not."""
    wanted = weights(record)
    if dict(found) == wanted:
        return ""
    return f"somebody else changed the weights to {told(found)}; they should be {told(wanted)}"


def _changed(found: Mapping[str, str], record: Record) -> str:
    """Return who is not what this rollout saw first, whoever looked; versions never change."""
    for name, first in (record.contents or {}).items():
        now = found.get(name, first)
        earlier = first.isdecimal() and not now.isdecimal()  # as generations were taken
        if now != first and not earlier:
            return f"somebody changed {name} ({first} to {now})"
    return ""


def told(shares: Mapping[str, int]) -> str:
    """Return weights for people."""
    return ", ".join(f"{service} {share} %" for service, share in sorted(shares.items()))


def _moved(traffic: Traffic, obj: Object, record: Record) -> Object:
    """Return the carrier with a record and the weights that follow from it."""
    return traffic.weighted(_marked(obj, record), weights(record))


def _marked(obj: Object, record: Record) -> Object:
    """Return the carrier with a record, and its weights as they are.

    They are the record's, unless somebody else set them: a person at the route has a reason, and
    a fight over it would help nobody.
    """
    marks = {RECORD: record.to_json(), EPOCH: str(record.epoch), PHASE: record.phase}
    return annotated(obj, marks)
