from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap

from socratic.stats import majority, mcnemar, paired_bootstrap, wilson

counts = st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts, st.sampled_from([0.9, 0.95, 0.99]))
def test_wilson_equals_scipy(count: tuple[int, int], confidence: float) -> None:
    successes, n = count
    expected = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert wilson(successes, n, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


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


def test_paired_bootstrap_agrees_with_scipy() -> None:
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
    assert paired_bootstrap(a, b, seed=0) == pytest.approx((expected.low, expected.high), abs=0.005)


def test_paired_bootstrap_is_seeded_and_paired() -> None:
    a = [1, 0, 1, 1, 0, 1, 0, 0]
    assert paired_bootstrap(a, [0] * 8, seed=1) == paired_bootstrap(a, [0] * 8, seed=1)
    assert paired_bootstrap(a, a, seed=1) == (0.0, 0.0)
    low, high = paired_bootstrap([1] * 8, [0] * 8, seed=1)
    assert (low, high) == (1.0, 1.0)


@pytest.mark.parametrize(("a", "b"), [([1, 0], [1]), ([], []), ([[1]], [[0]])])
def test_paired_bootstrap_refuses_what_is_not_paired(a: list[int], b: list[int]) -> None:
    with pytest.raises(ValueError, match="not paired"):
        paired_bootstrap(a, b, seed=0)


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
