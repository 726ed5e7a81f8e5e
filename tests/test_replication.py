"""The ledger of published numbers: whole, up to date, and the only place that other pages have such numbers from."""

from __future__ import annotations

import copy
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from conftest import CHECKOUT
from pydantic import ValidationError

DOCS = CHECKOUT / "docs"


def load(name: str) -> ModuleType:
    """A script in ``docs``."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec
    assert spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # where pydantic looks for types
    spec.loader.exec_module(module)
    return module


replication = load("replication")
LEDGER = replication.read_ledger()
PAGES = [
    *sorted(CHECKOUT.glob("*.md")),
    *(page for page in sorted(DOCS.glob("*.md")) if page.name != "replication.md"),
    *(page for folder in ("benchmarks", "results", "students") for page in sorted((CHECKOUT / folder).rglob("*.md"))),
]


def test_the_page_is_what_the_ledger_and_the_results_say() -> None:
    written = replication.page(LEDGER)
    assert (DOCS / "replication.md").read_text("utf-8") == written, "run python docs/replication.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_no_page_prints_a_published_number_that_the_ledger_lacks(page: Path) -> None:
    assert replication.unledgered(page.read_text("utf-8"), LEDGER) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Shridhar et al. report 21.1 % (recalled).", 0),
        ("Shridhar et al. report 22.3 %.", 1),
        ("It gains 5.9 points (2308.01825).", 1),
        ("We measured 22.3 %.\n\nShridhar et al. did not.", 0),
        ("| 22.3 % | ours |\n| 21.1 % | arXiv |", 0),
        ("- GPT-2 large: 21.2% (recalled)", 1),
        ("It has .508 and 0.539 (2402.01812).", 1),
        ("Shridhar et al., GSM8K:\n\n| small | 6.4 |\n| large | 21.2 |", 1),
        ("Shridhar et al. have none.\n\n| small | 6.5 |", 0),
    ],
)
def test_numbers_beside_a_citation_are_looked_up(text: str, found: int) -> None:
    assert len(replication.unledgered(text, LEDGER)) == found


@pytest.fixture
def raw() -> Any:
    return yaml.safe_load((DOCS / "published.yaml").read_text("utf-8"))


def test_a_number_without_source_status_or_difference_is_refused(raw: Any) -> None:
    for key, value in (("source", "nobody"), ("status", "heard"), ("status", None), ("differences", "much")):
        bad = copy.deepcopy(raw)
        bad["results"][0][key] = value
        with pytest.raises(ValidationError):
            replication.Ledger.model_validate(bad)
    unread = copy.deepcopy(raw)
    unread["results"][0]["where"] = "not noted"  # of what was checked
    with pytest.raises(ValidationError, match="say where"):
        replication.Ledger.model_validate(unread)
    for key in ("source", "status", "where"):
        bad = copy.deepcopy(raw)
        del bad["results"][0][key]
        with pytest.raises(ValidationError):
            replication.Ledger.model_validate(bad)


def test_a_result_of_ours_comes_from_its_folder(tmp_path: Path) -> None:
    rate = {"rate": 0.25, "low": 0.2, "high": 0.3}
    (tmp_path / "own" / "run").mkdir(parents=True)
    (tmp_path / "own" / "run" / "metrics.json").write_text(json.dumps({"problems": 40, "correct": rate}))
    rows = [{"name": "pair", "runs": ["a", "b"], "metrics": {"problems": 40.0, "strict": rate}}]
    (tmp_path / "own" / "comparison.json").write_text(json.dumps({"test, calculator on": {"rows": rows}}))
    single = replication.result(replication.Ours(folder="own", run="run"), tmp_path)
    assert single.startswith("25.0 % [20.0, 30.0], 40 problems, 1 seed:")
    (tmp_path / "own" / "ran").mkdir()
    (tmp_path / "own" / "ran" / "metrics.json").write_text(
        json.dumps({"problems": 40, "correct": {**rate, "rate": 0.22}})
    )
    both = replication.result(replication.Ours(folder="own", run="r?n"), tmp_path)
    assert both.startswith("23.5 % on average: 22.0 % [20.0, 30.0]; 25.0 % [20.0, 30.0], 40 problems, 2 seeds:")
    several = replication.result(replication.Ours(folder="own", arm="pair", metric="strict"), tmp_path)
    assert "40 problems, 2 seeds" in several
    for missing in ({"run": "other"}, {"arm": "other"}):
        with pytest.raises(ValueError, match=r"no run|no arm"):
            replication.result(replication.Ours(folder="own", **missing), tmp_path)
    with pytest.raises(ValidationError):
        replication.Ours(folder="own")
