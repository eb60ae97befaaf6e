"""Has a run's score turned bad? A sequential test on its logarithm, one evaluation at a time.

Knows numbers in order, nothing of networks; never looks ahead.
"""

import math
import statistics
from dataclasses import dataclass, field

WORSE = math.log(1.3)
"""The test decides between "as good as it was" and "30 % worse"."""
EVIDENCE = math.log(1000)
"""How much likelier the second must be than the first before it is believed: a thousand times."""
WITNESSES = 2
"""A single evaluation may add no more than this part of the evidence: it takes two to stop a run, however bad one of them is."""
USUAL_NOISE, SMALLEST_NOISE = 0.05, 0.02
"""Spread of log scores between evaluations of an unchanging model, before a run has shown its own; and the least ever believed."""
WEIGHT_OF_USUAL = 4
"""The usual noise counts as this many observations."""
FIRST = 4
"""Evaluations before the test says anything."""
ALLOWANCE = 1.0
"""How many times its noise a score may lie above the reference at no cost: the best of many draws is a lucky one."""


@dataclass
class ScoreTrend:
    """Page's cumulative sum (1954) of log-likelihood ratios: Wald's sequential test, begun anew whenever it holds that all is well."""

    best: float = math.inf
    best_at: int | None = None
    best_number: int = 0
    """Which evaluation was the best, counted from 1."""
    evidence: float = 0.0
    logs: list[float] = field(default_factory=list)
    _bends: list[float] = field(default_factory=lambda: [USUAL_NOISE] * WEIGHT_OF_USUAL)

    def add(self, position: int, score: float) -> bool:
        """Take the next evaluation, lower is better; return whether the run has turned bad."""
        self.logs.append(math.log(max(score, 1e-9)))
        if len(self.logs) >= 3:
            before, middle, last = self.logs[-3:]
            # A second difference forgets the trend; of independent noise it is sqrt(6) as wide, and 0.6745 turns a median into a deviation.
            self._bends.append(abs(before - 2 * middle + last) / math.sqrt(6) / 0.6745)
        if score < self.best:
            self.best, self.best_at, self.best_number, self.evidence = score, position, len(self.logs), 0.0
            return False
        if len(self.logs) < FIRST:
            return False
        excess = self.logs[-1] - self.reference - ALLOWANCE * self.noise
        says = WORSE * (excess - WORSE / 2) / self.noise**2
        self.evidence = max(0.0, self.evidence + min(says, EVIDENCE / WITNESSES))
        return self.evidence >= EVIDENCE * (1 - 1e-9)  # thirds do not add up to a whole

    @property
    def noise(self) -> float:
        """The standard deviation of the log score around its trend, from the run itself."""
        return max(SMALLEST_NOISE, statistics.median(self._bends))

    @property
    def reference(self) -> float:
        """The second-best log score: what the run has shown twice, so that one lucky evaluation is not the yardstick."""
        return sorted(self.logs)[1]

    @property
    def worse_by(self) -> float:
        """How many times its best the last score is."""
        return math.exp(self.logs[-1]) / self.best if self.best else math.inf
