"""What to do next: one pure function of what is recorded and what is seen.

```
deploying → warmup → shadow → ramp (10, 25, 50 %) → soak (100 %) → promoted
     any of them → rolling_back → rolled_back       (rollback_blocked: a person must look)
     deploying → rolled_back                        (it is in the route from warmup on)
     any before rolling_back may be held: nothing moves until the doubt is gone, or its deadline
     comes
```

Every phase has a deadline. Time comes from the record, never from a process's start. Rolling back
needs no evidence source: it works when all of them are down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from penstock.core.spec import Rollout
from serving.rollout.judge import PROOF_IN_SHADOW, Judge, Verdict, told
from serving.rollout.record import NOT_KEPT, Doubt, Phase, Record

ROLLBACK_S = 120.0
"""How long traffic may take to leave a candidate before a person is asked to look."""

_PROMOTABLE: tuple[Phase, ...] = ("shadow", "ramp", "soak")
"""Where a person's word counts: the candidate answers there."""

_RATE_S = 60.0
"""How long requests are counted before a step is called thin."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was observed, beside the evidence."""

    now: float
    """Seconds since the epoch."""

    ready: bool = False
    """The candidate's InferenceService is ready."""

    why: str = ""
    """Why it is not."""

    warm: bool = False
    """The candidate has answered the prompts that warm it up."""

    routed: Mapping[str, int] | None = None
    """InferenceService → percent, as read back from what really routes; None: not known."""

    exhausted: bool = False
    """Every prompt was replayed: to replay them again would be no new evidence."""

    candidate_exists: bool = True
    stable_exists: bool = True
    contents: Mapping[str, str] = field(default_factory=dict)
    """Version's object → what tells its content now."""

    edited: str = ""
    """What somebody else changed of route or versions, against the record; empty for nothing."""

    alone: bool = False
    """The stable version was stopped to make room: there is nothing to compare with."""


@dataclass(frozen=True, slots=True)
class Stay:
    """Leave everything as it is."""

    reason: str


@dataclass(frozen=True, slots=True)
class Shift:
    """Go to another phase or step, with its weight."""

    phase: Phase
    weight: int
    reason: str
    step: int = 0


@dataclass(frozen=True, slots=True)
class Hold:
    """Freeze the weight and wait."""

    doubt: Doubt
    reason: str


@dataclass(frozen=True, slots=True)
class Resume:
    """Go on from where it was held."""

    reason: str


@dataclass(frozen=True, slots=True)
class Remove:
    """Delete an InferenceService that has no traffic any more."""

    service: str
    reason: str


Action = Stay | Shift | Hold | Resume | Remove


def next_action(record: Record, verdict: Verdict, seen: Seen, judge: Judge) -> Action:
    """Return what to do now.

    Args:
        record: What is recorded.
        verdict: What all evidence says, also that which came now.
        seen: What was observed.
        judge: The policy and its tests.
    """
    match record.phase:
        case "promoted":
            return _tidy(record.stable, seen.stable_exists, seen, record.reason)
        case "rolled_back":
            return _tidy(record.candidate, seen.candidate_exists, seen, record.reason)
        case "rolling_back" | "rollback_blocked":
            return _rolling_back(record, seen)
        case "deploying" | "warmup" | "shadow" | "ramp" | "soak":
            action = (
                _orphaned(record, seen)
                or _asked(record)
                or _deleted(record, seen)
                or _accused(record, verdict, judge)
                or _held(record, verdict, seen, judge)
                or _doubted(record, verdict, seen, judge)
                or _unopposed(record, seen)
                or _forward(record, verdict, seen, judge)
            )
            leaves = isinstance(action, Shift) and action.phase == "rolling_back"
            if leaves and record.phase == "deploying":  # it never was in the route
                return Shift("rolled_back", 0, action.reason)
            return action


def roll_back(reason: str) -> Shift:
    """Return the action that takes all traffic from the candidate."""
    return Shift("rolling_back", 0, reason)


def _orphaned(record: Record, seen: Seen) -> Action | None:
    """Without its stable version a rollout must not go back to it, whatever was asked or seen.

    A candidate that has all users, and serves them, takes over; else a person has to say what
    becomes of the users, and no deadline does it for them.
    """
    asked_back = record.command in ("rollback", "abandon")
    if seen.stable_exists or not seen.candidate_exists or (asked_back and not record.weight):
        return None  # without weight, going back leads nobody elsewhere
    if record.command == "promote" and record.phase in _PROMOTABLE:
        return _promoted_by_a_person()
    what = f"somebody deleted {record.stable}, the stable version"
    if record.phase == "soak" and seen.ready:
        return Shift("promoted", 100, f"{what}: all users are the candidate's, which is ready")
    reason = f"{what}, so there is nothing to go back to: create it again, or promote"
    known = record.held == "edited" and record.reason == reason and not record.command
    return Stay(reason) if known else Hold("edited", reason)


def _promoted_by_a_person() -> Shift:
    return Shift("soak", 100, "a person asked for it, before the evidence did")


def _asked(record: Record) -> Action | None:
    """What was asked for comes first."""
    match record.command:
        case "rollback":
            return roll_back("a person asked for it")
        case "abandon":
            return roll_back("its run ended before it was decided, and nobody looked after it")
        case "promote" if record.phase in _PROMOTABLE:
            return _promoted_by_a_person()
        case "pause" if record.held != "paused":
            return Hold("paused", "a person paused it")
        case "resume":  # also when nothing is held: a command must not wait for the next hold
            return Resume("a person resumed it")
        case _:
            return None


def _deleted(record: Record, seen: Seen) -> Action | None:
    """A candidate that is in the route and does not exist fails its share of users."""
    if seen.candidate_exists or record.phase == "deploying":
        return None
    return roll_back("somebody deleted the candidate")


def _accused(record: Record, verdict: Verdict, judge: Judge) -> Action | None:
    if not judge.guilty(verdict):
        return None
    (setting, metric), _ = max(verdict.blame.items(), key=lambda item: item[1])
    where = "in shadow" if setting == "shadow" else "live"
    margins = judge.policy.metrics[metric]
    return roll_back(
        f"{metric} is worse {where} by more than the {margins.tolerate:g} tolerated: e-value "
        f"{told(verdict.rollback)} over all metrics, {1 / judge.policy.false_rollback:,.0f} demand "
        "a rollback "
        f"({record.evidence.pairs:,} pairs, {record.evidence.requests:,} live requests)"
    )


def _held(record: Record, verdict: Verdict, seen: Seen, judge: Judge) -> Action | None:
    """A held rollout waits until its doubt is gone, or for its deadline."""
    if not record.held:
        return None
    if seen.now - record.held_at > judge.policy.deadlines.held_s:
        return roll_back(f"held for {judge.policy.deadlines.held_s:g} s: {record.reason}")
    gone = _gone(record, verdict, seen, judge)
    return Resume(gone) if gone else Stay(record.reason)


def _gone(record: Record, verdict: Verdict, seen: Seen, judge: Judge) -> str:
    """Return why there is no reason to hold any more; empty while there is."""
    gone = {
        "edited": (not seen.edited, "it is again as it was"),
        "stale": (record.evidence_at > record.held_at, "evidence comes again"),
        "doubt": (not judge.doubt(verdict), "the comparison can be trusted again"),
        "inconclusive": (not _missing(record, verdict, judge), "the evidence has come"),
    }
    over, reason = gone.get(record.held, (False, ""))
    return reason if over else ""


def _doubted(record: Record, verdict: Verdict, seen: Seen, judge: Judge) -> Action | None:
    """What makes the evidence worthless, or keeps it from coming."""
    if seen.edited:
        return Hold("edited", seen.edited)
    if record.phase not in ("shadow", "ramp") or seen.alone:
        return None
    if reason := judge.doubt(verdict):
        return Hold("doubt", reason)
    silent_s = seen.now - max(record.evidence_at, record.entered_at)
    if silent_s > judge.policy.stale_after_s:
        return Hold("stale", f"no evidence for {silent_s:.0f} s{_not_routed(record, seen)}")
    return None


def _not_routed(record: Record, seen: Seen) -> str:
    """Return that the gateway does not follow, where that keeps evidence from coming."""
    if record.phase != "ramp" or (seen.routed or {}).get(record.candidate, 0) == record.weight:
        return ""
    told = "not known" if seen.routed is None else str(dict(seen.routed))
    return f": {record.weight} % are not routed: {told}"


def _unopposed(record: Record, seen: Seen) -> Action | None:
    """Without a stable version that runs nobody is served, and nothing can be compared."""
    match record.phase:
        case "warmup" if seen.alone:  # users warm it
            return Shift("shadow", 0, "nobody is served until the candidate is")
        case "shadow" if seen.alone:
            return Shift("soak", 100, "the stable version was stopped to make room; unproven")
        case _:
            return None


def _forward(record: Record, verdict: Verdict, seen: Seen, judge: Judge) -> Action:
    """The way to the next phase, or the deadline of this one."""
    limits, spent_s = judge.policy.deadlines, seen.now - record.entered_at
    match record.phase:
        case "deploying" if seen.ready:
            return Shift("warmup", 0, "the candidate is ready")
        case "deploying":
            limit_s = judge.policy.ready_within_s
            return _in_time(spent_s, limit_s, "the candidate is not ready", seen.why)
        case "warmup" if seen.warm:
            return Shift("shadow", 0, "the candidate is warm")
        case "warmup":
            return _in_time(spent_s, limits.warmup_s, "the candidate is not warm")
        case "shadow" | "ramp":
            return (_shadow if record.phase == "shadow" else _ramp)(record, verdict, seen, judge)
        case _:
            return _soak(record, seen, judge.policy)


def _shadow(record: Record, verdict: Verdict, seen: Seen, judge: Judge) -> Action:
    missing = _missing(record, verdict, judge)
    if not missing:
        return _step(0, judge.policy, f"proven in shadow ({record.evidence.pairs:,} pairs)")
    if seen.exhausted:
        return _unproven(
            f"every prompt was replayed ({record.evidence.pairs:,} pairs), and not proven is: "
            f"{', '.join(missing)}; more prompts, or wider margins, would prove it",
            judge.policy,
        )
    spent_s = seen.now - record.entered_at
    return _prove(missing, spent_s, judge.policy.deadlines.shadow_s, judge.policy)


def _ramp(record: Record, verdict: Verdict, seen: Seen, judge: Judge) -> Action:
    policy, spent_s = judge.policy, seen.now - record.entered_at
    if seen.routed is None or seen.routed.get(record.candidate, 0) != record.weight:
        told_split = "not known" if seen.routed is None else str(dict(seen.routed))
        reason = f"{record.weight} % are not routed yet"
        return _in_time(spent_s, policy.deadlines.step_s, reason, told_split)
    missing = _missing(record, verdict, judge)
    thin = _thin(record, missing, judge) if missing else ""
    if missing and not thin:
        return _prove(missing, spent_s, policy.deadlines.step_s, policy)
    # not since the step began: a gateway may be slow to follow, and a source silent
    watched_s = record.watched_s(record.read_at or seen.now)
    if record.step >= len(policy.proof) and watched_s < policy.soak_s:
        shown = f"{record.weight} % watched for {watched_s:.0f} of {policy.soak_s:g} s"
        return _in_time(spent_s, policy.deadlines.step_s + policy.soak_s, shown)
    shown = f"{record.evidence.requests:,} live requests"
    if record.step + 1 < len(policy.steps):
        reason = thin or f"proven live at {record.weight} % ({shown})"
        return _step(record.step + 1, policy, reason)
    return Shift("soak", 100, thin or f"proven live ({shown})")


def _thin(record: Record, missing: list[str], judge: Judge) -> str:
    """Return why this step's traffic cannot prove what is missing in time; empty when it can.

    It never can if even a perfect candidate would need more than half of the step's deadline. That
    is a matter of policy and traffic alone, so no candidate gets through by failing. Requests are
    counted up to the last one that was seen: a source that is down looks silent, not thin.
    """
    policy, counted_s = judge.policy, record.evidence_at - record.entered_at
    in_shadow = all("shadow" in policy.metrics[name].prove_in for name in missing)
    if policy.thin == "wait" or not in_shadow or counted_s < max(_RATE_S, policy.soak_s):
        return ""
    rate = record.arrived / counted_s
    needed = judge.fewest(policy.proof[record.step], record.weight)
    if rate * policy.deadlines.step_s / 2 >= needed:
        return ""
    return (
        f"{rate:.2g} requests per second are too few to prove {', '.join(missing)} live at "
        f"{record.weight} % ({needed:,} or more are needed); shadow has proven it"
    )


def _soak(record: Record, seen: Seen, policy: Rollout) -> Action:
    spent_s = seen.now - record.entered_at
    limit_s = policy.deadlines.step_s + policy.soak_s
    if seen.routed != {record.candidate: 100, record.stable: 0}:
        return _in_time(spent_s, limit_s, "100 % are not routed yet")
    if not seen.ready and record.settled_at != NOT_KEPT:
        return _in_time(spent_s, limit_s, "all users' version is not ready", seen.why)
    settled_s = record.watched_s(seen.now)
    if settled_s < policy.soak_s:
        return Stay(f"100 % for {settled_s:.0f} of {policy.soak_s:g} s, the stable version warm")
    return Shift("promoted", 100, record.reason)


def _missing(record: Record, verdict: Verdict, judge: Judge) -> list[str]:
    """Return the metrics that have yet to prove themselves before this phase is left."""
    if record.phase == "shadow":
        return judge.unproven(verdict, "shadow", PROOF_IN_SHADOW)
    if record.phase == "ramp" and record.step < len(judge.policy.proof):
        return judge.unproven(verdict, "live", judge.policy.proof[record.step])
    return []


def _step(step: int, policy: Rollout, reason: str) -> Shift:
    return Shift("ramp", policy.steps[step], reason, step)


def _in_time(spent_s: float, deadline_s: float, what: str, why: str = "") -> Action:
    because = f": {why}" if why else ""
    if spent_s > deadline_s:
        return roll_back(f"{what} after {spent_s:.0f} s{because}")
    return Stay(f"{what}{because}")


def _prove(missing: list[str], spent_s: float, deadline_s: float, policy: Rollout) -> Action:
    names = ", ".join(missing)
    if spent_s <= deadline_s:
        return Stay(f"not proven yet: {names}")
    return _unproven(f"not proven within {deadline_s:g} s: {names}", policy)


def _unproven(reason: str, policy: Rollout) -> Action:
    if policy.inconclusive == "rollback":
        return roll_back(reason)
    return Hold("inconclusive", reason)


def _rolling_back(record: Record, seen: Seen) -> Action:
    """Weight 0, seen at 0, out of the route, and only then removed.

    A route to what does not exist is never seen to hold; there is nobody to wait for then.
    """
    left = seen.routed is not None and seen.routed.get(record.candidate, 0) == 0
    if left or not seen.candidate_exists:
        return Shift("rolled_back", 0, record.reason)
    if record.phase == "rolling_back" and seen.now - record.entered_at > ROLLBACK_S:
        return Shift(
            "rollback_blocked", 0, f"traffic does not leave the candidate: {record.reason}"
        )
    return Stay(record.reason)


def _tidy(service: str, exists: bool, seen: Seen, reason: str) -> Action:
    if exists and seen.routed is not None and not seen.routed.get(service):
        return Remove(service, reason)
    return Stay(reason)
