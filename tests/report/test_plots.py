from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from sample_runs import CHAINS, as_gold, chain_of_thought, gold_steps, make_page_of, make_run, said, slips

from socratic.evaluate import Run
from socratic.report import plots, steps
from socratic.report.figures import _spread
from socratic.report.plots import Plot
from socratic.report.report import write_plots
from socratic.types import Chain, Step, Trace


def plots_of(runs: list[Run], chains: dict[str, Chain] = CHAINS) -> dict[str, Plot]:
    return {plot.name: plot for plot in make_page_of(runs, chains).plots}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("runs")
    sized: dict[str, Any] = {"models": {"lm": {"name": "m", "sha256": "x", "parameters": 2_000_000}}}
    return [make_run(folder / "slips", slips, **sized), make_run(folder / "$cot$", chain_of_thought)]


@pytest.fixture(scope="module")
def found(runs: list[Run]) -> dict[str, Plot]:
    return plots_of(runs)


def test_costs_are_those_of_the_comparison(found: dict[str, Plot], runs: list[Run]) -> None:
    assert found["cost-tokens"].rows == (
        ("slips", "26", "50.0", "25.4", "74.6"),
        ("$cot$", "26", "50.0", "25.4", "74.6"),
    )
    assert [row[:2] for row in found["cost-seconds"].rows] == [("slips", "0.50"), ("$cot$", "0.50")]
    assert [row[:2] for row in found["cost-parameters"].rows] == [("slips", "2.00")]
    assert "cost-parameters" not in plots_of(runs[1:])


def test_accuracy_by_gold_steps_joins_the_longest_chains_where_they_are_few(found: dict[str, Plot]) -> None:
    # Four problems each of 1, 2 and 3 steps: fewer than ten problems of two and more steps, so that all are joined.
    assert [row[1:4] for row in found["gold-steps"].rows] == [("1+", "12", "50.0")] * 2


def test_accuracy_is_given_for_each_number_of_gold_steps(runs: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "_FEW", 4)
    rows = plots_of(runs)["gold-steps"].rows
    assert [row[:4] for row in rows[:3]] == [(row[0], n, "4", "50.0") for row, n in zip(rows, "123", strict=False)]


def test_stop_reasons_are_shares_of_samples(found: dict[str, Plot]) -> None:
    plot = found["stop-reasons"]
    assert plot.columns == ("arm", "finished", "repeated_step")
    assert plot.rows == (("slips", "50.0", "50.0"), ("$cot$", "100.0", "0.0"))


@pytest.mark.parametrize(
    ("steps", "answer", "kind"),
    [
        ((), "", "no answer"),
        ((Step("q", "<<1+1=3>>3"),), "8", "wrong arithmetic"),
        (gold_steps(2)[:2], "8", "fewer steps"),
        (gold_steps(2) * 2, "8", "more steps"),
        (gold_steps(2), "8", "other"),
        ((Step("", "a\nb"),), "8", "fewer steps"),
        ((Step("", "a\nb\nc"),), "8", "other"),
    ],
)
def test_wrong_answers_are_told_apart(tmp_path: Path, steps: tuple[Step, ...], answer: str, kind: str) -> None:
    def say(i: int, sample: int) -> Trace:
        return said(i, sample, steps, answer) if i == 2 else as_gold(i, sample)

    plot = plots_of([make_run(tmp_path / "run", say)])["wrong-answers"]
    assert plot.columns == ("arm", plots.WRONG[kind])
    assert plot.rows == (("run", "100.0"),)


def test_an_answer_alone_has_no_steps_to_count(tmp_path: Path) -> None:
    plot = plots_of([make_run(tmp_path / "run", lambda i, k: said(i, k, (), "77", "answer"))])["wrong-answers"]
    assert plot.columns == ("arm", plots.WRONG["other"])


def test_runs_without_wrong_answers_and_without_chains_are_drawn(tmp_path: Path) -> None:
    drawn = plots_of([make_run(tmp_path / "run", as_gold)], {})
    assert list(drawn) == ["cost-tokens", "cost-seconds", "stop-reasons"]


def test_svg_holds_names_as_text_and_no_styles(found: dict[str, Plot]) -> None:
    for plot in found.values():
        svg = plot.svg()
        root = ElementTree.fromstring(svg)
        assert "style" not in {name for e in root.iter() for name in (*e.attrib, e.tag.rpartition("}")[2])}
        assert (root.attrib["role"], root.attrib["aria-label"]) == ("img", f"{plot.title}. {plot.note}")
        assert ">$cot$<" in svg or plot.name == "cost-parameters"  # as it stands, not as a formula
        assert not re.search(r"#[0-9a-f]{6}\b", svg.replace("#ffffff", ""))
        assert svg == plot.svg()


def test_an_arm_has_one_colour_everywhere(found: dict[str, Plot]) -> None:
    for plot in found.values():
        assert "var(--arm-1)" in plot.svg() or plot.name == "cost-parameters"


def test_seeds_of_one_recipe_are_one_arm(tmp_path: Path) -> None:
    def model(seed: int) -> dict[str, Any]:
        return {"name": f"m{seed}", "sha256": f"{seed}", "dtype": "float32", "training": {"recipe": "r", "seed": seed}}

    seeds = [make_run(tmp_path / f"m-s{seed}", say, seed=seed, models={"lm": model(seed)}) for seed, say in SEEDS]
    report = make_page_of([make_run(tmp_path / "cot", chain_of_thought), *seeds])
    assert [(name, arm.row.name, arm.place) for name, _, arm in report.named_runs()] == [
        ("cot", "cot", 0),
        ("m-s0", "m", 1),
        ("m-s1", "m", 1),
    ]
    rows = {plot.name: plot.rows for plot in report.plots}
    assert [row[:4] for row in rows["gold-steps"]] == [("cot", "1+", "12", "50.0"), ("m", "1+", "12", "75.0")]
    assert rows["stop-reasons"][1] == ("m", "75.0", "25.0")


SEEDS = ((0, slips), (1, as_gold))


def test_names_that_xml_cannot_hold_are_drawn(tmp_path: Path) -> None:
    run = make_run(tmp_path / "\uffff\u202e\x1b<b>&日本", as_gold)
    drawn = plots_of([run])
    for plot in drawn.values():
        ElementTree.fromstring(plot.svg())
    [row] = drawn["stop-reasons"].rows
    assert row[0] == "\ufffd\\u202e\\x1b<b>&日本"


def test_plots_are_written_as_png(runs: list[Run], tmp_path: Path) -> None:
    write_plots(tmp_path / "new" / "plots", make_page_of(runs).plots)
    written = {path.name: path.read_bytes() for path in (tmp_path / "new" / "plots").iterdir()}
    assert written.keys() >= {"cost-tokens.png", "gold-steps.png", "stop-reasons.png"}
    assert all(data.startswith(b"\x89PNG") for data in written.values())


def test_an_arm_that_cost_nothing_is_drawn(tmp_path: Path) -> None:
    free = make_run(tmp_path / "free", lambda i, k: replace(as_gold(i, k), tokens=0))
    costly = make_run(tmp_path / "costly", lambda i, k: replace(as_gold(i, k), tokens=900))
    assert [row[:2] for row in plots_of([free, costly])["cost-tokens"].rows] == [("free", "0"), ("costly", "900")]


def test_labels_keep_apart_and_inside() -> None:
    places = _spread([0.0, 0.01, 0.02, 0.99, 1.0], 0.1)
    assert all(b - a >= 0.1 - 1e-9 for a, b in pairwise(places))
    assert min(places) >= 0
    assert max(places) <= 1
    assert _spread([0.2, 0.8], 0.1) == [0.2, 0.8]
