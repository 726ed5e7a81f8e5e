"""How often the bootstrap over few seeds calls two arms different that are not: the figures of docs/comparing.md.

python docs/few_seeds.py [--trials N]
"""

from __future__ import annotations

import argparse

import numpy as np

from socratic.stats import bootstrap_difference

PROBLEMS = 300
SEEDS = (2, 3, 5)
SPREADS = (0.0, 0.04, 0.08, 0.15)
"""Standard deviations of the shift of all chances of a seed; cut off at 0 and 1, the last is 0.13 of its accuracy."""


def false_alarms(seeds: int, spread: float, trials: int, rng: np.random.Generator) -> float:
    """The share of ``trials`` in which p is below 0.05 for two arms of ``seeds`` seeds that are equally good."""
    alarms = 0
    for trial in range(trials):
        ease = rng.beta(1, 1, PROBLEMS)  # the same problems for both
        rights = []
        for _ in range(2):
            shift = rng.normal(0, spread, (seeds, 1))
            rights.append(rng.random((seeds, PROBLEMS)) < ease + shift)
        _, _, p = bootstrap_difference(rights[0], rights[1], seed=trial, resamples=2000)
        alarms += p < 0.05
    return alarms / trials


def main() -> None:
    """Print the share for each number of seeds and each spread."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    trials = parser.parse_args().trials
    rng = np.random.default_rng(0)
    print(f"Arms called different at p < 0.05, in % of {trials} pairs of equally good ones")
    print(f"{'seeds':>5}" + "".join(f"  sd {100 * spread:>2.0f} points" for spread in SPREADS))
    for seeds in SEEDS:
        shares = (false_alarms(seeds, spread, trials, rng) for spread in SPREADS)
        print(f"{seeds:>5}" + "".join(f"  {100 * share:>12.1f}" for share in shares))


if __name__ == "__main__":
    main()
