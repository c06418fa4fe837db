"""Looks at what users get of champions, for schedules that want to know when it becomes worse."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence

from penstock.core.documents import parse_spec
from penstock.core.errors import LifecycleError
from penstock.core.schedules import Rule
from penstock.core.settings import Settings
from pipelines.schedules.drift import looked, losses_of, told
from pipelines.schedules.kept import Kept
from pipelines.schedules.memory import Memory
from serving.targets.choose import target_of


class Drift:
    """What was seen of every champion.

    Args:
        settings: Where the models are served.
        say: Takes what keeps a champion from being looked at; the same is said once.
        memory: What is known; changed by every look.
    """

    def __init__(self, settings: Settings, say: Callable[[str], None], memory: Memory) -> None:
        self._settings, self._say, self._memory = settings, say, memory
        self._trouble: dict[str, str] = {}

    def look(self, known: Sequence[Kept]) -> Iterator[tuple[Kept, str]]:
        """Return the schedules whose champion became worse since the last looks, and how."""
        for kept in known:
            name = kept.schedule.name
            rules = [rule for rule in map(Rule.parse, kept.schedule.on) if rule.kind == "drift"]
            if not rules or kept.schedule.paused:
                continue
            try:
                yield from ((kept, why) for why in self._of(kept, [rule.name for rule in rules]))
            except LifecycleError as problem:
                if self._trouble.get(name) != str(problem):
                    self._say(f"{name}: its champion cannot be looked at: {problem}")
                self._trouble[name] = str(problem)
            else:
                self._trouble.pop(name, None)

    def _of(self, kept: Kept, metrics: Sequence[str]) -> list[str]:
        name = kept.schedule.name
        model = parse_spec(json.dumps(kept.schedule.spec), where=f"the spec of schedule {name}")
        target = target_of(self._settings, model.target)
        weights = target.observed(model.name) if target.began else {}
        champions = [service for service, weight in weights.items() if weight == 100]
        if not champions:
            return []  # nothing is served, or a rollout goes on, which looks for itself
        version = champions[0]
        counters = target.counters(model.name, version, version)
        try:
            last, cursor = self._memory.cursors.get(name, ("", ""))
            reading = counters.read(cursor if last == version else None)
        finally:
            counters.close()
        self._memory.cursors[name] = (version, reading.cursor)
        found, watched = [], self._memory.watched.setdefault(name, {})
        for metric in metrics:
            margins = model.rollout.metrics[metric]
            lost = losses_of(reading.candidate, metric, margins)
            known = looked(watched.get(metric), version, lost, margins)
            if known.alarm:
                found.append(told(known, metric, margins))
                known = known.again()
            watched[metric] = known
        return found
