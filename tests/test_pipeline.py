"""Plans carried out: what is made, what is skipped, what is refused before anything is trained."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from test_evaluate import SETTINGS
from test_planner import FEW, MORE, RECIPE, plan_of, to_do
from test_verdicts import trace

from socratic import answers, pipeline, stages
from socratic.evaluate import evaluate, load_run
from socratic.formats import mixed
from socratic.pipeline import run_plan
from socratic.planner import make_plan
from socratic.recipe_file import read_recipe
from socratic.stages import EvaluateStage, SetStage
from socratic.store import read_jsonl, read_records
from socratic.tasks import load_chains
from socratic.tasks.base import in_fold
from socratic.tasks.sets import CHAINS
from socratic.types import Chain, Problem, Trace, UserError

pytestmark = pytest.mark.usefixtures("few_bundled")  # every plan reads all of train, twice


def quiet() -> Console:
    return Console(file=io.StringIO())


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


def test_a_selection_stands_beside_the_arms(tmp_path: Path) -> None:
    arms = {"cot": {**RECIPE["arms"]["cot"], "samples": 2, "temperature": 1.0}, "pair": RECIPE["arms"]["pair"]}
    selections = {"voted": {"of": ["cot"]}, "matched": {"of": ["cot"], "match": "pair"}}
    curves = {"k": {"x": "k", "lines": {"cot": {1: "cot", 2: "voted"}}}}
    plan = plan_of(tmp_path, arms=arms, selections=selections, curves=curves)
    [comparison] = run_plan(plan, quiet()).values()
    assert [row.name for row in comparison.rows] == ["cot", "pair", "voted", "matched"]
    assert [row.metrics["samples"] for row in comparison.rows] == [2, 1, 1, 1]
    assert not to_do(plan)
    as_read = make_plan(read_recipe(plan.out / "recipe.yaml", {}), plan.out)
    assert not to_do(as_read), "the recipe that is kept is the same"
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
    chains = list(read_records(judged.folder / CHAINS, Chain))
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


def test_seeds_are_one_arm_and_calculators_are_apart(tmp_path: Path) -> None:
    small = {"arms": {"cot": RECIPE["arms"]["cot"]}, "students": {"cot": RECIPE["students"]["cot"]}}
    compared = run_plan(plan_of(tmp_path, **small, seeds=[0, 1], calculator=[True, False]), quiet())
    assert list(compared) == ["longer, calculator on", "longer, calculator off"]
    for comparison, name in zip(compared.values(), ("cot-s0", "cot-nocalc-s0"), strict=True):
        [row] = comparison.rows
        assert (row.name, len(row.runs), row.runs[0]) == ("cot", 2, name)


def test_another_scorer_scores_again_and_solves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"arms": {"cot": RECIPE["arms"]["cot"]}, "students": {"cot": RECIPE["students"]["cot"]}}
    plan = plan_of(tmp_path, **small)
    run_plan(plan, quiet())
    traces = tmp_path / "out" / "longer" / "cot-s0" / "traces.jsonl"
    before = traces.read_bytes()
    for module in (answers, stages):
        monkeypatch.setattr(module, "SCORER_VERSION", "next")
    assert to_do(plan) == ["cot on longer, seed 0"]
    [comparison] = run_plan(plan, quiet()).values()
    assert comparison.rows[0].metrics["scorer_version"] == "next"
    assert traces.read_bytes() == before


def test_a_damaged_evaluation_is_done_again(tmp_path: Path) -> None:
    small = {"arms": {"cot": RECIPE["arms"]["cot"]}, "students": {"cot": RECIPE["students"]["cot"]}}
    plan = plan_of(tmp_path, **small)
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


def test_an_encoder_decoder_is_refused_the_calculator_before_it_is_trained(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, **{"students.base.student": "scratch:t5-tiny"})
    with pytest.raises(UserError, match=r"pair on longer, .* interrupt scratch:t5-tiny; set calculator=\[false"):
        run_plan(plan, quiet())
    assert len(to_do(plan)) == 5


def test_what_is_in_the_way_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "out" / "qg-s0").mkdir(parents=True)
    plan = plan_of(tmp_path)
    with pytest.raises(UserError, match="qg-s0 is in the way"):
        run_plan(plan, quiet())
    assert len(to_do(plan)) == 5
