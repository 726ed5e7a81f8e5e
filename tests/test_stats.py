from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap

from socratic.stats import (
    bootstrap_difference,
    detectable_difference,
    detectable_from_interval,
    holm,
    krippendorff_alpha,
    majority,
    mcnemar,
    pass_at,
    wilson,
)

counts = st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts)
def test_wilson_equals_scipy(count: tuple[int, int]) -> None:
    successes, n = count
    expected = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert wilson(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_at_the_ends() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == 1.0
    with pytest.raises(ValueError, match="11 successes of 10"):
        wilson(11, 10)


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_equals_scipy_and_is_symmetric(only_a: int, only_b: int) -> None:
    expected = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert mcnemar(only_a, only_b) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(only_a, only_b) == mcnemar(only_b, only_a)


def test_mcnemar_by_hand() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(3, 3) == 1.0
    assert mcnemar(0, 5) == 2 / 32
    assert mcnemar(4000, 4200) == pytest.approx(binomtest(4000, 8200).pvalue, rel=1e-9)


def test_bootstrap_of_one_seed_agrees_with_scipy() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.random(400) < 0.45, rng.random(400) < 0.35
    expected = bootstrap(
        (a.astype(float), b.astype(float)),
        lambda x, y, axis: x.mean(axis) - y.mean(axis),
        paired=True,
        method="percentile",
        n_resamples=10_000,
        rng=rng,
    ).confidence_interval
    assert bootstrap_difference(a, b, seed=0)[:2] == pytest.approx((expected.low, expected.high), abs=0.005)


def test_bootstrap_is_seeded_and_paired() -> None:
    a = [1, 0, 1, 1, 0, 1, 0, 0]
    assert bootstrap_difference(a, [0] * 8, seed=1) == bootstrap_difference(a, [0] * 8, seed=1)
    assert bootstrap_difference(a, a, seed=1) == (0.0, 0.0, 1.0)
    assert bootstrap_difference([1] * 8, [0] * 8, seed=1) == (1.0, 1.0, 2 / 10_001)
    assert bootstrap_difference([0] * 8, [1] * 8, seed=1) == (-1.0, -1.0, 2 / 10_001)


def test_bootstrap_over_seeds_is_wider_and_agrees_with_a_plain_one() -> None:
    rng = np.random.default_rng(5)
    skill = np.array([0.2, 0.5, 0.8])[:, None]  # seeds differ much more than problems
    a, b = (rng.random((3, 200)) < skill).astype(float), (rng.random((2, 200)) < 0.4).astype(float)

    def plain(means: npt.NDArray[np.float64]) -> float:
        drawn = rng.choice(means, len(means)).mean()
        return float(means.mean() + (drawn - means.mean()) * np.sqrt(len(means) / (len(means) - 1)))

    drawn = []
    for _ in range(4_000):
        problems = rng.integers(200, size=200)
        drawn.append(plain(a[:, problems].mean(1)) - plain(b[:, problems].mean(1)))
    low, high, _ = bootstrap_difference(a, b, seed=0)
    assert (low, high) == pytest.approx(tuple(np.quantile(drawn, (0.025, 0.975))), abs=0.02)
    narrow = bootstrap_difference(a.mean(0), b.mean(0), seed=0)
    assert high - low > 2 * (narrow[1] - narrow[0])


def test_seeds_that_differ_by_chance_alone_are_seldom_called_different() -> None:
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(120):
        skill = 0.5 + 0.05 * rng.standard_normal((2, 3, 1))  # of two arms of three seeds
        a, b = rng.random((2, 3, 200)) < np.clip(skill, 0, 1)
        seen.append(bootstrap_difference(a, b, seed=0, resamples=300)[2] < 0.05)
    assert 0.01 <= np.mean(seen) <= 0.1


@pytest.mark.parametrize(("a", "b"), [([1, 0], [1]), ([], []), ([[[1]]], [[[0]]])])
def test_bootstrap_refuses_what_is_not_paired(a: list[int], b: list[int]) -> None:
    with pytest.raises(ValueError, match="not paired"):
        bootstrap_difference(a, b, seed=0)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(("discordant", "n"), [(0.05, 300), (0.2, 300), (0.5, 1319)])
def test_a_detectable_difference_is_seen_about_four_times_in_five(discordant: float, n: int) -> None:
    difference = detectable_difference(discordant, n)
    both = (discordant - difference) / 2
    drawn = np.random.default_rng(0).multinomial(n, [both + difference, both, 1 - discordant], size=2_000)
    assert 0.74 <= np.mean([mcnemar(int(a), int(b)) < 0.05 for a, b, _ in drawn]) <= 0.86
    assert detectable_from_interval(-0.07, 0.07) == pytest.approx(0.1, abs=1e-3)


def test_detectable_differences_of_the_usual_sizes() -> None:
    assert detectable_difference(0.2, 1319) == pytest.approx(0.0343, abs=1e-3)
    assert detectable_difference(0.0, 300) == pytest.approx(0.026, abs=1e-3)
    assert detectable_difference(0.0, 4) == 1.0


def test_pass_at_k_is_the_chance_of_a_hit() -> None:
    assert pass_at(1, 3, 10) == pytest.approx(0.3)
    assert pass_at(2, 1, 4) == pytest.approx(0.5)
    assert pass_at(4, 0, 4) == 0.0
    assert pass_at(3, 2, 4) == 1.0


def test_krippendorff_alpha_of_the_authors_example() -> None:
    # Krippendorff (2011), "Computing Krippendorff's alpha-reliability", example C: 0.815, nominal 0.743.
    a = [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None]
    b = [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3]
    c = [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None]
    d = [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None]
    units = list(zip(a, b, c, d, strict=True))
    assert krippendorff_alpha(units) == pytest.approx(0.815, abs=5e-4)
    assert krippendorff_alpha(units, nominal=True) == pytest.approx(0.743, abs=5e-4)


def test_krippendorff_alpha_at_the_ends() -> None:
    assert krippendorff_alpha([[0, 0], [1, 1], [2, 2]]) == 1.0
    assert krippendorff_alpha([[1, 1], [1, 1]]) is None
    assert krippendorff_alpha([[1, None], [2, None]]) is None
    assert (krippendorff_alpha([[0, 2], [2, 0]]) or 0) < 0


@pytest.mark.parametrize(
    ("predictions", "answer"),
    [
        (["1", "2", "2"], "2"),
        (["1", "2", "2", "1"], "1"),
        ([None, None, "3"], "3"),
        ([None, None], None),
        ([], None),
    ],
)
def test_majority_counts_parsed_answers_and_breaks_ties_by_order(
    predictions: list[str | None], answer: str | None
) -> None:
    assert majority(predictions) == answer
