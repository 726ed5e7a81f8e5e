"""Every recipe at its smallest size, and how it is made small."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from socratic.pipeline import curves, make_plan, run_plan
from socratic.recipe import read_recipe
from socratic.smoke import smoke

RECIPES = sorted(Path(__file__).parent.parent.glob("recipes/*.yaml"))


@pytest.mark.smoke
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_goes_the_whole_way(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOCRATIC_DATA", raising=False)
    plan = make_plan(read_recipe(path, {}, small=True), tmp_path / "out")
    compared = run_plan(plan, Console(file=io.StringIO()))
    assert len(compared) == len(plan.recipe.splits)
    assert all(stage.done for stage in plan.stages)
    drawn = {plot.name.partition(",")[0] for plot in curves(plan, compared)}
    assert drawn == plan.recipe.curves.keys()


def test_what_is_large_is_made_small_at_any_depth() -> None:
    recipe: dict[str, Any] = {
        "data": "gsm8k",
        "rounds": 5,
        "samples": 16,
        "training": {"epochs": 9},
        "students": {"qa": {"role": "qa", "folds": 4, "lora_rank": 8, "chains": ["gold:svamp", "gold:gsm8k", "own"]}},
        "samplings": {"own": {"solver": "cot", "samples": 64, "temperature": 0.7}},
        "splits": ["dev", "svamp:test", "commonsenseqa:dev"],
        "arms": {"cot": {"solver": "cot", "lm": "qa", "samples": 1, "on": ["svamp:test"]}},
        "smoke": {"limit": 7, "training": {"max_steps": 3}},
    }
    small = smoke(recipe)
    assert Path(small["data"]).is_file()
    assert (small["rounds"], small["samples"], small["limit"]) == (1, 1, 7)
    assert small["students"] == {"qa": {"role": "qa", "folds": 2, "chains": ["gold", "own"]}}
    assert small["samplings"] == {"own": {"solver": "cot", "samples": 2, "temperature": 0.7, "limit": 4}}
    own, other = small["splits"]
    assert own == "test"
    assert Path(other.removesuffix(":test")).is_file()
    assert small["arms"] == {"cot": {**recipe["arms"]["cot"], "on": ["test"]}}
    assert small["training"]["max_steps"] == 3
    assert "epochs" not in small["training"]
