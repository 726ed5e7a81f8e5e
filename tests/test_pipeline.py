"""Recipes as stages: what is planned, what is skipped, what is refused of it."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from test_evaluate import SETTINGS
from test_verdicts import trace

from socratic import fit, pipeline, prompts, stages
from socratic.evaluate import evaluate, load_run
from socratic.formats import mixed
from socratic.guidance import PLAN
from socratic.lm import endpoint
from socratic.pipeline import Plan, make_plan, run_plan
from socratic.recipe_file import read_recipe
from socratic.stages import EvaluateStage, SetStage, TrainStage
from socratic.store import read_jsonl, shipped, write_jsonl
from socratic.tasks import SPLIT_SCHEMES, TASKS, load_chains, load_problems
from socratic.tasks.base import Item, SplitScheme, in_fold
from socratic.tasks.sets import CHAINS, load_set
from socratic.types import Chain, Problem, Step, Trace, UserError

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


@pytest.fixture(autouse=True)
def bundled(few_stories: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of the stories: every plan reads all of train, twice."""
    monkeypatch.setattr("socratic.tasks.stories.shipped", lambda name: few_stories)


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, **changes}, sort_keys=False))
    return path


def plan_of(folder: Path, **overrides: Any) -> Plan:
    return make_plan(read_recipe(write(folder), overrides), folder / "out")


def quiet() -> Console:
    return Console(file=io.StringIO())


def to_do(plan: Plan) -> list[str]:
    return [stage.name for stage in plan.stages if not stage.done]


def test_a_recipe_is_run_once_and_then_only_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(tmp_path)
    assert len(to_do(plan)) == 5
    compared = run_plan(plan, quiet())
    assert [row.name for row in compared["longer, calculator on"].rows] == ["cot", "pair"]
    assert to_do(plan) == []
    assert (tmp_path / "out" / "qg-s0").is_symlink()
    assert (tmp_path / "out" / "longer" / "pair-s0" / "metrics.json").is_file()
    assert yaml.safe_load((tmp_path / "out" / "recipe.yaml").read_text())["data"] == "stories"
    assert json.loads((tmp_path / "out" / "overlap.json").read_text())["longer"]["tests"] == 3

    def refuse(*_: Any) -> None:
        raise AssertionError("nothing was to be done")

    with monkeypatch.context() as patched:
        for module, name in ((pipeline, "train_with_bars"), (stages, "evaluate_with_bar"), (pipeline, "load_lm")):
            patched.setattr(module, name, refuse)
        assert run_plan(plan_of(tmp_path), quiet()).keys() == compared.keys()

    assert to_do(plan_of(tmp_path, **{"arms.pair.max_steps": 3})) == ["pair on longer, seed 0"]
    assert to_do(plan_of(tmp_path, **{"students.cot.max_steps": 1})) == ["train cot, seed 0", "cot on longer, seed 0"]
    below_base = ["train base, seed 0", "train qg, seed 0", "pair on longer, seed 0"]
    assert to_do(plan_of(tmp_path, **{"students.base.learning_rate": 1e-4})) == below_base
    assert len(to_do(plan_of(tmp_path, seeds=[0, 1]))) == 5
    assert to_do(plan_of(tmp_path, limit=2)) == ["cot on longer, seed 0", "pair on longer, seed 0"]


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


def test_sets_are_made_before_those_who_learn_from_them(tmp_path: Path) -> None:
    bare = {"make": "augment", "kinds": ["bare"], "limit": 16}
    sets = {"bare": bare, "more": {"make": "augment", "kinds": ["vary"], "of": ["bare"], "limit": 16}}
    plan = plan_of(tmp_path, data=FEW, splits=["test"], sets=sets, seeds=[0, 1], **MORE)
    names = [stage.name for stage in plan.stages]
    assert names[:4] == ["train base, seed 0", "augment bare", "augment more", "train qg, seed 0"]
    assert names.count("augment more") == 1, "seeds share it"
    run_plan(plan, quiet())
    assert not to_do(plan)
    out = tmp_path / "out"
    card = json.loads((out / "qg-s0" / "socratic.json").read_text())
    assert card["data"]["source"] == f"{FEW}, {out / 'sets' / plan.stages[2].folder.name / 'chains.jsonl'}"
    bare["kinds"] = ["marks"]
    again = to_do(plan_of(tmp_path, data=FEW, splits=["test"], sets=sets, seeds=[0, 1], **MORE))
    assert again[:3] == ["augment bare", "augment more", "train qg, seed 0"]
    assert "train base, seed 0" not in again


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


def test_a_selection_stands_beside_the_arms(tmp_path: Path) -> None:
    arms = {"cot": {**RECIPE["arms"]["cot"], "samples": 2, "temperature": 1.0}, "pair": RECIPE["arms"]["pair"]}
    selections = {"voted": {"of": ["cot"]}, "matched": {"of": ["cot"], "match": "pair"}}
    curves = {"k": {"x": "k", "lines": {"cot": {1: "cot", 2: "voted"}}}}
    plan = plan_of(tmp_path, arms=arms, selections=selections, curves=curves)
    [comparison] = run_plan(plan, quiet()).values()
    assert [row.name for row in comparison.rows] == ["cot", "pair", "voted", "matched"]
    assert [row.metrics["samples"] for row in comparison.rows] == [2, 1, 1, 1]
    assert not to_do(plan)
    changed = plan_of(tmp_path, arms=arms, selections={**selections, "voted": {"of": ["cot"], "k": 1}}, curves=curves)
    assert to_do(changed) == ["choose voted on longer, seed 0"]


def test_a_verifier_learns_from_samples_and_chooses(tmp_path: Path) -> None:
    recipe: dict[str, Any] = {
        "students": {
            "fold": {"role": "cot", "student": "scratch:llama-mini", "folds": 2},
            "cot": RECIPE["students"]["cot"],
            "verifier": {"role": "verifier", "student": "scratch:llama-mini", "chains": ["judged"], "max_steps": 2},
        },
        "samplings": {"drawn": {"solver": "cot", "lm": "fold", "samples": 2, "temperature": 1.0, "limit": 4}},
        "sets": {"judged": {"make": "verdicts", "of": ["drawn"]}},
        "arms": {"cot": {**RECIPE["arms"]["cot"], "samples": 2, "temperature": 1.0}},
        "selections": {"best": {"of": ["cot"], "by": "verifier", "verifier": "verifier"}},
    }
    plan = plan_of(tmp_path, **recipe)
    for stage in plan.stages:
        if isinstance(stage, EvaluateStage):  # such students solve nothing
            plant(stage)
    [comparison] = run_plan(plan, quiet()).values()
    [judged] = (stage for stage in plan.stages if isinstance(stage, SetStage))
    chains = [Chain.from_json(row) for row in read_jsonl(judged.folder / CHAINS)]
    assert [chain.metadata["verdicts"][-1] for chain in chains] == [True, False] * 8
    assert [row.name for row in comparison.rows] == ["cot", "best"]
    out = tmp_path / "out" / "longer"
    said = {
        (row["problem_id"], row["sample"]): row["right"][-1] for row in read_jsonl(out / "cot-s0" / "verdicts.jsonl")
    }
    samples = {(trace.problem_id, trace.sample): trace for trace in load_run(out / "cot-s0").traces}
    assert len(said) == len(samples) == 2 * 3
    for chosen in load_run(out / "best-s0").traces:
        best = max((0, 1), key=lambda sample: said[chosen.problem_id, sample])
        assert chosen.raw == samples[chosen.problem_id, best].raw
    assert not to_do(plan_of(tmp_path, **recipe))


def plant(stage: EvaluateStage) -> None:
    """A run in the place of the stage's, whose first sample of each problem is right and whose second is wrong."""

    def solve(pending: list[tuple[Problem, int]]) -> Iterator[Trace]:
        for problem, sample in pending:
            yield trace(problem, sample, sample == 0)

    config = {**SETTINGS, "data": "stories", "split": stage.source[1], "split_scheme": "authors", "arm": stage.arm}
    evaluate(stage.problems, solve, stage.folder, config, stage.samples)


def test_folds_are_sampled_by_those_who_have_not_seen_them(tmp_path: Path) -> None:
    students = {**RECIPE["students"], "fold": {"role": "cot", "student": "scratch:llama-mini", "folds": 2}}
    students["last"] = {"role": "cot", "student": "scratch:llama-mini", "chains": ["gold", "own"]}
    samplings = {"drawn": {"solver": "cot", "lm": "fold", "samples": 2, "temperature": 1.0, "limit": 4}}
    sets = {"own": {"make": "harvest", "of": ["drawn"]}}
    plan = plan_of(tmp_path, students=students, samplings=samplings, sets=sets)
    run_plan(plan, quiet())
    for fold in ("1/2", "2/2"):
        mark = f"fold{fold[0]}-s0"
        card = json.loads((tmp_path / "out" / f"fold-{mark}" / "socratic.json").read_text())
        assert card["fold"] == fold
        problems = load_run(tmp_path / "out" / "samplings" / f"drawn-{mark}").problems
        assert problems
        assert all(in_fold(problem.question, fold) for problem in problems)


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


def test_splits_of_other_data_have_the_arms_that_run_on_them(tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text('{"question": "Ann has 2 pens and gets 3 more. How many has she?", "answer": "5"}\n')
    cot = {**RECIPE["arms"]["cot"], "samples": 2, "temperature": 1.0}
    arms = {"cot": {**cot, "on": ["longer"]}, "pair": RECIPE["arms"]["pair"], "last": {**cot, "on": [f"{own}:test"]}}
    plan = plan_of(
        tmp_path,
        splits=["longer", "stories:unseen", f"{own}:test"],
        arms=arms,
        selections={"voted": {"of": ["cot"]}, "other": {"of": ["last"], "match": "pair"}},
        curves={"c": {"x": "n", "lines": {"l": {1: "cot", 2: "pair"}, "other": {1: "last"}}}},
    )
    compared = run_plan(plan, quiet())
    assert {name: [row.name for row in one.rows] for name, one in compared.items()} == {
        "longer, calculator on": ["cot", "pair", "voted"],
        "stories-unseen, calculator on": ["pair"],
        "own-test, calculator on": ["pair", "last", "other"],
    }
    drawn = {plot.name: [row[:2] for row in plot.rows] for plot in pipeline.curves(plan, compared)}
    assert drawn == {
        "c, longer, calculator on": [("l", "1"), ("l", "2")],
        "c, stories-unseen, calculator on": [("l", "2")],
        "c, own-test, calculator on": [("l", "2"), ("other", "1")],
    }
    run = load_run(tmp_path / "out" / "own-test" / "pair-s0")
    assert (run.config["data"], run.config["split"]) == (str(own), "test")
    assert plan.overlaps.keys() == set(plan.recipe.splits)
    assert not to_do(plan)


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


def test_arms_put_the_same_problems_into_forms(tmp_path: Path) -> None:
    cot = RECIPE["arms"]["cot"]
    arms = {
        "cot": cot,
        "alone": {**cot, "form": "zero-shot-answer"},
        "shown": {**cot, "form": "in-context-answer", "shots": 2, "instruction": "Count."},
    }
    students = {"cot": RECIPE["students"]["cot"]}
    plan = plan_of(tmp_path, data=FEW, splits=["test"], students=students, arms=arms)
    [comparison] = run_plan(plan, quiet()).values()
    assert [row.metrics["tokens_per_problem"] > 8 for row in comparison.rows] == [True, False, False], "one slot alone"
    solved, chains = load_chains(FEW, "train"), load_chains(FEW, "test", limit=3)
    mixed_alike = mixed(chains, {"in-context-answer": 1}, solved, 2, instruction="Count.")
    assert list(plan.evaluation[2].problems) == [chain.problem("test") for chain in mixed_alike]
    arms["shown"]["shots"] = 3
    changed = plan_of(tmp_path, data=FEW, splits=["test"], students=students, arms=arms)
    assert to_do(changed) == ["shown on test, seed 0"]


def test_a_curve_has_the_arms_against_their_numbers(tmp_path: Path) -> None:
    lines = {"both": {0.5: "cot", "2": "pair"}, "one": {0.5: "cot"}}
    plan = plan_of(tmp_path, curves={"size": {"x": "size", "lines": lines}})
    [plot] = pipeline.curves(plan, run_plan(plan, quiet()))
    assert plot.name == "size, longer, calculator on"
    assert [row[:2] for row in plot.rows] == [("both", "0.5"), ("both", "2"), ("one", "0.5")]
    assert plot.png()[:4] == b"\x89PNG"


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


def test_seeds_are_one_arm_and_calculators_are_apart(tmp_path: Path) -> None:
    small = {"arms": {"cot": RECIPE["arms"]["cot"]}, "students": {"cot": RECIPE["students"]["cot"]}}
    recipe = read_recipe(write(tmp_path, **small), {"seeds": [0, 1], "calculator": [True, False]})
    compared = run_plan(make_plan(recipe, tmp_path / "out"), quiet())
    assert list(compared) == ["longer, calculator on", "longer, calculator off"]
    for comparison, name in zip(compared.values(), ("cot-s0", "cot-nocalc-s0"), strict=True):
        [row] = comparison.rows
        assert (row.name, len(row.runs), row.runs[0]) == ("cot", 2, name)


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
    assert not [
        s for s in make_plan(read_recipe(write(tmp_path, students=students), {}), tmp_path).stages if "qa" in s.name
    ]
    sets = {"more": {"make": "reward", "student": "qa", "samples": 1, "by": ["fluency"], "limit": 4}}
    students["cot"] = {**RECIPE["students"]["cot"], "chains": ["more"]}
    plan = make_plan(read_recipe(write(tmp_path, students=students, sets=sets), {}), tmp_path / "out")
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
    plan = make_plan(read_recipe(write(tmp_path, **with_partner), {}), tmp_path / "out")
    qg, qa = (next(s for s in plan.stages if s.link.name == f"{name}-s0") for name in ("qg", "qa"))
    assert isinstance(qa, TrainStage)
    assert qa.settings.partner == str(qg.folder)
    students["qg"] = {**students["qg"], "weight_decay": 0.5}
    other = make_plan(read_recipe(write(tmp_path, **with_partner), {}), tmp_path / "out")
    assert next(s for s in other.stages if s.link.name == "qa-s0").key != qa.key


def test_a_damaged_evaluation_is_done_again(tmp_path: Path) -> None:
    small = {"arms": {"cot": RECIPE["arms"]["cot"]}, "students": {"cot": RECIPE["students"]["cot"]}}
    plan = make_plan(read_recipe(write(tmp_path, **small), {}), tmp_path / "out")
    first = run_plan(plan, quiet())
    traces = tmp_path / "out" / "longer" / "cot-s0" / "traces.jsonl"
    traces.write_bytes(traces.read_bytes()[:-40])
    assert to_do(plan) == ["cot on longer, seed 0"]
    again = run_plan(plan, quiet())
    assert to_do(plan) == []
    key = "longer, calculator on"
    assert again[key].rows[0].metrics["correct"] == first[key].rows[0].metrics["correct"]


def test_an_endpoint_without_a_key_is_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    written = {"sets": {"more": {"make": "teach", "student": "openai:m"}}, "data": FEW, "splits": ["test"]}
    plan = plan_of(tmp_path, **written, **MORE)
    with pytest.raises(UserError, match="teach more: the endpoint needs a key: set OPENAI_API_KEY"):
        run_plan(plan, quiet())
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    nowhere = {"arms": {"cot": {"solver": "cot", "lm": "openai:m@nowhere"}}, "calculator": [False]}
    other = plan_of(tmp_path, **nowhere, splits=["longer"])
    with pytest.raises(UserError, match="cot on longer, seed 0, calculator off: 'nowhere/' is no address"):
        run_plan(other, quiet())
    assert not any(stage.done for stage in (*plan.stages, *other.stages))


def test_problems_that_do_not_do_are_refused_as_those_of_their_arm(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"arms.cot: .* solved problems are too few to draw 90000 from"):
        plan_of(tmp_path, **{"arms.cot.form": "in-context-cot", "arms.cot.shots": 90_000})
    with pytest.raises(UserError, match=r"cot on longer, seed 0: problem .* offers no choices"):
        plan_of(tmp_path, **{"arms.cot.solver": "likelihood"})


def test_what_is_in_the_way_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "out" / "qg-s0").mkdir(parents=True)
    plan = plan_of(tmp_path)
    with pytest.raises(UserError, match="qg-s0 is in the way"):
        run_plan(plan, quiet())
    assert len(to_do(plan)) == 5
