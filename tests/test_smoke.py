"""Every recipe at its smallest size, and how it is made small."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from campaign import KEY, problems, serving
from rich.console import Console

from socratic.pipeline import curves, run_plan
from socratic.planner import Plan, make_plan
from socratic.recipe import Recipe
from socratic.recipe_file import read_recipe
from socratic.smoke import smoke
from socratic.stages import SetStage, Stage
from socratic.store import read_records, write_jsonl
from socratic.tasks.sets import CHAINS
from socratic.types import Chain, UserError

ASKED = "How much do both numbers make together?"
"""What the fault server asks, too."""
RECIPES = sorted(Path(__file__).parent.parent.glob("recipes/*.yaml"))


@pytest.mark.smoke
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_goes_the_whole_way(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOCRATIC_DATA", raising=False)
    if "openai:" in path.read_text():
        with serving(tmp_path) as teacher:
            monkeypatch.setenv("OPENAI_BASE_URL", teacher.url)
            monkeypatch.setenv("OPENAI_API_KEY", KEY)
            plan = goes_through(read_recipe(path, {"data": str(sums(tmp_path))}, small=True), tmp_path / "out")
            assert teacher.bills("gpt-4o-mini")
        sets = {stage: list(read_records(stage.folder / CHAINS, Chain)) for stage in plan.stages if is_set(stage)}
        assert all(sets.values())
        written = [chain for stage, chains in sets.items() if stage.name.startswith("teach ") for chain in chains]
        assert {chain.source for chain in written} == {"teacher:gpt-4o-mini"}
        assert {chain.problem_id for chain in written} > {f"sum-{number}" for number in range(6)}
    else:
        goes_through(read_recipe(path, {}, small=True), tmp_path / "out")


@pytest.mark.smoke
def test_a_teacher_answers_the_datas_own_sub_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOCRATIC_DATA", raising=False)
    [teacher_recipe] = (path for path in RECIPES if path.stem == "teacher")
    with serving(tmp_path) as teacher:
        monkeypatch.setenv("OPENAI_BASE_URL", teacher.url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        changes = {"data": str(sums(tmp_path)), "sets.written.style": "answers"}
        plan = goes_through(read_recipe(teacher_recipe, changes, small=True), tmp_path / "out")
    [written] = (stage for stage in plan.stages if stage.name.startswith("teach "))
    chains = list(read_records(written.folder / CHAINS, Chain))
    assert {step.question for chain in chains for step in chain.steps} == {ASKED}
    assert {chain.source for chain in chains} == {"teacher:gpt-4o-mini"}


def is_set(stage: Stage) -> bool:
    return isinstance(stage, SetStage)


def sums(folder: Path) -> Path:
    """A file of problems that the fault server solves, with gold steps."""
    rows = []
    for problem in problems(40):
        sum = problem.question.removeprefix("What is ").removesuffix("?")
        step = {"question": ASKED, "answer": f"It is <<{sum}={problem.answer}>>{problem.answer}."}
        rows.append({"id": problem.id, "question": problem.question, "answer": problem.answer, "steps": [step]})
    write_jsonl(folder / "sums.jsonl", rows)
    return folder / "sums.jsonl"


def goes_through(recipe: Recipe, out: Path) -> Plan:
    plan = make_plan(recipe, out)
    compared = run_plan(plan, Console(file=io.StringIO()))
    assert len(compared) == len(plan.recipe.splits)
    assert not list(out.rglob("*.part"))
    assert all(stage.done for stage in plan.stages)
    drawn = {plot.name.partition(",")[0] for plot in curves(plan, compared)}
    assert drawn == plan.recipe.curves.keys()
    return plan


def test_what_is_large_is_made_small_at_any_depth() -> None:
    recipe: dict[str, Any] = {
        "data": "gsm8k",
        "rounds": 5,
        "samples": 16,
        "training": {"epochs": 9},
        "solving": {"temperature": 0.5, "max_steps": 9},
        "students": {
            "qa": {"role": "qa", "folds": 4, "lora_rank": 8, "chains": ["gold:svamp", "gold:gsm8k", "own"]},
            "larger": {"role": "qa", "student": "owner/larger"},
        },
        "samplings": {"own": {"solver": "cot", "samples": 64, "temperature": 0.7}},
        "splits": ["dev", "svamp:test", "commonsenseqa:dev"],
        "arms": {"cot": {"solver": "cot", "lm": "qa", "samples": 1, "on": ["svamp:test"]}},
        "smoke": {"limit": 7, "training": {"max_steps": 3}},
    }
    small = smoke(recipe)
    assert Path(small["data"]).is_file()
    assert (small["rounds"], small["samples"], small["limit"]) == (1, 1, 7)
    assert small["students"]["qa"] == {"role": "qa", "folds": 2, "chains": ["gold", "own"]}
    assert small["students"]["larger"]["student"].startswith("scratch:")
    assert small["samplings"] == {"own": {"solver": "cot", "samples": 2, "temperature": 0.7, "limit": 4}}
    own, other = small["splits"]
    assert own == "test"
    assert Path(other.removesuffix(":test")).is_file()
    assert small["arms"] == {"cot": {**recipe["arms"]["cot"], "on": ["test"]}}
    assert small["training"]["max_steps"] == 3
    assert small["solving"] == {"temperature": 0.5, "max_steps": 2, "max_tokens": 8, "max_rationale_tokens": 16}
    assert "epochs" not in small["training"]


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"arms": None}, "smoke.arms=None changes nothing that has a name"),
        ({"training": 3}, "smoke.training=3 changes nothing that has a name"),
        ({"students": {"cot": {"role": "cot", "chains": None}}}, "students.cot: chains=None is not usable"),
        ({"arms": {"cot": "fast"}}, "recipe key arms.cot='fast' is not usable"),
    ],
)
def test_a_mistake_in_what_smoke_changes_is_named(tmp_path: Path, own: dict[str, Any], message: str) -> None:
    recipe = {"data": "stories", "students": {"cot": {"role": "cot"}}, "arms": {"cot": {"solver": "cot", "lm": "cot"}}}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**recipe, "smoke": own}))
    with pytest.raises(UserError, match=message):
        read_recipe(path, {}, small=True)


def test_a_split_of_unknown_data_is_named(tmp_path: Path) -> None:
    recipe = {"data": "stories", "students": {"cot": {"role": "cot"}}, "arms": {"cot": {"solver": "cot", "lm": "cot"}}}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**recipe, "splits": ["test", "svmp:test"]}))
    with pytest.raises(UserError, match="splits names 'svmp', which there is not; did you mean 'svamp'"):
        read_recipe(path, {}, small=True)
