from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from rich.console import Console
from sample_runs import CHAINS, chain_of_thought, make_run, slips

from socratic.evaluate import Run
from socratic.report.labels import (
    KEYS,
    Failure,
    agreement,
    agreement_tables,
    draw,
    failures,
    label,
    read_labels,
    side_by_side,
)
from socratic.report.taxonomy import Error
from socratic.types import Chain, Step, UserError

Named = list[tuple[str, Run, Mapping[str, Chain]]]


@pytest.fixture
def runs(tmp_path: Path) -> Named:
    made = {"slips": slips, "cot": chain_of_thought}
    return [(name, make_run(tmp_path / name, solver), CHAINS) for name, solver in made.items()]


def test_a_draw_has_as_many_of_each_run_and_of_each_number_of_steps(runs: Named) -> None:
    found = failures(runs)
    drawn = draw(found, 6, seed=0)
    assert drawn == draw(found, 6, seed=0)
    assert Counter(failure.run for failure in drawn) == {"slips": 3, "cot": 3}
    assert Counter((failure.run, len(failure.chain.steps)) for failure in drawn) == {
        (run, steps): 1 for run in ("slips", "cot") for steps in (1, 2, 3)
    }
    assert len(draw(found, 1000, seed=0)) == len(found)


def test_labels_are_kept_one_by_one_and_belong_to_the_trace(runs: Named, tmp_path: Path) -> None:
    out, explained = tmp_path / "labels.jsonl", list[bool]()
    drawn = draw(failures(runs), 4, seed=0)
    lines = iter(["nonsense", "a", "s", "E", "q"])
    assert label(drawn, "eve", out, lambda failure, left: next(lines), lambda: explained.append(True)) == 2
    assert len(explained) == 2  # before the first, and where a line was no key
    assert [made.label for made in read_labels([out])] == ["arithmetic", "early_stop"]
    copied = draw(failures([(f"{name}-copy", run, chains) for name, run, chains in runs]), 4, seed=0)
    left = list[Failure]()
    label(copied, "eve", out, lambda failure, more: left.append(failure) or "q", print)  # type: ignore[func-returns-value]
    assert left[0].key == drawn[1].key
    assert label(drawn, "bob", out, lambda failure, more: "x", print) == 4


def test_every_error_has_a_key_that_neither_stops_nor_skips() -> None:
    assert set(KEYS.values()) == set(get_args(Error))
    assert not {"q", "s"} & KEYS.keys()


def test_a_file_without_its_last_newline_loses_nothing(runs: Named, tmp_path: Path) -> None:
    out = tmp_path / "labels.jsonl"
    drawn = draw(failures(runs), 4, seed=0)
    label(drawn[:2], "eve", out, lambda failure, left: "a", print)
    out.write_bytes(out.read_bytes()[:-1])
    assert label(drawn, "eve", out, lambda failure, left: "x", print) == 2
    assert [made.label for made in read_labels([out])] == ["arithmetic"] * 2 + ["extra"] * 2
    (tmp_path / "notes.txt").write_text("precious")
    explained = list[bool]()
    with pytest.raises(UserError, match=r"the last line of .*notes\.txt is no record"):
        label(drawn, "eve", tmp_path / "notes.txt", lambda failure, left: "x", lambda: explained.append(True))
    assert not explained
    assert (tmp_path / "notes.txt").read_text() == "precious"


def test_how_far_the_rule_agrees(runs: Named, tmp_path: Path) -> None:
    found = failures(runs)
    keys = {error: key for key, error in KEYS.items()}
    label(found, "eve", tmp_path / "eve.jsonl", lambda failure, left: keys[failure.rule], print)
    agreed = agreement(read_labels([tmp_path / "eve.jsonl"]), found)
    assert (agreed["share"], agreed["alpha"], agreed["alpha_raters"]) == (1, 1, None)
    assert agreed["confusion"]["arithmetic"]["arithmetic"] == 6
    label(found, "bob", tmp_path / "bob.jsonl", lambda failure, left: "x", print)
    both = agreement(read_labels([tmp_path / "eve.jsonl", tmp_path / "bob.jsonl"]), found)
    assert both["labels"] == 2 * len(found)
    assert both["share"] == 0.5
    assert both["alpha"] < 0.5
    assert both["alpha_raters"] < 0.5
    shares, confusion = agreement_tables(both)
    assert confusion.row_count == len(KEYS)
    assert shares.row_count == len(runs)
    assert {run: sum(labelled.values()) for run, labelled in both["runs"].items()} == {
        name: 2 * sum(failure.run == name for failure in found) for name, *_ in runs
    }
    with pytest.raises(UserError, match="none of the labels"):
        agreement(read_labels([tmp_path / "eve.jsonl"]), [])


def test_what_two_runs_wrote_alike_is_counted_in_both_and_what_was_dropped_is_no_longer_the_same(
    runs: Named, tmp_path: Path
) -> None:
    found = failures([runs[0], ("again", *runs[0][1:])])
    label(failures(runs[:1]), "eve", tmp_path / "eve.jsonl", lambda failure, left: "x", print)
    labels = read_labels([tmp_path / "eve.jsonl"])
    assert {run: labelled["extra"] for run, labelled in agreement(labels, found)["runs"].items()} == {
        "slips": len(labels),
        "again": len(labels),
    }
    dropped = [replace(f, trace=replace(f.trace, rejected=Step("", "so"))) for f in found]
    with pytest.raises(UserError, match="none of the labels"):
        agreement(labels, dropped)


def test_gold_and_trace_stand_side_by_side(runs: Named) -> None:
    failure = failures(runs[:1])[0]
    console = Console(width=100)
    with console.capture() as capture:
        console.print(side_by_side(failure))
    assert "#### 90" in capture.get()
    assert f"#### {failure.problem.answer}" in capture.get()
    assert "repeated_step" in capture.get()
    with console.capture() as capture:
        console.print(
            side_by_side(replace(failure, trace=replace(failure.trace, rejected=Step("", "and [b]so[/b] on"))))
        )
    assert "and [b]so[/b] on [dropped]" in capture.get()
    with console.capture() as capture:
        console.print(side_by_side(replace(failure, trace=replace(failure.trace, rejected=Step("", "7" * 300)))))
    assert capture.get().count("7") >= 300


def test_what_cannot_be_labelled_is_said(runs: Named, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no wrong numeric answers"):
        failures([(*run[:2], {}) for run in runs])
    (tmp_path / "bad.jsonl").write_text(json.dumps({"problem_id": "p", "label": "odd"}) + "\n")
    with pytest.raises(UserError, match=r"bad.jsonl:1"):
        read_labels([tmp_path / "bad.jsonl"])
