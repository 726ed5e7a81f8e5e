"""Recipes as stages: what is planned, in which order, under which keys, what is refused of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from socratic import fit, prompts, stages
from socratic.guidance import PLAN
from socratic.lm import endpoint
from socratic.planner import Plan, make_plan
from socratic.recipe_file import read_recipe
from socratic.stages import SetStage, TrainStage
from socratic.store import shipped, write_jsonl
from socratic.tasks import SPLIT_SCHEMES, TASKS, load_chains, load_problems
from socratic.tasks.base import Item, SplitScheme
from socratic.tasks.sets import load_set
from socratic.types import Chain, Step, UserError

pytestmark = pytest.mark.usefixtures("few_bundled")  # every plan reads all of train, twice

RECIPE: dict[str, Any] = {
    "data": "stories",
    "splits": ["longer"],
    "limit": 3,
    "training": {"limit": 24, "max_steps": 1, "dev_limit": 0, "batch_size": 4},
    "solving": {"max_tokens": 8, "max_rationale_tokens": 8, "max_steps": 2},
    "students": {
        "base": {"role": "unified", "student": "scratch:llama-mini"},
        "qg": {"role": "qg", "student": "base"},
        "cot": {"role": "cot", "student": "scratch:llama-mini", "max_steps": 2},
    },
    "arms": {"cot": {"solver": "cot", "lm": "cot"}, "pair": {"solver": "socratic", "qg": "qg", "qa": "base"}},
}


FEW = str(shipped("data") / "stories" / "unseen.jsonl")
"""Bundled problems that are read in no time."""
MORE = {"students.qg.chains": ["gold", "more"]}


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, **changes}, sort_keys=False))
    return path


def plan_of(folder: Path, **overrides: Any) -> Plan:
    return make_plan(read_recipe(write(folder), overrides), folder / "out")


def to_do(plan: Plan) -> list[str]:
    return [stage.name for stage in plan.stages if not stage.done]


def test_a_recipe_may_train_nothing(tmp_path: Path) -> None:
    arms = {"cot": {"solver": "cot", "lm": "openai:m"}}
    plan = plan_of(tmp_path, students={}, arms=arms, calculator=[False])
    assert ([stage.name for stage in plan.stages], plan.overlaps) == (["cot on longer, seed 0, calculator off"], {})


def test_a_prompt_that_changes_is_asked_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arms = {
        "cot": RECIPE["arms"]["cot"],
        "prompted": {"solver": "few-shot-cot", "lm": "owner/name"},
        "endpoint": {"solver": "socratic", "qg": "openai:m", "qa": "openai:m"},
    }

    def keys() -> dict[str, str]:
        prompts.prompt_format.cache_clear()
        few = {"data": FEW, "splits": ["test"], "calculator": [False]}
        plan = plan_of(tmp_path, students={"cot": RECIPE["students"]["cot"]}, arms=arms, **few)
        return {stage.arm: stage.key for stage in plan.evaluation}

    before, own = keys(), tmp_path / "prompts"
    shutil.copytree(prompts.PROMPTS_DIR, own)
    with monkeypatch.context() as patched:
        for module in (prompts, endpoint):
            patched.setattr(module, "PROMPTS_DIR", own)
        assert keys() == before
        (own / "roles" / "question.txt").write_text("Ask.")
        assert [arm for arm, key in keys().items() if key != before[arm]] == ["endpoint"]
        (own / "generic" / "examples.jsonl").write_text("")
        assert [arm for arm, key in keys().items() if key != before[arm]] == ["prompted", "endpoint"]
    assert keys() == before


def test_a_twin_differs_in_its_seed_alone(tmp_path: Path) -> None:
    students = {**RECIPE["students"], "cot-twin": {**RECIPE["students"]["cot"], "twin": 1}}
    plan = plan_of(tmp_path, students=students, seeds=[0, 1])
    made = {stage.link.name: stage for stage in plan.stages if isinstance(stage, TrainStage)}
    seeds = [made[name].settings.seed for name in ("cot-s0", "cot-s1", "cot-twin-s0", "cot-twin-s1")]
    assert len({*seeds}) == 4
    assert made["cot-twin-s0"].settings == made["cot-s0"].settings.model_copy(update={"seed": seeds[2]})


def test_problems_that_students_sampled_count_as_trained_on(tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text('{"question": "Ann has 2 pens and gets 3 more. How many has she?", "answer": "5"}\n')
    plan = plan_of(
        tmp_path,
        data=str(own),
        splits=["test"],
        samplings={"samples": {"solver": "few-shot-cot", "lm": "owner/name"}},
        sets={"kept": {"make": "harvest", "of": ["samples"]}},
        students={"cot": {**RECIPE["students"]["cot"], "chains": ["kept"]}},
        arms={"cot": RECIPE["arms"]["cot"]},
    )
    assert plan.overlaps["test"].found, "though the data have no chains to learn from"


def test_what_nothing_needs_is_named_and_not_made(tmp_path: Path) -> None:
    sets = {name: {"make": "augment", "kinds": ["bare"], "limit": 16} for name in ("more", "idle")}
    samplings = {"alone": {"solver": "cot", "lm": "cot", "limit": 1}}
    plan = plan_of(tmp_path, data=FEW, splits=["test"], sets=sets, samplings=samplings, **MORE)
    assert plan.unused == ["sets.idle", "samplings.alone"]
    assert not any("idle" in stage.name or "alone" in stage.name for stage in plan.stages)


def test_chains_that_differ_by_seed_alone_make_students_of_one_recipe(tmp_path: Path) -> None:
    students = {**RECIPE["students"], "fold": {"role": "cot", "student": "scratch:llama-mini", "folds": 2}}
    students["last"] = {"role": "cot", "student": "scratch:llama-mini", "chains": ["gold", "own"]}
    samplings = {"drawn": {"solver": "cot", "lm": "fold", "temperature": 1.0, "limit": 4}}
    more: dict[str, Any] = {"samplings": samplings, "sets": {"own": {"make": "harvest", "of": ["drawn"]}}}

    def made(**changes: Any) -> dict[str, str | None]:
        plan = plan_of(tmp_path, data=FEW, splits=["test"], students=students, **{**more, **changes})
        return {stage.name: stage.chains_recipe for stage in plan.stages if isinstance(stage, TrainStage)}

    both = made(seeds=[0, 1])
    assert both["train last, seed 0"] == both["train last, seed 1"] is not None
    assert both["train cot, seed 0"] is None, "gold is the same for every seed"
    alone = made(seeds=[1])
    assert {name for name in alone if "seed 0" in name} == set()
    assert alone["train last, seed 1"] == both["train last, seed 1"]
    warmer = {"drawn": {**samplings["drawn"], "temperature": 0.5}}
    assert made(seeds=[1], samplings=warmer)["train last, seed 1"] != both["train last, seed 1"]


def test_a_split_scheme_is_that_of_training_and_of_test(tmp_path: Path, data_dir: Path) -> None:
    changes = {"data": "strategyqa", "splits": ["test"], "limit": None, "split_scheme": "fine-tune-cot"}
    plan = make_plan(read_recipe(write(tmp_path), changes), tmp_path / "out", str(data_dir))
    assert {stage.split_scheme for stage in plan.evaluation} == {"fine-tune-cot"}
    assert all(problem.id.startswith("strategyqa-bigbench/") for problem in plan.evaluation[0].problems)
    trained = load_set("strategyqa", "train", plan.reading)
    assert {chain.problem_id.partition("/")[0] for chain in trained} == {"strategyqa-bigbench"}


def test_a_split_scheme_is_that_of_all_that_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = {"sets": {"more": {"make": "augment", "kinds": ["prefix"]}}, **MORE, "limit": None}

    def plans() -> list[Plan]:
        return [plan_of(tmp_path, **more, split_scheme=scheme) for scheme in SPLIT_SCHEMES]

    def keys(plan: Plan, kind: type[stages.Stage]) -> list[str]:
        return [stage.key for stage in plan.stages if isinstance(stage, kind)]

    same = plans()
    assert keys(same[0], TrainStage)[-1] == keys(same[1], TrainStage)[-1], "cot learns the same chains"
    assert not set(keys(same[0], SetStage)) & set(keys(same[1], SetStage))
    runs = [{stage.key: stage.split_scheme for stage in plan.evaluation} for plan in same]
    assert not runs[0].keys() & runs[1].keys(), "a run records its scheme"
    assert [set(run.values()) for run in runs] == [{"authors"}, {"fine-tune-cot"}]

    stories = TASKS["stories"]

    def load(data_dir: Path | None, part: str, scheme: SplitScheme) -> list[Item]:
        return stories.load(data_dir, part, scheme)[:: 1 if scheme == "authors" else 2]

    monkeypatch.setitem(TASKS, "stories", replace(stories, load=load))
    whole, half = plans()
    assert keys(whole, TrainStage) == keys(same[0], TrainStage)
    assert not set(keys(whole, TrainStage)) & set(keys(half, TrainStage))
    assert len(half.evaluation[0].problems) == -(-len(whole.evaluation[0].problems) // 2)
    read = [len(load_set("stories", "train", plan.reading)) for plan in (whole, half)]
    assert 0 < read[1] < read[0] * 0.6


def test_gold_plans_are_in_the_form_that_the_qg_reads(tmp_path: Path) -> None:
    chains = load_chains(FEW, "train")[:4]
    guided = tmp_path / "guided"
    fit("qg", chains, "scratch:llama-micro", guided, on_note=lambda note: None, guidance="count", max_steps=1)
    arms = {**RECIPE["arms"], "gold": {"solver": "socratic", "qg": str(guided), "qa": "base", "plan_by": "gold"}}
    plan = plan_of(tmp_path, data=FEW, splits=["dev"], arms=arms)
    [stage] = [stage for stage in plan.evaluation if stage.arm == "gold"]
    assert all(PLAN in problem.metadata for problem in stage.problems)


def test_a_file_of_chains_may_have_any_name(tmp_path: Path) -> None:
    file = tmp_path / "chains.jsonl"
    write_jsonl(file, [{"question": "How many is 1 + 1?", "answer": "2", "steps": [{"question": "Q?", "answer": "2"}]}])
    reading = plan_of(tmp_path).reading
    assert sum(len(load_set(str(file), split, reading)) for split in ("train", "dev")) == 1


def test_a_split_of_unknown_data_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    for split, meant in (("svmp:test", "svamp"), ("stories:unsen", "unseen")):
        with pytest.raises(UserError, match=f"did you mean '{meant}'"):
            plan_of(tmp_path, splits=[split])


def test_what_needs_itself_or_nothing_is_refused(tmp_path: Path) -> None:
    around = r"students.base needs itself \(students.base -> students.qg -> students.base\)"
    with pytest.raises(UserError, match=around):
        plan_of(tmp_path, **{"students.base.student": "qg"})
    with pytest.raises(UserError, match=r"sets.more needs itself \(sets.more -> sets.more\)"):
        plan_of(tmp_path, sets={"more": {"make": "augment", "kinds": ["vary"], "of": ["more"]}}, **MORE)
    with pytest.raises(UserError, match=r"students.cot has nothing to start from"):
        plan_of(tmp_path, **{"students.cot": {"role": "cot"}})


def test_a_student_keeps_the_fold_that_it_is_given(tmp_path: Path) -> None:
    cot = next(s for s in plan_of(tmp_path, **{"students.cot.fold": "1/4"}).stages if s.link.name == "cot-s0")
    assert isinstance(cot, TrainStage)
    assert cot.settings.fold == "1/4"


def test_students_of_folds_are_trained_where_something_needs_them(tmp_path: Path) -> None:
    students = {**RECIPE["students"], "qa": {"role": "qa", "student": "scratch:llama-mini", "folds": 2}}
    assert not [stage for stage in plan_of(tmp_path, students=students).stages if "qa" in stage.name]
    sets = {"more": {"make": "reward", "student": "qa", "samples": 1, "by": ["fluency"], "limit": 4}}
    students["cot"] = {**RECIPE["students"]["cot"], "chains": ["more"]}
    plan = plan_of(tmp_path, students=students, sets=sets)
    [made] = [stage for stage in plan.stages if isinstance(stage, SetStage)]
    assert [(fold, Path(folder).name[:8]) for fold, folder in made.students.items()] == [
        ("1/2", "qa-fold1"),
        ("2/2", "qa-fold2"),
    ]


def test_overlaps_are_of_all_that_is_learned(tmp_path: Path) -> None:
    [problem, *_] = load_problems("stories", "longer")
    leak = Chain("x/1", "x", problem.question, problem.answer, "number", (Step("How?", "So."),))
    file = tmp_path / "leak.jsonl"
    file.write_text("".join(json.dumps(c.to_json()) + "\n" for c in (leak, replace(leak, problem_id="x/2"))))
    found = plan_of(tmp_path, **{"students.cot.chains": [str(file)]}).overlaps["longer"].found
    assert any(not overlap.masked and overlap.test_id == problem.id for overlap in found)


def test_what_tests_share_with_train_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socratic.tasks.stories.shipped", shipped)  # all of them
    assert plan_of(tmp_path, limit=50).overlaps["longer"].found


def test_a_partner_is_another_student_whose_training_counts(tmp_path: Path) -> None:
    students = {**RECIPE["students"], "qa": {"role": "qa", "student": "base", "best_by": "accuracy", "partner": "qg"}}
    with_partner = {"students": students, "training": {**RECIPE["training"], "dev_limit": 1}}
    plan = plan_of(tmp_path, **with_partner)
    qg, qa = (next(s for s in plan.stages if s.link.name == f"{name}-s0") for name in ("qg", "qa"))
    assert isinstance(qa, TrainStage)
    assert qa.settings.partner == str(qg.folder)
    students["qg"] = {**students["qg"], "weight_decay": 0.5}
    other = plan_of(tmp_path, **with_partner)
    assert next(s for s in other.stages if s.link.name == "qa-s0").key != qa.key


def test_two_arms_of_one_name_are_refused(tmp_path: Path) -> None:
    cot = RECIPE["arms"]["cot"]
    with pytest.raises(UserError, match="would both be called cot-nocalc-s0; rename one"):
        plan_of(tmp_path, arms={"cot": cot, "cot-nocalc": cot}, calculator=[True, False])


def test_a_model_card_may_be_rewritten(tmp_path: Path) -> None:
    model = tmp_path / "model"
    fit("cot", load_chains(FEW, "train")[:4], "scratch:llama-micro", model, on_note=lambda note: None, max_steps=1)
    keys = []
    for card in ("Mine.", "Ours."):
        (model / "README.md").write_text(card)
        keys.append(plan_of(tmp_path, **{"arms.cot.lm": str(model)}).evaluation[0].key)
    assert keys[0] == keys[1]


def test_problems_that_do_not_do_are_refused_as_those_of_their_arm(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"arms.cot: .* solved problems are too few to draw 90000 from"):
        plan_of(tmp_path, **{"arms.cot.form": "in-context-cot", "arms.cot.shots": 90_000})
    with pytest.raises(UserError, match=r"cot on longer, seed 0: problem .* offers no choices"):
        plan_of(tmp_path, **{"arms.cot.solver": "likelihood"})
