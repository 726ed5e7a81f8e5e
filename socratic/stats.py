"""Intervals, paired tests and the majority vote."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt


def wilson(successes: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval (low, high) for a proportion; ``(0, 1)`` where ``n`` is 0.

    ``successes`` may be fractional: a sum of per-problem means varies no more than a sum of 0/1 outcomes of the same
    mean, so the interval is then conservative. Source: Wilson (1927), "Probable inference, the law of succession, and
    statistical inference". Raises `ValueError` unless ``0 <= successes <= n``.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided exact p-value for paired outcomes: ``only_a`` pairs that A alone got right, ``only_b`` B alone.

    Under the null hypothesis the smaller count is binomial(n, 1/2). Source: McNemar (1947), "Note on the sampling error
    of the difference between correlated proportions or percentages", in its exact binomial form.
    """
    n: int = only_a + only_b
    term = tail = 1
    for i in range(min(only_a, only_b)):
        term = term * (n - i) // (i + 1)
        tail += term
    return min(1.0, tail / (1 << n) * 2)


def paired_bootstrap(a: npt.ArrayLike, b: npt.ArrayLike, seed: int, resamples: int = 10_000) -> tuple[float, float]:
    """95 % percentile interval (low, high) for ``mean(a) - mean(b)``, resampling problems with replacement.

    ``a`` and ``b`` are 0/1 outcomes of the same problems in the same order. Source: Efron and Tibshirani (1993), "An
    introduction to the bootstrap", section 13.3. Raises `ValueError` for empty arrays or arrays of different shapes.
    """
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if first.shape != second.shape or first.ndim != 1 or first.size == 0:
        raise ValueError(f"outcomes of shape {first.shape} and {second.shape} are not paired")
    # Resampling n differences is one multinomial draw over the distinct ones, of which 0/1 outcomes have three.
    values, counts = np.unique(first - second, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(first.size, counts / first.size, size=resamples)
    low, high = np.quantile(draws @ values / first.size, (0.025, 0.975))
    return float(low), float(high)


def majority(predictions: Sequence[str | None]) -> str | None:
    """The most frequent parsed answer, ties to the one that came first; None where nothing was parsed.

    Source: Wang et al. (2022), "Self-consistency improves chain of thought reasoning in language models", section 2.
    """
    votes = Counter(answer for answer in predictions if answer is not None)
    return max(votes, key=votes.__getitem__, default=None)
