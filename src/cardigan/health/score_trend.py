"""Has a run's score turned bad? A sequential test on its logarithm, one evaluation at a time.

Knows numbers in order, nothing of networks; never looks ahead.
"""

import math
import statistics
from dataclasses import dataclass, field

LOG_WORSENING = math.log(1.3)
"""The test decides between "as good as it was" and "30 % worse"."""
LOG_LIKELIHOOD_THRESHOLD = math.log(1000)
"""How much likelier the second must be than the first before it is believed: a thousand times."""
MIN_BAD_EVALUATIONS = 2
"""A single evaluation may add no more than this part of the evidence: it takes two to stop a run, however bad one of them is."""
PRIOR_NOISE, MIN_NOISE = 0.05, 0.02
"""Spread of log scores between evaluations of an unchanging model, before a run has shown its own; and the least ever believed."""
PRIOR_WEIGHT = 4
"""The usual noise counts as this many observations."""
MIN_EVALUATIONS = 4
"""Evaluations before the test says anything."""
ALLOWANCE = 1.0
"""How many times its noise a score may lie above the reference at no cost: the best of many draws is a lucky one."""


@dataclass
class ScoreTrend:
    """Page's cumulative sum (1954) of log-likelihood ratios: Wald's sequential test, begun anew whenever it holds that all is well."""

    best_score: float = math.inf
    best_step: int | None = None
    best_index: int = 0
    """Which evaluation was the best, counted from 1."""
    cusum: float = 0.0
    log_scores: list[float] = field(default_factory=list)
    _noise_samples: list[float] = field(default_factory=lambda: [PRIOR_NOISE] * PRIOR_WEIGHT)

    def add(self, step: int, score: float) -> bool:
        """Take the next evaluation, lower is better; return whether the run has turned bad."""
        self.log_scores.append(math.log(max(score, 1e-9)))
        if len(self.log_scores) >= 3:
            before, middle, last = self.log_scores[-3:]
            # A second difference forgets the trend; of independent noise it is sqrt(6) as wide, and 0.6745 turns a median into a deviation.
            self._noise_samples.append(abs(before - 2 * middle + last) / math.sqrt(6) / 0.6745)
        if score < self.best_score:
            self.best_score, self.best_step, self.best_index, self.cusum = score, step, len(self.log_scores), 0.0
            return False
        if len(self.log_scores) < MIN_EVALUATIONS:
            return False
        excess = self.log_scores[-1] - self.reference - ALLOWANCE * self.noise
        log_likelihood_ratio = LOG_WORSENING * (excess - LOG_WORSENING / 2) / self.noise**2
        self.cusum = max(0.0, self.cusum + min(log_likelihood_ratio, LOG_LIKELIHOOD_THRESHOLD / MIN_BAD_EVALUATIONS))
        return self.cusum >= LOG_LIKELIHOOD_THRESHOLD * (1 - 1e-9)  # thirds do not add up to a whole

    @property
    def noise(self) -> float:
        """The standard deviation of the log score around its trend, from the run itself."""
        return max(MIN_NOISE, statistics.median(self._noise_samples))

    @property
    def reference(self) -> float:
        """The second-best log score: what the run has shown twice, so that one lucky evaluation is not the yardstick."""
        return sorted(self.log_scores)[1]

    @property
    def ratio_to_best(self) -> float:
        """How many times its best the last score is."""
        return math.exp(self.log_scores[-1]) / self.best_score if self.best_score else math.inf
