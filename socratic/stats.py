"""Intervals, paired tests and the majority vote."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt


def wilson(successes: float, n: int) -> tuple[float, float]:
    """95 % score interval (low, high) for a proportion; ``(0, 1)`` where ``n`` is 0.

    ``successes`` may be fractional: a sum of per-problem means varies no more than a sum of 0/1 outcomes of the same
    mean, so the interval is then conservative. Source: Wilson (1927), "Probable inference, the law of succession, and
    statistical inference". Raises `ValueError` unless ``0 <= successes <= n``.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.975)
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


def bootstrap_difference(
    a: npt.ArrayLike, b: npt.ArrayLike, seed: int, resamples: int = 10_000
) -> tuple[float, float, float]:
    """95 % percentile interval (low, high) for ``mean(a) - mean(b)`` and its two-sided p-value.

    ``a`` and ``b`` are outcomes in [0, 1], [seeds, problems], of the same problems in the same order; seeds are
    resampled within each, problems for both together. With one seed each this is the paired bootstrap. Source: Efron
    and Tibshirani (1993), "An introduction to the bootstrap", section 13.3 for the interval; p is twice the smaller
    share of resamples on one side of 0, the observed one counted in. Means of few seeds drawn with replacement vary too
    little, by (n - 1) / n in variance; their deviations are scaled up by that. Raises `ValueError` for empty arrays or
    arrays over other problems.
    """
    first, second = (np.atleast_2d(np.asarray(values, dtype=float)) for values in (a, b))
    if first.shape[-1] != second.shape[-1] or first.ndim != 2 or second.ndim != 2 or not first.size or not second.size:
        raise ValueError(f"outcomes of shape {first.shape} and {second.shape} are not paired")
    rng = np.random.default_rng(seed)
    problems = first.shape[1]
    # Problems that came out the same in all seeds are interchangeable: count the distinct columns and draw counts.
    columns, counts = np.unique(np.vstack([first, second]), axis=1, return_counts=True)
    draws = rng.multinomial(problems, counts / problems, size=resamples) / problems
    means = draws @ columns.T  # of each seed, under each resample of the problems
    parts = np.split(means, [len(first)], axis=1)
    resampled = [_resampled_seeds(part, rng) for part in parts]
    difference = resampled[0] - resampled[1]
    low, high = np.quantile(difference, (0.025, 0.975))
    p = 2 * (1 + min((difference <= 0).sum(), (difference >= 0).sum())) / (1 + resamples)
    return float(low), float(high), min(1.0, float(p))


def _resampled_seeds(means: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """The mean over seeds drawn with replacement, for each row of ``means`` [resamples, seeds]."""
    seeds = means.shape[1]
    weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=len(means)) / seeds
    every = means.mean(axis=1)
    drawn = (means * weights).sum(axis=1)
    scaled: npt.NDArray[np.float64] = every + (drawn - every) * math.sqrt(seeds / max(1, seeds - 1))
    return scaled


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for all tests of a family, in the order given.

    Source: Holm (1979), "A simple sequentially rejective multiple test procedure".
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def detectable_difference(discordant: float, n: int) -> float:
    """The smallest difference that McNemar's test at 5 % would have seen with about 80 % power on ``n`` pairs.

    ``discordant`` is the share of pairs on which the two differ. Source: Connor (1987), "Sample size for testing
    differences in proportions for the paired-sample design", solved for the difference. Never below 6 / n: the exact
    test needs six pairs that differ, all in one direction.
    """
    both, power = NormalDist().inv_cdf(0.975), NormalDist().inv_cdf(0.8)
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        share = max(discordant, middle)  # a difference takes at least as many discordant pairs
        needed = (both * math.sqrt(share) + power * math.sqrt(max(0.0, share - middle * middle))) ** 2
        low, high = (low, middle) if n * middle * middle >= needed else (middle, high)
    return min(1.0, max(high, 6 / n))


def detectable_from_interval(low: float, high: float) -> float:
    """The smallest difference seen with 80 % power by a test whose 95 % interval is as wide as this one."""
    both, power = NormalDist().inv_cdf(0.975), NormalDist().inv_cdf(0.8)
    return min(1.0, (high - low) / 2 * (both + power) / both)


def pass_at(k: int, right: int, samples: int) -> float:
    """The chance that at least one of ``k`` samples, drawn from ``samples`` of which ``right`` are right, is right.

    Source: Chen et al. (2021), "Evaluating large language models trained on code", section 2.1.
    """
    return 1.0 - math.comb(samples - right, k) / math.comb(samples, k)


def krippendorff_alpha(ratings: Sequence[Sequence[float | None]], *, nominal: bool = False) -> float | None:
    """Agreement of raters beyond chance, 1 for perfect, 0 for chance; None without variation.

    ``ratings`` [units, raters], None where a rater left a unit out; a unit with fewer than two ratings does not count.
    Source: Krippendorff (2011), "Computing Krippendorff's alpha-reliability", with its metric for ordinal data, or the
    ``nominal`` one, where any two different values are as far apart.
    """
    units = [[value for value in unit if value is not None] for unit in ratings]
    units = [unit for unit in units if len(unit) > 1]
    values = sorted({value for unit in units for value in unit})
    place = {value: i for i, value in enumerate(values)}
    coincidences = np.zeros((len(values), len(values)))
    for unit in units:
        for i, first in enumerate(unit):
            for j, second in enumerate(unit):
                if i != j:
                    coincidences[place[first], place[second]] += 1 / (len(unit) - 1)
    totals = coincidences.sum(axis=1)
    before = np.cumsum(totals) - totals / 2  # the middle rank of each value
    distance = 1 - np.eye(len(values)) if nominal else np.square(before[:, None] - before[None, :])
    expected = (np.outer(totals, totals) * distance).sum() / max(1.0, totals.sum() - 1)
    return float(1 - (coincidences * distance).sum() / expected) if expected else None


def majority(predictions: Sequence[str | None]) -> str | None:
    """The most frequent parsed answer, ties to the one that came first; None where nothing was parsed.

    Source: Wang et al. (2022), "Self-consistency improves chain of thought reasoning in language models", section 2.
    """
    votes = Counter(answer for answer in predictions if answer is not None)
    return max(votes, key=votes.__getitem__, default=None)
