"""Draws the plots of the page on results from the committed runs: ``python docs/plots.py``, `make results`.

The data sets are needed, as for `socratic data`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from socratic.cli.runs import gold_chains
from socratic.evaluate import load_run
from socratic.report.compare import compare
from socratic.report.figures import COLOURS, style
from socratic.report.report import make_report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOCS = Path(__file__).resolve().parent
RESULTS = DOCS.parent / "results"
PAIRS = {
    "GSM8K": "gsm8k-smollm2/test/{}-s?",
    "GSM8K, no calculator": "gsm8k-smollm2/test/{}-nocalc-s?",
    "SVAMP": "svamp-smollm2/arms/{}-s?",
    "StrategyQA": "strategyqa-smollm2/test/{}-s?",
    "StrategyQA, fp32": "strategyqa-smollm2/fp32/{}-s?",
    "GSM8K's students on SVAMP": "gsm8k-smollm2/svamp-test/{}-s?",
    "GSM8K's students on MultiArith": "gsm8k-smollm2/multiarith-test/{}-s?",
    "GSM8K's students on AddSub": "gsm8k-smollm2/addsub-test/{}-s?",
    "GSM8K's students on SingleEq": "gsm8k-smollm2/singleeq-test/{}-s?",
}
"""What a row is called, and where its runs of chain of thought (``cot``) and of the pair (``iterative``) are."""

_DEMO = {"test": "stories, like train", "unseen": "stories, unseen families", "longer": "stories, longer chains"}
_DIFFERENCE = re.compile(r"^ socratic +([-+.\d]+) \[([-+.\d]+), ([-+.\d]+)\]", re.M)

Difference = tuple[str, int, float, float, float]


def differences() -> Iterator[Difference]:
    """What, how many seeds, the pair minus chain of thought in points of accuracy, and its 95 % interval."""
    for label, place in PAIRS.items():
        folders = [sorted(RESULTS.glob(place.format(arm))) for arm in ("cot", "iterative")]
        found = compare([load_run(folder) for arm in folders for folder in arm])
        [pair] = found.pairs
        yield label, len(folders[0]), 100 * pair.difference, 100 * pair.low, 100 * pair.high
    printed = (RESULTS / "demo" / "three-seeds.txt").read_text("utf-8")  # of the demo no traces are kept
    for split, label in _DEMO.items():
        line = _DIFFERENCE.search(printed, printed.index(f"\n{split}:\n"))
        assert line, split
        yield label, 3, float(line[1]), float(line[2]), float(line[3])


def draw(rows: list[Difference]) -> Figure:
    """The differences, one below the other, with their intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 0.7 + 0.24 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, (_, _, difference, low, high) in enumerate(rows):
        colour = COLOURS[1 if high < 0 else 0 if low > 0 else -1]
        axes.errorbar(difference, place, xerr=[[difference - low], [high - difference]], fmt="o", color=colour)
    axes.axvline(0, color="#010101", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [f"{label} ({seeds})" for label, seeds, *_ in rows])
    axes.invert_yaxis()
    axes.grid(axis="x")
    axes.set(xlabel="QG and QA minus chain of thought\nin points of accuracy, 95 %; in brackets: seeds")
    return figure


if __name__ == "__main__":
    with style("differences"):
        draw([*differences()]).savefig(DOCS / "differences.png", metadata={"Software": None})
    gsm8k = RESULTS / "gsm8k-smollm2"
    runs = [load_run(folder) for arm in ("cot", "iterative") for folder in sorted(gsm8k.glob(f"test/{arm}-s?"))]
    report = make_report(runs, compare(runs), gold_chains(runs[0], os.environ.get("SOCRATIC_DATA")))
    [steps] = [plot for plot in report.plots if plot.name == "gold-steps"]  # which there is where gold is found
    (gsm8k / "gold-steps.png").write_bytes(steps.png())
