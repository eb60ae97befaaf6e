"""Names what has gone wrong in a run, from numbers read in order; never looks ahead, so a run and its journal give the same verdict.

Knows no torch: `training/probe.py` measures, the recorder and `cardigan diagnose` read.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from cardigan.health.faults import SCORE_MESSAGES, Fault, make_fault
from cardigan.health.rules import MIN_CONSECUTIVE, RULES, History
from cardigan.health.score_trend import ScoreTrend

COLLAPSE_RATIO = 1.5
"""A score this many times its best is a collapse; below it, on the way there."""
PLATEAU_FRACTION, MIN_PLATEAU_EVALUATIONS = 0.5, 10
"""A best that is followed by this share of the run, and by this many evaluations."""


@dataclass
class Monitor:
    """Takes readings; returns each fault once, when it begins."""

    has_scores: bool
    """Whether scores come too: then losses alone are no reason to stop."""
    score_trend: ScoreTrend = field(default_factory=ScoreTrend)
    history: History = field(default_factory=History)
    _consecutive: dict[str, int] = field(default_factory=dict)
    """How many readings in a row each sign has been seen."""
    _reported: set[tuple[str, bool]] = field(default_factory=set)

    def observe(self, step: int, values: Mapping[str, float]) -> list[Fault]:
        """Take the numbers of one moment, at `step` images or steps; return the faults that begin with it."""
        nonfinite = {name: value for name, value in values.items() if not math.isfinite(value)}
        if nonfinite:
            return self._unreported([make_fault("non-finite", step, nonfinite, fatal=True)])
        faults = self._score_faults(step, values["score"]) if "score" in values else []
        self.history.add(step, values)
        return self._unreported(faults + self._rule_faults(step, values))

    def _score_faults(self, step: int, score: float) -> list[Fault]:
        trend = self.score_trend
        degraded = trend.add(step, score)
        assert trend.best_step is not None
        evidence = {
            "score": score,
            "best_score": trend.best_score,
            "best_step": trend.best_step,
            "ratio_to_best": trend.ratio_to_best,
            "log_score_noise": trend.noise,
        }
        if degraded:
            name = "mode collapse" if trend.ratio_to_best >= COLLAPSE_RATIO else "partial mode collapse"
            return [make_fault(name, step, evidence, fatal=True, message=SCORE_MESSAGES[name])]
        if (
            len(trend.log_scores) - trend.best_index >= MIN_PLATEAU_EVALUATIONS
            and step - trend.best_step >= PLATEAU_FRACTION * step
        ):
            return [
                make_fault(
                    "plateau",
                    step,
                    evidence,
                    fatal=False,
                    message=f"the score has not improved for half of the run: best was at {trend.best_step:,}",
                )
            ]
        self._reported.discard(("plateau", False))
        return []

    def _rule_faults(self, step: int, values: Mapping[str, float]) -> list[Fault]:
        """Return the faults whose signs have lasted for `MIN_CONSECUTIVE` readings that could show them."""
        faults = []
        for index, rule in enumerate(RULES):
            key = f"{index} {rule.name}"
            if not rule.required <= values.keys():
                continue
            evidence = rule.check(values, self.history)
            self._consecutive[key] = self._consecutive.get(key, 0) + 1 if evidence else 0
            if evidence and self._consecutive[key] >= MIN_CONSECUTIVE:
                faults.append(
                    make_fault(rule.name, step, evidence, fatal=rule.fatal and not (rule.loss_only and self.has_scores))
                )
        return faults

    def _unreported(self, faults: list[Fault]) -> list[Fault]:
        new_faults = [fault for fault in faults if (fault.name, fault.fatal) not in self._reported]
        self._reported |= {(each.name, each.fatal) for each in new_faults}
        return new_faults
