"""Detect the faults of a run from its metrics, read in order.

The monitor never looks ahead, so a live run and its journal give the same faults. It imports no torch:
`training/probe.py` measures; the recorder and `cardigan diagnose` feed the monitor.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from cardigan.health.faults import SCORE_MESSAGES, Fault, make_fault
from cardigan.health.rules import MIN_CONSECUTIVE, RULES, History
from cardigan.health.score_trend import ScoreTrend

COLLAPSE_RATIO = 1.5
"""A score of this many times the best is a mode collapse, below it a partial one."""
PLATEAU_FRACTION, MIN_PLATEAU_EVALUATIONS = 0.5, 10
"""A plateau: this fraction of the run and this many evaluations without a new best score."""


@dataclass
class Monitor:
    """Takes metrics step by step and returns each fault once, when it starts."""

    has_scores: bool
    """Whether the metrics include scores. Then faults found in losses alone are not fatal."""
    score_trend: ScoreTrend = field(default_factory=ScoreTrend)
    history: History = field(default_factory=History)
    _consecutive: dict[str, int] = field(default_factory=dict)
    """Consecutive readings that showed each rule's fault."""
    _reported: set[tuple[str, bool]] = field(default_factory=set)

    def observe(self, step: int, values: Mapping[str, float]) -> list[Fault]:
        """Take the metrics at `step` (images or steps) and return the faults that start there."""
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
                    message=f"the score has not improved for half of the run: the best was at {trend.best_step:,}",
                )
            ]
        self._reported.discard(("plateau", False))
        return []

    def _rule_faults(self, step: int, values: Mapping[str, float]) -> list[Fault]:
        """Return the faults whose rule fired in `MIN_CONSECUTIVE` consecutive readings with the required metrics."""
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
        self._reported |= {(fault.name, fault.fatal) for fault in new_faults}
        return new_faults
