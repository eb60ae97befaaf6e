"""A sequential test of whether a run's score has become worse, on its logarithm, one evaluation at a time.

Knows only a sequence of numbers, and never looks ahead.
"""

import math
import statistics
from dataclasses import dataclass, field

LOG_WORSENING = math.log(1.3)
"""The test decides between "as good as it was" and "30 % worse"."""
LOG_LIKELIHOOD_THRESHOLD = math.log(1000)
"""The test stops the run when the second hypothesis is a thousand times likelier than the first."""
MIN_BAD_EVALUATIONS = 2
"""Minimum number of bad evaluations that stop a run. One evaluation adds at most 1 / this of the threshold."""
PRIOR_NOISE, MIN_NOISE = 0.05, 0.02
"""Standard deviation of log scores of an unchanged model: before a run has shown its own, and the lower limit."""
PRIOR_WEIGHT = 4
"""The prior noise counts as this many observations."""
NOISE_MARGIN = 1.0
"""How many of its own standard errors (1 / sqrt(observations), as a fraction) the noise estimate is raised by. Few
observations often miss how noisy a run is, and a run that is noisier than assumed is stopped for nothing."""
MIN_EVALUATIONS = 4
"""Evaluations before the test can stop a run."""
ALLOWANCE = 1.0
"""A score may exceed the reference by this many noise deviations at no cost: the best of many scores is a lucky one."""


@dataclass
class ScoreTrend:
    """Page's cumulative sum (1954) of log-likelihood ratios: Wald's sequential test, restarted whenever the sum
    falls to 0, and at each new best."""

    best_score: float = math.inf
    best_step: int | None = None
    best_index: int = 0
    """The index of the best evaluation, counted from 1."""
    cusum: float = 0.0
    log_scores: list[float] = field(default_factory=list)
    _noise_samples: list[float] = field(default_factory=lambda: [PRIOR_NOISE] * PRIOR_WEIGHT)

    def add(self, step: int, score: float) -> bool:
        """Take the next score (lower is better) and return whether the run has become worse."""
        self.log_scores.append(math.log(max(score, 1e-9)))
        if len(self.log_scores) >= 3:
            before, middle, last = self.log_scores[-3:]
            # A second difference removes the trend. Its deviation is sqrt(6) times that of independent noise; a median
            # of absolute values divided by 0.6745 estimates the standard deviation.
            self._noise_samples.append(abs(before - 2 * middle + last) / math.sqrt(6) / 0.6745)
        if score < self.best_score:
            self.best_score, self.best_step, self.best_index, self.cusum = score, step, len(self.log_scores), 0.0
            return False
        if len(self.log_scores) < MIN_EVALUATIONS:
            return False
        excess = self.log_scores[-1] - self.reference - ALLOWANCE * self.noise
        log_likelihood_ratio = LOG_WORSENING * (excess - LOG_WORSENING / 2) / self.noise**2
        self.cusum = max(0.0, self.cusum + min(log_likelihood_ratio, LOG_LIKELIHOOD_THRESHOLD / MIN_BAD_EVALUATIONS))
        return self.cusum >= LOG_LIKELIHOOD_THRESHOLD * (1 - 1e-9)  # tolerance for rounding

    @property
    def noise(self) -> float:
        """The standard deviation of the log score around its trend, estimated from the run, on the safe side."""
        margin = 1 + NOISE_MARGIN / math.sqrt(len(self._noise_samples))
        return max(MIN_NOISE, statistics.median(self._noise_samples)) * margin

    @property
    def reference(self) -> float:
        """The second-best log score, which the run has reached twice, so one lucky evaluation does not count."""
        return sorted(self.log_scores)[1]

    @property
    def ratio_to_best(self) -> float:
        """The last score divided by the best one."""
        return math.exp(self.log_scores[-1]) / self.best_score if self.best_score else math.inf
