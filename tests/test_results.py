"""The committed tables are what the committed traces give."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import CHECKOUT
from test_replication import load

from socratic.evaluate import load_run
from socratic.report.tables import points

tables = load("tables")
plots = load("plots")
TABLES = tables.committed()
KEPT = sorted(path.parent for path in (CHECKOUT / "results").glob("**/traces.jsonl.gz"))


@pytest.mark.parametrize("command", TABLES)
def test_tables_are_what_comes_out(command: str, data_dir: Path) -> None:
    assert TABLES[command] == {tables.printed(command)}, "run make results"


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: f"{folder.parent.name}/{folder.name}")
def test_metrics_are_what_the_traces_give(folder: Path, data_dir: Path) -> None:
    kept = json.loads((folder / "metrics.json").read_text("utf-8"))
    metrics = load_run(folder, data_dir).metrics
    assert metrics is not None
    assert {key: metrics[key] for key in kept} == kept


def test_a_page_is_made_again_but_for_its_prose() -> None:
    head = "Before.\n\n<!-- made by: socratic data list -->\n```text\n"
    assert TABLES
    assert tables.remade(f"{head}old\n```\n\nAfter.\n") == f"{head}{tables.printed('data list')}```\n\nAfter.\n"


def test_a_table_may_be_the_rest_of_what_is_printed() -> None:
    whole = tables.printed("data list")
    last = whole.splitlines()[-1]
    assert tables.printed(f"data list | from {last}") == f"{last}\n"
    with pytest.raises(ValueError, match="no table"):
        tables.printed("data list | from Nothing of the kind")


def test_what_is_plotted_stands_in_the_tables(data_dir: Path) -> None:
    printed = "".join(page.read_text("utf-8") for page in tables.pages())
    for label, seeds, *shares in plots.differences():
        assert seeds in (1, 2, 3), label
        if not label.startswith("stories"):  # of which no traces are kept
            assert points(*(share / 100 for share in shares)) in printed, f"{label}: run make results"
