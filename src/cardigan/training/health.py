"""Names what has gone wrong in a run, from numbers read in order; never looks ahead, so a run and its journal give the same verdict.

Knows no torch: `signals.py` measures, the recorder and `cardigan diagnose` read.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from cardigan.training.faults import SCORE_WORDS, Fault, fault
from cardigan.training.score_trend import ScoreTrend
from cardigan.training.signs import SIGNS, SUSTAINED, Memory

COLLAPSED = 1.5
"""A score this many times its best is a collapse; below it, on the way there."""
PLATEAU_SHARE, PLATEAU_EVALUATIONS = 0.5, 10
"""A best that is followed by this share of the run, and by this many evaluations."""


@dataclass
class Monitor:
    """Takes readings; returns each fault once, when it begins."""

    judged: bool
    """Whether scores come too: then losses alone are no reason to stop."""
    trend: ScoreTrend = field(default_factory=ScoreTrend)
    memory: Memory = field(default_factory=Memory)
    _held: dict[str, int] = field(default_factory=dict)
    """How many readings in a row each sign has been seen."""
    _known: set[tuple[str, bool]] = field(default_factory=set)

    def observe(self, position: int, values: Mapping[str, float]) -> list[Fault]:
        """Take the numbers of one moment, at `position` images or steps; return the faults that begin with it."""
        bad = {name: value for name, value in values.items() if not math.isfinite(value)}
        if bad:
            return self._new([fault("non-finite", position, bad, grave=True)])
        found = self._from_score(position, values["score"]) if "score" in values else []
        self.memory.take(position, values)
        return self._new(found + self._from_signs(position, values))

    def _from_score(self, position: int, score: float) -> list[Fault]:
        trend = self.trend
        turned = trend.add(position, score)
        assert trend.best_at is not None
        numbers = {"score": score, "best_score": trend.best, "best_at": trend.best_at, "times_best": trend.worse_by, "noise": trend.noise}
        if turned:
            name = "collapse" if trend.worse_by >= COLLAPSED else "partial collapse"
            return [fault(name, position, numbers, grave=True, words=SCORE_WORDS[name])]
        if len(trend.logs) - trend.best_number >= PLATEAU_EVALUATIONS and position - trend.best_at >= PLATEAU_SHARE * position:
            return [
                fault(
                    "plateau", position, numbers, grave=False, words=f"the score has not improved for half of the run: best was at {trend.best_at:,}"
                )
            ]
        self._known.discard(("plateau", False))
        return []

    def _from_signs(self, position: int, values: Mapping[str, float]) -> list[Fault]:
        """Return the faults whose signs have lasted for `SUSTAINED` readings that could show them."""
        found = []
        for number, sign in enumerate(SIGNS):
            key = f"{number} {sign.name}"
            if not sign.needs <= values.keys():
                continue
            seen = sign.seen(values, self.memory)
            self._held[key] = self._held.get(key, 0) + 1 if seen else 0
            if seen and self._held[key] >= SUSTAINED:
                found.append(fault(sign.name, position, seen, grave=sign.grave and not (sign.only_losses and self.judged)))
        return found

    def _new(self, found: list[Fault]) -> list[Fault]:
        fresh = [each for each in found if (each.name, each.grave) not in self._known]
        self._known |= {(each.name, each.grave) for each in fresh}
        return fresh
