from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import byte_tokenizer

from socratic.evaluate import Run, score_trace
from socratic.examples import encode
from socratic.harvest import harvest, histories
from socratic.prompts import render_chain, render_raw
from socratic.tasks.base import in_fold
from socratic.types import Chain, Problem, Step, Trace, UserError

PENS = Problem(
    "d/train/1", "d", "train", "Ann has 3 boxes of 12 pens and gives 16 of them away. How many pens are left?", "20"
)
GOLD = Chain(
    PENS.id,
    "d",
    PENS.question,
    "20",
    "number",
    (
        Step("How many pens does Ann have?", "Ann has 3*12=<<3*12=36>>36 pens."),
        Step("How many pens are left?", "There are 36-16=<<36-16=20>>20 pens left."),
    ),
    final_answer="20",
)
OTHER_WAY = [("How many in two boxes?", "<<2*12=24>>24"), ("How many in three?", "<<24+12=36>>36"), GOLD.steps[1]]
FOLD = next(f"{k}/4" for k in range(1, 5) if in_fold(PENS.question, f"{k}/4"))
OTHER_FOLD = "1/4" if FOLD != "1/4" else "2/4"


def trace(sample: int, steps: Sequence[Any], answer: str = "20", **changed: Any) -> Trace:
    made = tuple(step if isinstance(step, Step) else Step(*step) for step in steps)
    raw = render_raw([text for step in made for text in (step.question, step.answer)], answer)
    values = {"stop_reason": "finished", "error": None, "calculator": True, "tokens": 1, "seconds": 0.0}
    return Trace(PENS.id, sample, "iterative", made, raw, answer, **{**values, "version": "1", **changed})


def run(*traces: Trace, problem: Problem = PENS, fold: str | None = FOLD, **config: Any) -> Run:
    trained = {"recipe": "r", "seed": 0, "tokens": {}} | ({"fold": fold} if fold else {})
    models = {place: {"name": place, "training": trained} for place in ("qg", "qa")}
    traces = tuple(replace(t, problem_id=problem.id) for t in traces)
    scores = tuple(score_trace(problem, t) for t in traces)
    config = {"solver": "socratic", "samples": len(traces), "models": models, **config}
    return Run(Path("round-1"), config, (problem,), traces, scores, {})


def test_right_traces_become_chains_that_say_who_wrote_them() -> None:
    done = harvest([run(trace(0, OTHER_WAY), trace(1, GOLD.steps, answer="21"))])
    [chain] = done.chains
    assert (chain.source, chain.sample, chain.answer, chain.final_answer) == ("student:round-1", 0, "20", "20")
    assert chain.steps == trace(0, OTHER_WAY).steps
    assert done.counts == {"kept": 1, "wrong_answer": 1}
    assert done.pass_at_1["held_out"]["rate"] == 0.5
    render_chain(chain, "qa")


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (trace(0, GOLD.steps, answer="21"), "wrong_answer"),
        (trace(0, GOLD.steps, stop_reason="repeated_step"), "unfinished"),
        (trace(0, [GOLD.steps[0], ("How many are left?", "36-16=<<36-16=20>>20, 5*4=21")]), "wrong_calculation"),
        (trace(0, [GOLD.steps[0], ("How many are left?", "<<36-16=20>>20."), ("Is it?", "<<1+1=3>>3")]), "wrong_"),
        (trace(0, [GOLD.steps[0], GOLD.steps[0], GOLD.steps[1]]), "repeated_question"),
        (trace(0, [GOLD.steps[0], ("How many are left?", "977-957=<<977-957=20>>20")]), "unfounded_number"),
        (trace(0, GOLD.steps), "as_gold"),
        (trace(0, [("And all?", "She has <<12 * 3=36>>36."), GOLD.steps[1]]), "as_gold"),
    ],
)
def test_every_other_trace_has_its_reason(made: Trace, reason: str) -> None:
    done = harvest([run(made)], [GOLD])
    assert done.chains == []
    [named] = done.counts
    assert named.startswith(reason)


def test_by_answer_the_arithmetic_may_be_wrong() -> None:
    wrong = [GOLD.steps[0], ("How many are left?", "36-16=<<36-16=20>>20, 5*4=21")]
    unfinished = trace(1, OTHER_WAY, stop_reason="repeated_step")
    done = harvest([run(trace(0, wrong), unfinished, trace(2, GOLD.steps, answer="21"))], by="answer")
    assert done.counts == {"kept": 1, "unfinished": 1, "wrong_answer": 1}


def test_the_same_calculations_are_one_chain_over_all_runs() -> None:
    reworded = [("Two boxes?", "There are <<12*2=24>>24."), ("Three?", "So <<12+24=36>>36."), GOLD.steps[1]]
    done = harvest([run(trace(0, OTHER_WAY), trace(1, reworded)), run(trace(0, reworded))], [GOLD])
    assert done.counts == {"kept": 1, "duplicate": 2}
    assert done.chains[0].steps == trace(0, OTHER_WAY).steps


def test_the_most_different_chains_come_first() -> None:
    near = [GOLD.steps[0], ("And twice?", "<<36+0=36>>36"), GOLD.steps[1]]
    far = [("One box less?", "<<12-16=-4>>-4"), ("And two more?", "<<2*12=24>>24"), ("All?", "<<24-4=20>>20")]
    done = harvest([run(trace(0, near), trace(1, far))], [GOLD], most=1)
    assert [chain.sample for chain in done.chains] == [1]
    assert done.counts == {"kept": 1, "beyond_most": 1}


def test_what_a_student_was_trained_on_is_refused() -> None:
    with pytest.raises(UserError, match=r"round-1 may have been trained .* --trained-on allow"):
        harvest([run(trace(0, OTHER_WAY), fold=None)])
    with pytest.raises(UserError, match="may have been trained"):
        harvest([run(trace(0, OTHER_WAY), fold=OTHER_FOLD)])
    with pytest.raises(UserError, match="may have been trained"):
        harvest([run(trace(0, OTHER_WAY), models={})])
    allowed = harvest([run(trace(0, OTHER_WAY), fold=None)], trained_on="allow")
    assert len(allowed.chains) == 1
    assert list(allowed.pass_at_1) == ["trained_on"]
    both = harvest([run(trace(0, OTHER_WAY)), replace(run(trace(0, OTHER_WAY), fold=None), path=Path("round-0"))])
    assert both.counts == {"kept": 1, "trained_on": 1}
    assert list(both.pass_at_1) == ["held_out", "trained_on"]


def test_what_an_endpoint_failed_at_is_not_counted_as_wrong() -> None:
    failed = trace(1, (), answer="", stop_reason="model_error", error="it was not there")
    with pytest.raises(UserError, match="an endpoint failed at 1 of 2 in round-1; run that again"):
        harvest([run(trace(0, OTHER_WAY), failed)])


def test_of_a_variant_the_run_knows_the_fold() -> None:
    variant = replace(PENS, metadata={"made_from": "d/train/0"})
    with pytest.raises(UserError, match="may have been trained"):
        harvest([run(trace(0, OTHER_WAY), problem=variant)])
    [chain] = harvest([run(trace(0, OTHER_WAY), problem=variant, fold=OTHER_FOLD)], trained_on="allow").chains
    assert chain.metadata["made_from"] == "d/train/0"
    of_the_fold = run(trace(0, OTHER_WAY), problem=variant)
    of_the_fold.config["fold"] = FOLD
    assert len(harvest([of_the_fold]).chains) == 1


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda r: replace(r, problems=(replace(PENS, split="test"),)), "a problem of test"),
        (lambda r: replace(r, problems=(replace(PENS, split="dev"),)), "a problem of dev"),
        (lambda r: replace(r, problems=(replace(PENS, question="How many 39?"),)), "a problem of dev"),
        (lambda r: replace(r, scores=(), metrics=None), "is not complete"),
        (lambda r: replace(r, config={**r.config, "solver": "answer"}), "writes no steps"),
        (lambda r: replace(r, config={**r.config, "intervention": {"kind": "history"}}), "not their own"),
    ],
)
def test_runs_that_nothing_may_be_learned_from_are_refused(spoil: Callable[[Run], Run], said: str) -> None:
    with pytest.raises(UserError, match=said):
        harvest([spoil(run(trace(0, OTHER_WAY)))])


def test_one_id_for_two_problems_is_refused() -> None:
    other = replace(PENS, question=f"{PENS.question} Say it.")
    with pytest.raises(UserError, match="another problem d/train/1"):
        harvest([run(trace(0, OTHER_WAY)), run(trace(0, OTHER_WAY), problem=other)], trained_on="allow")


def test_a_chain_of_thought_is_one_step() -> None:
    thought = run(trace(0, [("", "<<2*12=24>>24\n<<24+12=36>>36\n<<36-16=20>>20")]), solver="cot")
    [chain] = harvest([thought], [GOLD]).chains
    assert render_chain(chain, "cot")[1][0].text.count("\n") == 2
    with pytest.raises(UserError, match="asks no sub-questions"):
        harvest([thought], share=0.5)
    with pytest.raises(UserError, match="asks no sub-questions"):
        histories([thought], [GOLD])


def test_for_qg_each_way_of_asking_counts_once_if_it_led_to_right_answers() -> None:
    asked = [("Pens  in all?", "<<3*12=36>>36"), ("Left?", "<<36-16=20>>20")]
    wrong = [("Pens in all?", "<<3+12=15>>15"), ("Left?", "<<16-15=1>>1")]
    traces = trace(0, asked), trace(1, wrong, answer="1"), trace(2, GOLD.steps), trace(3, asked)
    done = harvest([run(*traces)], [GOLD], share=0.6)
    assert [chain.sample for chain in done.chains] == [0]
    assert done.counts == {"kept": 1, "duplicate": 1, "wrong_answer": 1, "as_gold": 1}
    assert harvest([run(*traces)], [GOLD], share=0.7).counts["seldom_right"] == 2
    known_by_heart = replace(run(*(trace(k, asked) for k in range(9)), fold=None), path=Path("round-0"))
    assert harvest([run(*traces), known_by_heart], [GOLD], share=0.7).counts["seldom_right"] == 2


LONG = replace(
    GOLD,
    steps=(*GOLD.steps[:1], Step("How many are in two boxes?", "In two are <<36-12=24>>24."), GOLD.steps[1]),
)


def test_gold_goes_on_behind_a_students_own_words() -> None:
    own = [
        ("Pens in all?", "<<12*3=36>>36"),
        ("Given away?", "That is <<3+12=15>>15 pens."),
        ("Left?", "<<36-15=21>>21"),
    ]
    done = histories([run(trace(0, own, answer="21"))], [LONG])
    [chain] = done.chains
    assert chain.steps == (Step(*own[0]), *LONG.steps[1:])
    assert (chain.source, chain.answer, chain.metadata) == ("student:round-1", "20", {"given_steps": 1})
    tokenizer = byte_tokenizer("gpt2")
    for role in ("qg", "qa", "unified"):
        ids, learned = encode(chain, role, tokenizer)
        text = tokenizer.decode([i for i, is_learned in zip(ids, learned, strict=True) if is_learned])
        assert "Pens in all?" not in text
        assert "12*3" not in text
        assert ("How many are in two boxes?" in text) == (role != "qa")
        assert ("36-12" in text) == (role != "qg")
    with pytest.raises(UserError, match="has 1 steps that are given, which role 'cot' cannot tell"):
        render_chain(chain, "cot")
    for wrong in ("1", -1, None):
        with pytest.raises(UserError, match="which is no number"):
            render_chain(replace(chain, metadata={"given_steps": wrong}), "qa")


@pytest.mark.parametrize(
    ("own", "reason"),
    [
        (GOLD.steps, "as_gold"),
        ([("Pens in all?", "<<3*10=30>>30")], "other_values"),
        ([("Pens in all?", "3*12=<<3*12=36>>36, 2+2=5, 36")], "other_values"),
        ([("How many pens are left?", "<<3*12=36>>36")], "repeated_question"),
        ([], "other_values"),
    ],
)
def test_a_history_that_gold_cannot_go_on_from_has_its_reason(own: list[Any], reason: str) -> None:
    done = histories([run(trace(0, own))], [GOLD])
    assert (done.chains, dict(done.counts)) == ([], {reason: 1})


def test_a_history_without_a_number_that_gold_needs_later_is_shortened() -> None:
    steps = (
        Step("And with four boxes?", "She would have <<4*12=48>>48, so that 12 less are <<48-12=36>>36."),
        Step("How many are in four?", "The 48 are <<48-28=20>>20 more than needed."),
    )
    gold = replace(GOLD, steps=steps)
    assert histories([run(trace(0, [("Pens?", "<<3*12=36>>36")]))], [gold]).counts == {"other_values": 1}
    assert histories([run(trace(0, OTHER_WAY))], []).counts == {"no_gold_steps": 1}
