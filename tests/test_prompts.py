from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import CHAINS, chain

from socratic import load_problems
from socratic.curate import check
from socratic.prompts import MARKERS, Slot, load_prompt, problem_text, render_chain, render_problem, render_raw
from socratic.tasks.overlap import find_overlaps
from socratic.types import Chain, Problem, QGSees, Role, Step, UserError

TWO = replace(
    chain("two", " P ", [(" q1 ", " s1\nt "), ("q2", "s2")], " 70,000 ", verdicts=[True, True, False]),
    final_answer=" 70000 ",
)
Q1, S1, Q2, S2 = ("question", "q1"), ("answer", "s1\nt"), ("question", "q2"), ("answer", "s2")
STOP, FINAL = ("question", ""), ("final", "70,000")

# role, what QG sees -> every slot in order; the learned ones are listed behind it
TRANSCRIPTS: dict[tuple[Role, QGSees], tuple[list[tuple[str, str]], list[tuple[str, str]]]] = {
    ("qg", "answers"): ([Q1, S1, Q2, S2, STOP], [Q1, Q2, STOP]),
    ("qg", "questions"): ([Q1, Q2, STOP], [Q1, Q2, STOP]),
    ("qa", "answers"): ([Q1, S1, Q2, S2, STOP, FINAL], [S1, S2, FINAL]),
    ("qa", "questions"): ([Q1, S1, Q2, S2, STOP, FINAL], [S1, S2, FINAL]),
    ("unified", "answers"): ([Q1, S1, Q2, S2, STOP, FINAL], [Q1, S1, Q2, S2, STOP, FINAL]),
    ("cot", "answers"): ([("answer", "s1\nt\ns2"), FINAL], [("answer", "s1\nt\ns2"), FINAL]),
    ("answer", "answers"): ([FINAL], [FINAL]),
    ("verifier", "answers"): ([Q1, S1, Q2, S2, STOP, ("final", "70000")], []),
}


@pytest.mark.parametrize(("role", "sees"), TRANSCRIPTS)
def test_what_a_role_sees_and_learns(role: Role, sees: QGSees) -> None:
    text, slots = render_chain(TWO, role, sees)
    seen, learned = TRANSCRIPTS[role, sees]
    assert text == "Problem: P"
    assert [(slot.kind, slot.text.strip()) for slot in slots] == seen
    assert [(slot.kind, slot.text) for slot in slots if slot.learned] == learned


def test_every_role_has_a_transcript() -> None:
    assert {role for role, _ in TRANSCRIPTS} == set(get_args(Role)) - {"planner"}


@pytest.mark.parametrize("sees", get_args(QGSees))
def test_a_plan_is_read_by_qg_alone_and_written_by_the_planner(sees: QGSees) -> None:
    for role, _ in TRANSCRIPTS:
        _, slots = render_chain(TWO, role, sees, "count")
        plain = render_chain(TWO, role, sees)[1]
        assert slots == ([Slot("plan", "2", learned=False), *plain] if role == "qg" else plain)
    assert render_chain(TWO, "planner", sees, "count") == ("Problem: P", [Slot("plan", "2", learned=True)])


def test_markers() -> None:
    assert MARKERS == {"question": "\nQ:", "answer": "\nA:", "final": "\n####", "plan": "\nPlan:"}


def test_context_stands_before_the_question_and_choices_after_it() -> None:
    assert problem_text(" q\n", " c ", (" x ", "y")) == "Problem: c\nq\n(A) x\n(B) y"
    assert problem_text("q", "  ", ()) == "Problem: q"
    assert problem_text("q", None, None) == "Problem: q"


@pytest.mark.parametrize("made", CHAINS, ids=lambda made: made.problem_id)
def test_a_chain_and_its_problem_are_rendered_alike(made: Chain) -> None:
    assert render_chain(made, "answer")[0] == render_problem(made.problem())


@pytest.mark.parametrize("role", ["qg", "qa", "unified"])
@pytest.mark.parametrize("blank", ["", " \n"])
def test_an_empty_sub_question_would_be_learned_as_the_stop_and_is_refused(role: Role, blank: str) -> None:
    for sees in get_args(QGSees):
        with pytest.raises(UserError, match=f"chain of c has no sub-questions, which role '{role}'"):
            render_chain(chain("c", "P", [("q", "s"), (blank, "s")], "1"), role, sees)


def test_chains_of_thought_need_steps_but_no_sub_questions() -> None:
    bare = chain("c", "P", [("", "s1"), ("", "s2")], "1")
    assert render_chain(bare, "cot")[1] == [Slot("answer", "s1\ns2", True), Slot("final", "1", True)]
    for role in ("qg", "qa", "unified", "cot"):
        with pytest.raises(UserError, match="has no steps"):
            render_chain(replace(bare, steps=()), role)
    assert render_chain(replace(bare, steps=()), "answer")[1] == [Slot("final", "1", True)]


def test_raw_is_the_slots_and_the_answer_behind_its_marker() -> None:
    assert render_raw([" q", " s "], " 7 ") == "q\ns\n#### 7"
    assert render_raw([" q", " s "], None) == "q\ns"
    assert render_raw([], "7") == "\n#### 7"


def test_a_blank_answer_and_choices_without_a_letter_are_refused() -> None:
    for role in ("qg", "qa", "unified", "cot"):
        with pytest.raises(UserError, match="step 1 of the chain of c has an empty answer"):
            render_chain(chain("c", "P", [("q", "s"), ("q", " ")], "1"), role)
    assert problem_text("q", None, ["x"] * 26).endswith("(Z) x")
    with pytest.raises(UserError, match="27 choices"):
        problem_text("q", None, ["x"] * 27)


filled = st.text(min_size=1).filter(str.strip)


@given(st.text(), filled, filled)
def test_rendering_strips_texts_and_changes_nothing_else(problem: str, question: str, answer: str) -> None:
    text, slots = render_chain(chain("c", problem, [(question, answer)], answer), "unified")
    assert text == f"Problem: {problem.strip()}"
    assert [slot.text for slot in slots] == [question.strip(), answer.strip(), "", answer.strip()]


def test_a_teachers_chat(tmp_path: Path) -> None:
    prompt = load_prompt("socratic", "gsm8k")
    problem = Problem("p", "gsm8k", "train", "How many?", "7")
    chat = prompt.messages(problem, "text")
    assert [turn["role"] for turn in chat] == ["system", *["user", "assistant"] * len(prompt.examples), "user"]
    assert "####" in chat[0]["content"]
    assert "{" not in chat[0]["content"]
    assert chat[-1]["content"] == "Problem: How many?"
    first = chat[2]["content"]
    assert first.startswith("Q: How many seedlings does the greenhouse have at first?\nA: There are 6*14=<<6*14=84>>84")
    assert first.endswith("\n#### 111")
    hinted = prompt.messages(problem, "json", hint_answer=True)
    assert '{"steps": [' in hinted[0]["content"]
    assert "The right answer is 7." in hinted[-1]["content"]
    given = load_prompt("answers", "strategyqa").messages(problem, "text", [Step("Who?", "?"), Step("Why?", "?")])
    assert given[-1]["content"] == "Problem: How many?\nQ: Who?\nQ: Why?"
    wanted = load_prompt("questions", "gsm8k").messages(problem, "text", [Step("?", "Ann."), Step("?", "So.")])
    assert wanted[-1]["content"] == "Problem: How many?\nA: Ann.\nA: So."


@pytest.mark.parametrize("dataset", ["gsm8k", "svamp", "strategyqa", "generic"])
def test_worked_examples_are_right(dataset: str) -> None:
    examples = load_prompt("socratic", dataset).examples
    assert len(examples) >= 4
    for example in examples:
        assert check(example) is None, example.problem_id
        assert all(step.question[-1] == "?" and not step.answer[-1].isalnum() for step in example.steps)
    assert {example.dataset for example in examples} == {dataset}


@pytest.mark.parametrize("dataset", ["gsm8k", "svamp", "strategyqa", "multiarith", "addsub", "singleeq"])
def test_worked_examples_stand_in_no_data_set(dataset: str, data_dir: Path) -> None:
    names = ("gsm8k", "svamp", "strategyqa", "generic")
    own = [example.problem() for name in names for example in load_prompt("socratic", name).examples]
    for split in ("train", "dev", "test"):
        problems = load_problems(dataset, split, data_dir)
        assert not find_overlaps(problems, own).found  # the few are indexed


def test_a_prompt_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "socratic.txt").write_text("Ask. {format}\nWrite {{x}} so.")
    prompt = load_prompt("socratic", "gsm8k", tmp_path)
    assert prompt.examples == ()
    chat = prompt.messages(Problem("p", "d", "train", "1?", "1"), "text", hint_answer=True)
    assert chat[0]["content"].startswith("Ask. Reply in lines")
    assert chat[0]["content"].endswith("Write {x} so.")
    with pytest.raises(UserError, match=r"cot\.txt does not exist; write it, with the placeholder \{format\} in it"):
        load_prompt("cot", "gsm8k", tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Ask.", r"socratic\.txt lacks the placeholder \{format\}; put it where"),
        ("Ask. {format} {problem}", r"has the unknown placeholder \{problem\}; only \{format\} is filled in"),
        ("Ask. {format} {", r"socratic\.txt: .*; write a brace that is no placeholder twice"),
    ],
)
def test_placeholders_are_checked(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "socratic.txt").write_text(text)
    with pytest.raises(UserError, match=said):
        load_prompt("socratic", "gsm8k", tmp_path)
