from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from socratic.evaluate import Run, evaluate, load_run
from socratic.report.compare import Comparison, compare
from socratic.types import Problem, Step, Trace, UserError

PROBLEMS = [Problem(f"d/test/{i}", "d", "test", f"What is {i} + 1?", str(i + 1)) for i in range(8)]


def make_run(
    path: Path,
    answers: Sequence[Sequence[str]],
    problems: Sequence[Problem] = PROBLEMS,
    solver: str = "cot",
    model: dict[str, Any] | None = None,
) -> Run:
    """A run in which sample k of problem i answers ``answers[i][k]``."""
    said = {problem.id: texts for problem, texts in zip(problems, answers, strict=True)}

    def solve(pending: list[tuple[Problem, int]]) -> Iterator[Trace]:
        for problem, k in pending:
            text = said[problem.id][k]
            raw = f"so\n#### {text}"
            yield Trace(problem.id, k, solver, (Step("", "so"),), raw, text, "finished", None, True, 12, 1.5, "1")

    models = {"models": {"lm": model}} if model else {}
    evaluate(problems, solve, path, {"solver": solver, **models}, samples=len(answers[0]))
    return load_run(path)


def right(*indices: int) -> list[list[str]]:
    return [[str(i + 1) if i in indices else "99"] for i in range(len(PROBLEMS))]


def rendered(comparison: Comparison, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(comparison.table())
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_rows_and_paired_tests(tmp_path: Path) -> None:
    base = make_run(tmp_path / "base", right(0, 1))
    better = make_run(tmp_path / "better", right(1, 2, 3, 4, 5, 6, 7), solver="socratic")
    comparison = compare([base, better])
    assert comparison.problems == 8
    first, second = comparison.rows
    assert (first.name, first.solver, first.calculator) == ("base", "cot", "on")
    assert second.solver == "socratic"
    assert first.metrics["correct"]["rate"] == 0.25
    (pair,) = comparison.pairs
    assert (pair.name, pair.baseline, pair.only_run, pair.only_baseline) == ("better", "base", 6, 1)
    assert pair.p == 2 * (1 + 7) / 2**7
    assert pair.difference == 5 / 8
    assert pair.low < pair.difference < pair.high
    assert json.loads(json.dumps(comparison.to_json()))["pairs"][0]["p"] == pair.p


def test_a_run_alone_and_a_run_against_itself(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", right(0))
    assert compare([run]).pairs == ()
    with pytest.raises(UserError, match="stands twice among the runs"):
        compare([run, run])
    (pair,) = compare([run, make_run(tmp_path / "again", right(0))]).pairs
    assert pair.p_holm == 1.0
    assert (pair.p, pair.difference, pair.low, pair.high) == (1.0, 0.0, 0.0, 0.0)
    with pytest.raises(UserError, match="no runs"):
        compare([])


def test_several_samples_are_paired_by_their_majority(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", right(0))
    answers = [["1", "99", "1"], ["2", "2", "99"], *[["99", "99", str(i + 1)] for i in range(2, 8)]]
    comparison = compare([one, make_run(tmp_path / "many", answers)])
    (pair,) = comparison.pairs
    assert (pair.only_run, pair.only_baseline) == (1, 0)
    assert comparison.rows[1].metrics["majority"]["rate"] == 0.25
    assert "majority" in rendered(comparison)
    assert "majority" not in rendered(compare([one]))


def trained(
    seed: int, recipe: str = "r", sha: str | None = None, parameters: int = 3_000_000, name: str = "cot"
) -> dict[str, Any]:
    training = {"recipe": recipe, "seed": seed, "tokens": {"base": 500_000, f"{recipe}{seed}": 1_500_000}}
    own = {"name": f"{name}-s{seed}", "sha256": sha or f"{recipe}{seed}", "dtype": "float32", "parameters": parameters}
    return {**own, "training": training}


def test_seeds_of_one_recipe_are_one_arm(tmp_path: Path) -> None:
    base = make_run(tmp_path / "base", right(0), model=trained(0, "other"))
    seeds = [
        make_run(tmp_path / f"cot-s{seed}", right(*solved), model=trained(seed))
        for seed, solved in enumerate(((0, 1), (0, 1, 2), (0, 1, 2, 3)))
    ]
    comparison = compare([base, seeds[0], seeds[1], seeds[2]])
    first, group = comparison.rows
    assert (first.runs, first.spread) == (("base",), None)
    assert (group.name, group.runs) == ("cot", ("cot-s0", "cot-s1", "cot-s2"))
    assert group.metrics["correct"]["rate"] == pytest.approx(3 / 8)
    assert group.spread == pytest.approx(1 / 8)
    assert group.metrics["correct"]["low"] < 3 / 8 < group.metrics["correct"]["high"]
    assert (group.parameters, group.trained_tokens) == (3_000_000, 2_000_000)
    (pair,) = comparison.pairs
    assert pair.only_run is None
    assert pair.difference == pytest.approx(2 / 8)
    assert pair.low < pair.difference < pair.high
    text = rendered(comparison)
    assert "3, sd 12.5" in text
    assert "p: bootstrap" in " ".join(text.split())
    assert pair.detectable == pytest.approx((pair.high - pair.low) / 2 * 1.43, rel=0.01)
    assert "3.00 M" in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_other_recipes_and_the_same_run_twice_are_arms_of_their_own(tmp_path: Path) -> None:
    a = make_run(tmp_path / "a", right(0), model=trained(0))
    b = make_run(tmp_path / "b", right(0), model=trained(1, "other"))
    again = make_run(tmp_path / "again", right(0), model=trained(0, name="the same under another name"))
    assert [row.name for row in compare([a, b, again]).rows] == ["a", "b", "again"]


def test_exact_and_bootstrap_tests_stand_side_by_side(tmp_path: Path) -> None:
    base = make_run(tmp_path / "base", right(0), model=trained(0, "base"))
    one = make_run(tmp_path / "one", right(0, 1, 2), model=trained(0, "one"))
    seeds = [make_run(tmp_path / f"many-s{seed}", right(seed), model=trained(seed, "many")) for seed in (0, 1)]
    exact, bootstrap = compare([base, one, *seeds]).pairs
    assert (exact.only_run, bootstrap.only_run) == (2, None)
    text = rendered(compare([base, one, *seeds]), width=100)
    assert "p: exact McNemar or, of several seeds, bootstrap" in " ".join(text.split())
    assert re.search(r"\n one .* 2 +0 +0\.500 ", text)
    assert re.search(r"\n many .* - +- +[01]\.", text)


def test_seeds_that_all_agree_still_leave_room_for_chance(tmp_path: Path) -> None:
    seeds = [make_run(tmp_path / f"s{seed}", right(), model=trained(seed)) for seed in (0, 1, 2)]
    (row,) = compare(seeds).rows
    assert row.metrics["correct"]["low"] == 0.0
    assert row.metrics["correct"]["high"] == pytest.approx(0.324, abs=1e-3)  # Wilson, 0 of 8


@pytest.mark.parametrize(
    ("folders", "name"),
    [(["gpt2-s0", "gpt2-s1"], "gpt2"), (["answers_0", "answers_1"], "answers"), (["class-s1", "class-s12"], "class")],
)
def test_an_arm_is_named_by_what_its_runs_share(tmp_path: Path, folders: list[str], name: str) -> None:
    runs = [make_run(tmp_path / folder, right(0), model=trained(seed)) for seed, folder in enumerate(folders)]
    assert [row.name for row in compare(runs).rows] == [name]


def test_several_arms_are_adjusted_and_the_visible_difference_is_said(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / name, right(*solved)) for name, solved in {"a": (), "b": range(6), "c": range(8)}.items()
    ]
    pairs = compare(runs).pairs
    assert [pair.p for pair in pairs] == [2 / 2**6, 2 / 2**8]
    assert [pair.p_holm for pair in pairs] == [2 / 2**6, 4 / 2**8]
    assert all(0.75 <= pair.detectable <= 1 for pair in pairs)
    assert "Holm" in rendered(compare(runs))
    assert "Holm" not in rendered(compare(runs[:2]))


def test_chance_is_shown(tmp_path: Path) -> None:
    problems = [Problem(f"q{i}", "d", "test", f"Is it {i}?", "yes" if i < 5 else "no", "yesno") for i in range(8)]
    run = make_run(tmp_path / "run", [["yes"]] * 8, problems)
    assert compare([run]).chance == {"most frequent answer": 5 / 8, "guessing": 0.5}
    assert "(guessing)" in rendered(compare([run]))
    assert compare([make_run(tmp_path / "numbers", right(0))]).chance == {"most frequent answer": 1 / 8}


def test_majority_and_pass_of_k_samples(tmp_path: Path) -> None:
    answers = [[str(i + 1), "99", "98", str(i + 1)] for i in range(8)]
    [row] = compare([make_run(tmp_path / "run", answers)]).rows
    at_k = row.metrics["at_k"]
    assert list(at_k) == ["1", "2", "4"]
    assert at_k["1"] == {"majority": 0.5, "pass": 0.5}
    assert at_k["2"] == {"majority": 0.5, "pass": pytest.approx(1 - 1 / 6)}
    assert at_k["4"] == {"majority": 1.0, "pass": 1.0}
    assert "k=4" in rendered(compare([make_run(tmp_path / "again", answers)]))


def test_runs_over_different_problems_are_refused_unless_common(tmp_path: Path) -> None:
    changed = [dataclasses.replace(PROBLEMS[0], question="What is 2 - 1?"), *PROBLEMS[1:6]]
    a = make_run(tmp_path / "a", right(0, 1))
    b = make_run(tmp_path / "b", right(0, 1, 2)[:6], changed)
    with pytest.raises(UserError, match=r"\(3 differ, the first 'd/test/0'\).*--common"):
        compare([a, b])
    comparison = compare([a, b], common=True)
    assert comparison.problems == 5
    assert [row.metrics["correct"]["count"] for row in comparison.rows] == [1, 2]
    assert [row.metrics["problems"] for row in comparison.rows] == [5, 5]
    assert comparison.pairs[0].only_run == 1


def test_runs_that_share_nothing_are_refused(tmp_path: Path) -> None:
    a = make_run(tmp_path / "a", right(0)[:4], PROBLEMS[:4])
    b = make_run(tmp_path / "b", right(0)[:4], PROBLEMS[4:])
    with pytest.raises(UserError, match="share no problem"):
        compare([a, b], common=True)


def test_the_order_and_metadata_of_problems_do_not_matter(tmp_path: Path) -> None:
    a = make_run(tmp_path / "a", right(0, 1))
    moved = [dataclasses.replace(p, metadata={"row": 1}) for p in reversed(PROBLEMS)]
    b = make_run(tmp_path / "b", right(0, 1)[::-1], moved)
    (pair,) = compare([a, b]).pairs
    assert (pair.only_run, pair.only_baseline) == (0, 0)


def test_incomplete_runs_and_other_scorers_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", right(0))
    with pytest.raises(UserError, match="b is not complete"):
        compare([run, dataclasses.replace(run, path=tmp_path / "b", metrics=None)])
    assert run.metrics is not None
    old = dataclasses.replace(run, path=tmp_path / "b", metrics={**run.metrics, "scorer_version": "0"})
    with pytest.raises(UserError, match="socratic score"):
        compare([run, old])


def test_the_table_is_readable_at_80_columns(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / "gsm8k-socratic-smollm2-seed1", right(0, 1, 2), solver="socratic"),
        make_run(tmp_path / "cot", [[t[0]] * 3 for t in right(*range(8))]),
    ]
    text = rendered(compare(runs))
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "…" not in text
    for word in ("correct", "strict", "unparsed", "truncated", "finished", "difference", "calc", "seconds"):
        assert word in text
    assert "37.5 [13.7, 69.4]" in text
    assert "100.0 [67.6, 100.0]" in text
    assert "+62.5 [" in text


def test_hostile_names_are_shown_as_written(tmp_path: Path) -> None:
    run = make_run(tmp_path / "[red]a\x1b[31m", right(0))
    text = rendered(compare([run]), width=120)
    assert "[red]a\\x1b[31m" in text
    assert "\x1b" not in text


def test_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / parent / "run", right(0)) for parent in ("a", "b")]
    assert [row.name for row in compare(runs).rows] == [str(run.path) for run in runs]


def test_a_pair_has_the_parameters_of_both_and_read_what_they_share_once(tmp_path: Path) -> None:
    def solve(pending: list[tuple[Problem, int]]) -> Iterator[Trace]:
        for problem, k in pending:
            yield Trace(problem.id, k, "iterative", (), "1", "1", "finished", None, True, 12, 1.5, "1")

    models = {"qg": trained(0, "qg"), "qa": trained(0, "qa", parameters=1_000_000)}
    evaluate(PROBLEMS, solve, tmp_path / "pair", {"solver": "socratic", "models": models})
    (row,) = compare([load_run(tmp_path / "pair")]).rows
    assert (row.parameters, row.trained_tokens) == (4_000_000, 500_000 + 2 * 1_500_000)
