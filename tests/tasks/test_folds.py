from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from socratic.prepare import TrainSettings
from socratic.store import write_jsonl
from socratic.tasks import in_dev, load_chains, load_problems
from socratic.tasks.base import in_fold, outside_fold, parse_fold, take_fold
from socratic.types import Chain, Step, UserError


def chain(number: int, **metadata: str) -> Chain:
    question = f"Ann has {number} pens and gets 2 more. How many pens has she?"
    return Chain(
        f"d/train/{number}", "d", question, str(number + 2), "number", (Step("How many?", "Some."),), metadata=metadata
    )


CHAINS = [one for number in range(50) if not in_dev((one := chain(number)).question)]


def test_each_question_is_in_one_fold_whatever_its_whitespace() -> None:
    for one in CHAINS:
        inside = [in_fold(one.question, f"{k}/4") for k in range(1, 5)]
        assert sum(inside) == 1
        assert [in_fold(f"\n {one.question.replace(' ', '  ')}", f"{k}/4") for k in range(1, 5)] == inside
    sizes = [sum(in_fold(one.question, f"{k}/4") for one in CHAINS) for k in range(1, 5)]
    assert min(sizes) >= 4
    assert in_fold("How many?", "3/4")  # the rule is part of what a card promises: it may not change


@pytest.mark.parametrize("fold", ["", "1", "0/4", "5/4", "1/1", "1/0", "1/4 ", "-1/4", "1.0/4", "01/4", "½/4"])
def test_what_is_no_fold_is_refused(fold: str) -> None:
    with pytest.raises(UserError, match=r"fold '.*' is not one of several"):
        parse_fold(fold)
    with pytest.raises(UserError, match="is not one of several"):
        TrainSettings.parse({"fold": fold})


def test_training_and_evaluation_share_the_problems_out() -> None:
    kept = outside_fold(CHAINS, "3/4")
    assert [c for c in CHAINS if c not in kept] == [c for c in CHAINS if in_fold(c.question, "3/4")]
    assert outside_fold(CHAINS, None) == CHAINS
    shown = replace(CHAINS[0], metadata={"form": "in-context-cot"})
    with pytest.raises(UserError, match="has solved problems in context, which may be of fold 3/4"):
        outside_fold([shown, *CHAINS[1:]], "3/4")
    inside = [c for c in CHAINS if c not in kept]
    with pytest.raises(UserError, match=f"all {len(inside)} chains are of fold 3/4, which is to be left out"):
        outside_fold(inside, "3/4")


def test_a_variant_falls_with_the_problem_it_was_made_of(tmp_path: Path) -> None:
    made = [replace(c, problem_id=f"{c.problem_id}/vary-0", question=f"{c.question}!") for c in CHAINS]
    made = [replace(m, metadata={"made_from": c.problem_id}) for m, c in zip(made, CHAINS, strict=True)]
    again = [replace(m, problem_id=f"{m.problem_id}/prefix-1", question=f"{m.question}!") for m in made]
    again = [replace(a, metadata={"made_from": m.problem_id}) for a, m in zip(again, made, strict=True)]
    outside = {c.problem_id for c in outside_fold([*again, *made, *CHAINS], "1/4")}
    for c, m, a in zip(CHAINS, made, again, strict=True):
        assert len({one.problem_id in outside for one in (c, m, a)}) == 1

    file = tmp_path / "more.jsonl"
    write_jsonl(file, (c.to_json() for c in (*CHAINS, *made)))
    problems = load_problems(str(file), "train", fold="1/4")
    trained = {c.problem_id for c in outside_fold(load_chains(str(file), "train"), "1/4")}
    assert trained.isdisjoint(p.id for p in problems)
    assert any("made_from" in p.metadata for p in problems)
    everything = {c.problem_id for c in load_chains(str(file), "train")}
    assert trained | {p.id for p in problems} == everything
    assert load_problems(str(file), "train", limit=1, fold="1/4") == problems[:1]


@pytest.mark.parametrize("origin", ["d/train/99", "d/train/0/vary-0"])
def test_a_variant_without_its_source_has_no_known_fold(origin: str) -> None:
    made = replace(chain(0, made_from=origin), problem_id="d/train/0/vary-0")
    with pytest.raises(UserError, match=r"d/train/0/vary-0 was made from .*, which does not stand beside it"):
        outside_fold([made, *CHAINS[1:]], "1/4")


def test_folds_and_dev_are_drawn_apart() -> None:
    questions = [f"Question {number}?" for number in range(3000)]
    dev = [question for question in questions if in_dev(question)]
    share = sum(in_fold(question, "1/4") for question in dev) / len(dev)
    assert 0.15 < share < 0.35


def test_a_variants_problem_alone_has_no_known_fold(tmp_path: Path) -> None:
    problem = replace(CHAINS[0].problem(), id="d/train/0/vary-0", metadata={"made_from": "d/train/0"})
    with pytest.raises(UserError, match="was made from d/train/0, whose fold is not known here"):
        take_fold([(problem, None)], "1/4")
