"""Recipes as files: read, overridden, repeated by rounds, and refused with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_planner import RECIPE, write

from socratic.recipe import PLACES
from socratic.recipe_file import read_recipe
from socratic.types import UserError


def test_rounds_repeat_what_has_them_in_its_name(tmp_path: Path) -> None:
    students = {
        **RECIPE["students"],
        "cot-0": RECIPE["students"]["cot"],
        "cot-$round": {"role": "cot", "student": "cot-$last"},
    }
    recipe = read_recipe(write(tmp_path, students=students, rounds=2), {})
    assert [name for name in recipe.students if name.startswith("cot-")] == ["cot-0", "cot-1", "cot-2"]
    assert recipe.students["cot-2"] == {"role": "cot", "student": "cot-1"}


def test_the_key_on_is_a_word_in_a_recipe(tmp_path: Path) -> None:
    path = write(tmp_path, arms={"cot": RECIPE["arms"]["cot"]})
    path.write_text(path.read_text().replace("  cot:\n    solver: cot", "  cot:\n    on: [longer]\n    solver: cot"))
    assert read_recipe(path, {}).arms["cot"]["on"] == ["longer"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"split": "x"}, "unknown recipe key 'split'; did you mean 'splits'?"),
        ({"splits": ["longer", "stories:longer"]}, "splits 'longer' and 'stories:longer' are the same problems"),
        ({"arms.cot": {"solver": "likelihood", "lm": "openai:m"}}, "arms.cot: openai:m does not say how likely a text"),
        (
            {"selections": {"s": {"of": ["cot"], "by": "verifier", "verifier": "openai:m"}}},
            "selections.s.verifier='openai:m' is an endpoint",
        ),
        ({"samplings": {"s": {"solver": "cot", "lm": "openai:m"}}}, "samplings.s: the calculator cannot interrupt op"),
        ({"arms.cot.lm": "openai:m"}, "arms.cot: the calculator cannot interrupt openai:m; set calculator"),
        ({"arms.cot.instruction": "One.\nTwo."}, "instruction='One.\\\\nTwo.' is not usable: it is not one line"),
        ({"training.epoch": 1}, "unknown training: 'epoch'.*did you mean 'epochs'"),
        ({"students.qgg.epochs": 1}, "no 'students.qgg' to set 'epochs' in; did you mean 'qg'"),
        ({"training.trainer": {"loging_steps": 1}}, "trainer has no setting 'loging_steps'; did you mean 'logging_st"),
        ({"students.qg.rol": 1}, "unknown key 'rol' in students.qg; did you mean 'role'"),
        ({"students.qg.epochs": "many"}, "students.qg: epochs='many' is not usable"),
        ({"arms.cot.temperatur": 1}, "unknown key 'temperatur' in arms.cot; did you mean 'temperature'"),
        ({"arms.cot.qg": "qg"}, "arms.cot: solver 'cot' needs the one student lm"),
        ({"training.seed": 1}, "sets seed, which the whole recipe shares; set seeds there"),
        ({"solving.calculator": True}, "sets calculator, which the whole recipe shares; set calculator there"),
        ({"seeds": []}, "seeds=\\[\\] is not usable"),
        ({"seeds": [0, 0]}, "seeds=\\[0, 0\\] is not usable: each may stand in it once"),
        ({"students": {}}, "arms.cot.lm='cot' is no student of this recipe"),
        ({"arms.cot.lm": "cto"}, "arms.cot.lm='cto' is no student of this recipe.*did you mean 'cot'"),
        ({"arms.cot.lm": "qg"}, "arms.cot: qg was trained as 'qg' and cannot be the lm of solver 'cot'"),
        ({"student": "models/missing.gguf"}, "student='models/missing.gguf' is no student"),
        ({"student": "scratch:lama-mini"}, "student='scratch:lama-mini' is no student.*'scratch:llama-mini'"),
        ({"students.qg.partner": "qaa", "students.qg.best_by": "accuracy"}, "students.qg.partner='qaa' is no student"),
        ({"students.qg.partner": "qa"}, "students.qg: partner='qa' is not usable: only best_by=accuracy asks it"),
        ({"students.cot.qg_sees": "questions"}, "students.cot: qg_sees=questions is for the role qg, not 'cot'"),
        (
            {"arms.cot.solver": "likelihood", "arms.cot.temperature": 0.5},
            "temperature=0.5 is not usable: solver likeli",
        ),
        (
            {"sets": {"m": {"make": "teach", "student": "openai:m", "hint_answer": True, "hint_failed": True}}},
            "sets.m: hint_failed=True is not usable: hint_answer gives it to every problem already",
        ),
        ({"sets": {"more": {"make": "augment"}}}, "sets.more: 'kinds' is missing; give it"),
        ({"sets": {"more": {"make": "augment", "kinds": ["vary"], "copy": 1}}}, "'copy' in sets.more.*mean 'copies'"),
        ({"students.qg.chains": ["mor"]}, "students.qg.chains names 'mor', which there is not"),
        (
            {"students.qg.chains": ["answers"]},
            "students.qg.chains names answers, which have no steps; only the role answ",
        ),
        ({"students.qg.chains": ["answers:svmp"]}, "students.qg.chains names 'answers:svmp', which .*'answers:svamp'"),
        (
            {"students.qg.chains": ["gold:svmp"]},
            "students.qg.chains names 'gold:svmp', which there is not.*'gold:svamp'",
        ),
        (
            {"sets": {"m": {"make": "corrupt", "share": 1, "of": ["answers:svamp"]}}},
            "sets.m.of names 'answers:svamp', wh",
        ),
        ({"students.qg.folds": 4}, "students.qg goes by folds=4 and base by folds=None; give both the same"),
        ({"curves": {"c": {"x": "n", "lines": {"l": {1: "pari"}}}}}, "curves.c names 'pari', which is no arm.*'pair'"),
        ({"selections": {"cot": {"of": ["cot"]}}}, "selections.cot has the name of an arm; give it another"),
        ({"selections": {"s": {"of": ["cto"]}}}, "selections.s names 'cto', which is no arm; did you mean 'cot'"),
        ({"selections": {"s": {"of": ["cot"], "by": "verifier"}}}, "selections.s: by=verifier needs verifier"),
        ({"selections": {"s": {"of": ["cot"], "by": "weighted", "verifier": "qg"}}}, "qg is trained as 'qg', not as"),
        ({"sets": {"m": {"make": "reward"}}}, "sets.m: make=reward needs a student; name one"),
        (
            {"sets": {"m": {"make": "harvest"}}},
            "sets.m.of names 'gold', which is no sampling; the recipe has none",
        ),
        (
            {"samplings": {"s": {"solver": "cot", "lm": "cot"}}, "sets": {"m": {"make": "harvest", "of": ["s", "s"]}}},
            "sets.m.of=.* has a sampling twice, .*; name each once",
        ),
        (
            {
                "samplings": {"s": {"solver": "cot", "lm": "cot", "split": "test"}},
                "sets": {"m": {"make": "verdicts", "of": ["s"]}},
            },
            "samplings.s solves test, which sets.m may not learn from; sample train",
        ),
        (
            {
                "samplings": {"s": {"solver": "cot", "lm": "cot", "split": "svamp:dev"}},
                "sets": {"m": {"make": "harvest", "of": ["s"]}},
            },
            "samplings.s solves svamp:dev, which sets.m may not learn from; sample train",
        ),
        ({"sets": {"m": {"make": "teach"}}}, "sets.m: make=teach needs a student; name one"),
        ({"sets": {"m": {"make": "teach", "student": "openai:m", "of": ["gold"]}}}, "asks about the problems of data"),
        ({"sets": {"m": {"make": "teach", "student": "openai:m", "model": "n"}}}, "unknown key 'model' in sets.m"),
        ({"sets": {"m": {"make": "teach", "student": "openai:"}}}, "sets.m.student='openai:' names no model"),
        ({"sets": {"m": {"make": "teach", "student": "scratch:llama-mini"}}}, "sets.m.student=.* knows nothing yet"),
        ({"arms.cot.lm": "scratch:llama-mini"}, "arms.cot.lm='scratch:llama-mini' knows nothing yet; name a student"),
        (
            {"students.cot.student": "openai:m"},
            "students.cot.student='openai:m' is an endpoint, which cannot be trained",
        ),
        (
            {"sets": {"m": {"make": "reward", "student": "qa", "temperature": 0.0}}},
            "sets.m: temperature=0.0 is not usable: greedy answers are all alike",
        ),
        ({"sets": {"m": {"make": "soften", "student": "openai:m"}}}, "sets.m.student='openai:m' is not for soften"),
        ({"arms.cot.instruction": " "}, "arms.cot: instruction=' ' is not usable: it is not one line"),
        (
            {"sets": {"m": {"make": "mix", "shares": {"zero-shot-cot": 1.0}, "instruction": " "}}},
            "sets.m: instruction=' ' is not usable: it is not one line",
        ),
        ({"students.cot.twin": 5_000}, "students.cot: twin=5000 is not usable"),
        ({"sets": {"m": {"make": "teach", "student": "gpt"}}}, "sets.m.student='gpt' is no student"),
        (
            {"sets": {"m": {"make": "teach", "student": "openai:m", "samples": 2, "temperature": 0.0}}},
            "sets.m: samples=2 is not usable: a greedy teacher's are all alike",
        ),
        (
            {"sets": {"m": {"make": "teach", "student": "fold"}}, "students.fold": {"role": "cot", "folds": 2}},
            "sets.m goes by folds=None and fold by folds=2",
        ),
        (
            {"sets": {"m": {"make": "harvest", "of": ["s"], "history": "predicted", "by": "answer"}}},
            "sets.m: by='answer' is not usable: history=predicted keeps steps",
        ),
        (
            {"sets": {"m": {"make": "harvest", "of": ["s"], "history": "predicted", "share": 0.5}}},
            "sets.m: history='predicted' is not usable: share is of whole question sequences",
        ),
        (
            {
                "samplings": {"s": {"solver": "cot", "lm": "cot"}},
                "sets": {"m": {"make": "harvest", "of": ["s"], "limit": 9}},
            },
            "sets.m: limit=9 is not for make=harvest; set the limit of what it samples",
        ),
        (
            {"sets": {"m": {"make": "teach", "student": "openai:m", "style": "zero-shot-cot", "prompt": "p"}}},
            "sets.m: prompt='p' is not usable: style=zero-shot-cot shows no prompt",
        ),
        ({"selections": {"s": {"of": ["cot", "pair"], "k": 3}}}, "selections.s: k=3 is more than the 2 samples"),
        ({"selections": {"s": {"of": ["cot", "cot"]}}}, "selections.s.of=.* has an arm twice"),
        ({"curves": {"c": {"x": "n", "lines": ["cot"]}}}, "lines=.* is not usable: write each line as its arms"),
        ({"curves": {"c": {"x": "n", "lines": {"l": {"many": "cot"}}}}}, "lines=.* is not usable"),
        ({"students.cot.student": "x" * 300}, "students.cot.student='x+' is no student of this recipe"),
        (
            {"sets": {"m": {"make": "mix", "shares": {"zero-shot-cot": 1.0}, "shots": 8}}},
            "sets.m: shots=8 is not usable: no form has problems in context",
        ),
        (
            {"sets": {"m": {"make": "augment", "kinds": ["prefix"], "copies": 3}}},
            "sets.m: copies=3 is not usable: only kind vary makes several",
        ),
        (
            {"sets": {"m": {"make": "corrupt", "share": 1, "kinds": ["verbose"], "keep_answer": True}}},
            "sets.m: keep_answer=True is not usable: only kind wrong_step changes the answer",
        ),
        ({"selections": {"s": {"of": ["cot"], "over": "minimum"}}}, "selections.s: over=minimum is of a verifier's"),
        ({"students": {"a/b": {"role": "cot"}}}, "students has the name 'a/b', which makes no folder"),
        ({"samples": 4}, "arms.cot: samples=4 of a greedy solver are all alike; give a temperature, or samples=1"),
        ({"arms.cot.on": ["test"]}, "arms.cot.on names 'test', which is not in splits; did you mean 'longer'?"),
        (
            {"splits": ["longer", "test"], "arms.cot.on": ["longer"], "arms.pair.on": ["longer"]},
            "no arm runs on 'test'",
        ),
        ({"arms.pair.form": "zero-shot-cot"}, "arms.pair: form=zero-shot-cot is for the solvers cot and answer"),
        ({"arms.cot.shots": 2}, "arms.cot: shots=2 is for a form with problems in context; leave it out"),
        (
            {"students.cot.format": "fine-tune-cot", "arms.cot.form": "zero-shot-answer"},
            "arms.cot: form=zero-shot-answer is not for cot, which learns format=fine-tune-cot",
        ),
        ({"splits": ["a/x.csv:test", "b/x.csv:test"]}, "each may stand in it once"),
        (
            {
                "splits": ["longer", "test"],
                "arms.cot.on": ["longer"],
                "arms.pair.on": ["test"],
                "selections": {"s": {"of": ["cot"], "match": "pair"}},
            },
            "selections.s needs cot, pair, which run on no split together",
        ),
        ({"arms": {"..": {"solver": "cot", "lm": "cot"}}}, "arms has the name '..'"),
    ],
)
def test_a_mistake_in_a_recipe_is_named(tmp_path: Path, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_recipe(write(tmp_path), overrides)


def test_a_sampling_has_the_first_calculator_alone(tmp_path: Path) -> None:
    asked = {"samplings": {"s": {"solver": "cot", "lm": "openai:m"}}, "calculator": [False, True]}
    assert read_recipe(write(tmp_path), asked).samplings == asked["samplings"]


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_text(path.read_text() + "limit: 4\n")
    with pytest.raises(UserError, match=r"is not YAML \(key 'limit' stands twice in .*, line \d+, column 1"):
        read_recipe(path, {})


def test_files_that_are_no_recipe_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_recipe(tmp_path / "absent.yaml", {})
    for text in ("- a", "a: [", "\xff"):
        (tmp_path / "bad.yaml").write_bytes(text.encode("latin-1"))
        with pytest.raises(UserError, match=r"bad.yaml is not"):
            read_recipe(tmp_path / "bad.yaml", {})


@pytest.mark.parametrize(
    "path", sorted(Path(__file__).parent.parent.glob("recipes/*.yaml")), ids=lambda path: path.stem
)
def test_shipped_recipes_are_readable(path: Path) -> None:
    recipe = read_recipe(path, {})
    solvers = [*recipe.arms.values(), *recipe.samplings.values()]
    used = {solver[place] for solver in solvers for place in PLACES if place in solver}
    used |= {entry.get("student") for entry in (*recipe.students.values(), *recipe.sets.values())}
    used |= {selection.verifier for selection in recipe.selections.values()}
    assert used >= recipe.students.keys(), "nobody needs the others"


def test_empty_settings_can_be_set_and_odd_keys_are_named(tmp_path: Path) -> None:
    assert read_recipe(write(tmp_path, training=None), {"training.max_steps": 1}).training == {"max_steps": 1}
    path = write(tmp_path)
    path.write_text("3: a\n" + path.read_text())
    with pytest.raises(UserError, match="unknown recipe key 3"):
        read_recipe(path, {})
