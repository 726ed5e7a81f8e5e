"""Swaps and interventions, with planted students whose use of the questions is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny import byte_tokenizer

from socratic.answers import sub_answer_value
from socratic.evaluate import Run, evaluate, load_run
from socratic.examples import causal_example
from socratic.interventions import GENERIC_QUESTION, REPLACEMENTS, SWAPS, intervene
from socratic.lm.scripted import ScriptedLM
from socratic.prompts import SlotKind, problem_text
from socratic.report.interventions import AS_IS, effects, effects_table
from socratic.solving import SolveSettings, Solving
from socratic.tasks import load_chains
from socratic.tokens import Codec
from socratic.types import Chain, Problem, Step, Trace, UserError

CHAINS = load_chains("stories", "test", limit=24)
CODEC = Codec(byte_tokenizer("gpt2"))
BY_TEXT = {problem_text(chain.question): chain for chain in CHAINS}
Script = Callable[[Chain, str, SlotKind], str]


def planted(script: Script) -> ScriptedLM:
    """A student that knows which problem it reads."""

    def say(transcript: str, kind: SlotKind) -> str:
        return script(BY_TEXT[transcript.split(CODEC.end_text)[0]], transcript, kind)

    return ScriptedLM(CODEC, say)


def asks_gold(chain: Chain, transcript: str, kind: SlotKind) -> str:
    asked = transcript.count("\nQ:") - 1
    return chain.steps[asked].question if asked < len(chain.steps) else ""


def last_value(transcript: str) -> str:
    return sub_answer_value(transcript.split("\nA:")[-1].split(CODEC.end_text)[0]) or "0"


def ignores_questions(chain: Chain, transcript: str, kind: SlotKind) -> str:
    if kind == "final":
        return last_value(transcript)
    return chain.steps[min(transcript.count("\nA:"), len(chain.steps)) - 1].answer


def obeys_questions(chain: Chain, transcript: str, kind: SlotKind) -> str:
    if kind == "final":
        return last_value(transcript)
    asked = transcript.split("\nQ:")[-1].split(CODEC.end_text)[0].strip()
    return next((step.answer for step in chain.steps if step.question == asked), "That is 0.")


def run_all(qg: Script, qa: Script, folder: Path) -> dict[str, Run]:
    problems = [chain.problem("test") for chain in CHAINS]
    solving = Solving(SolveSettings.parse({}), planted(qg), planted(qa))
    runs = {}
    for kind in (AS_IS, *SWAPS, *REPLACEMENTS):
        solver = solving if kind == AS_IS else solving.with_intervention(intervene(kind, CHAINS))
        evaluate(problems, solver.run, folder / kind, solver.record())
        runs[kind] = load_run(folder / kind)
    return runs


def test_a_student_that_ignores_questions_shows_no_drop(tmp_path: Path) -> None:
    runs = run_all(asks_gold, ignores_questions, tmp_path)
    for effect in effects(runs, {chain.problem_id: chain for chain in CHAINS}):
        assert effect.right == 1.0
        assert effect.steps == 1.0
        if effect.name != AS_IS:
            assert effect.pair is not None
            assert (effect.pair.difference, effect.pair.p) == (0.0, 1.0)
            assert effect.steps_difference == (0.0, 0.0, 0.0)


def test_an_answer_said_twice_is_no_drop_where_the_questions_are_given(tmp_path: Path) -> None:
    def hesitates(chain: Chain, transcript: str, kind: SlotKind) -> str:
        if kind == "answer" and transcript.count("\nA:") <= 2:
            return "Let me think."
        return chain.answer if kind == "final" else ignores_questions(chain, transcript, kind)

    found = effects(run_all(asks_gold, hesitates, tmp_path), {chain.problem_id: chain for chain in CHAINS})
    assert {effect.right for effect in found} == {1.0}


def test_of_several_samples_the_majority_is_shown_and_compared(tmp_path: Path) -> None:
    problems = [chain.problem("test") for chain in CHAINS]
    runs = {}
    for kind, wrong in ((AS_IS, 2), ("answers", 1)):  # of three samples, so many are wrong

        def solve(pending: list[tuple[Problem, int]], wrong: int = wrong) -> Iterator[Trace]:
            for problem, k in pending:
                said = "-1" if k < wrong else problem.answer
                yield Trace(problem.id, k, "iterative", (), said, said, "finished", None, True, 1, 1.0, "1")

        evaluate(problems, solve, tmp_path / kind, {"solver": "socratic"}, samples=3)
        runs[kind] = load_run(tmp_path / kind)
    as_is, answers = effects(runs, {chain.problem_id: chain for chain in CHAINS})
    assert (as_is.right, answers.right) == (0.0, 1.0)
    assert answers.pair is not None
    assert answers.pair.difference == 1.0


def test_a_fault_behind_gold_leaves_no_question_without_its_answer() -> None:
    chain, seen = CHAINS[0], list[str]()

    def silent(chain: Chain, transcript: str, kind: SlotKind) -> str:
        seen.append(transcript)
        return chain.answer if kind == "final" else ""

    solving = Solving(SolveSettings.parse({}), planted(asks_gold), planted(silent))
    [trace] = solving.with_intervention(intervene("history", [chain])).run([(chain.problem("test"), 0)])
    assert trace.stop_reason == "finished"
    assert [step.answer for step in trace.steps] == [""] * len(chain.steps)
    final = seen[-1]
    assert final.count("\nQ:") == final.count("\nA:") + 1  # the last is QG's stop


def test_a_student_that_obeys_questions_loses_what_they_tell(tmp_path: Path) -> None:
    runs = run_all(asks_gold, obeys_questions, tmp_path)
    found = {effect.name: effect for effect in effects(runs, {chain.problem_id: chain for chain in CHAINS})}
    assert found["questions"].right == found["history"].right == 1.0
    assert found["foreign"].right == found["generic"].right == 0.0
    assert found["shuffle"].right < 0.7
    for kind in REPLACEMENTS:
        assert found[kind].against == "questions"
        assert (found[kind].steps or 0) < 0.6
    table = effects_table(list(found.values()))
    assert [str(cell) for cell in table.columns[0].cells] == [AS_IS, *SWAPS, *REPLACEMENTS]


def test_whose_error_it_was(tmp_path: Path) -> None:
    def asks_too_little(chain: Chain, transcript: str, kind: SlotKind) -> str:
        return asks_gold(chain, transcript, kind) if transcript.count("\nQ:") < len(chain.steps) else ""

    found = {
        e.name: e
        for e in effects(run_all(asks_too_little, obeys_questions, tmp_path), {c.problem_id: c for c in CHAINS})
    }
    assert found[AS_IS].right == 0.0
    assert found["questions"].right == 1.0  # gold questions mend a QG that stops early
    assert found["answers"].right == 0.0  # gold answers do not
    assert found["history"].right == 1.0


def test_gold_answers_mend_a_qa_that_fails(tmp_path: Path) -> None:
    def fails(chain: Chain, transcript: str, kind: SlotKind) -> str:
        return last_value(transcript) if kind == "final" else "That is 0."

    found = {e.name: e for e in effects(run_all(asks_gold, fails, tmp_path), {c.problem_id: c for c in CHAINS})}
    assert found[AS_IS].right == found["questions"].right == found["history"].right == 0.0
    assert found["answers"].right == 1.0


@pytest.mark.parametrize("kind", ["questions", "history"])
def test_what_is_given_reads_as_in_training(kind: str) -> None:
    seen: list[tuple[str, str]] = []

    def watching(script: Script) -> Script:
        def say(chain: Chain, transcript: str, kind: SlotKind) -> str:
            seen.append((chain.problem_id, transcript))
            return script(chain, transcript, kind)

        return say

    wrong_then_right = iter(range(10_000))

    def errs(chain: Chain, transcript: str, kind: SlotKind) -> str:
        return ignores_questions(chain, transcript, kind) if next(wrong_then_right) % 2 else "That is 7."

    qa = watching(errs if kind == "history" else ignores_questions)
    solving = Solving(SolveSettings.parse({}), planted(watching(asks_gold)), planted(qa))
    solving = solving.with_intervention(intervene(kind, CHAINS))
    traces = list(solving.run((chain.problem("test"), 0) for chain in CHAINS))
    assert len(traces) == len(CHAINS)
    texts = {c.problem_id: CODEC.decode(causal_example(c, "unified", CODEC).ids) for c in CHAINS}
    for id, transcript in seen:
        if "\n####" not in transcript:
            assert texts[id].startswith(transcript)
    assert {len(t.steps) for t in traces} == {len(c.steps) for c in CHAINS}


def test_questions_are_changed_as_named() -> None:
    gold = {chain.problem_id: tuple(step.question for step in chain.steps) for chain in CHAINS}
    shuffled = intervene("shuffle", CHAINS).given
    for id, asked in gold.items():
        assert sorted(shuffled[id].questions or ()) == sorted(asked)
        assert shuffled[id].questions != asked
    foreign = intervene("foreign", CHAINS).given
    for id, asked in gold.items():
        assert foreign[id].questions in [other for other_id, other in gold.items() if other_id != id]
        assert len(foreign[id].questions or ()) == len(asked)
    assert intervene("generic", CHAINS[:1]).given[CHAINS[0].problem_id].questions == (GENERIC_QUESTION,) * len(
        CHAINS[0].steps
    )
    assert intervene("shuffle", CHAINS, seed=1).record() != intervene("shuffle", CHAINS).record()


def test_what_cannot_be_done_is_said() -> None:
    with pytest.raises(UserError, match="only one; choose more problems"):
        intervene("foreign", CHAINS[:1])
    bare = Chain("p", "d", "Q?", "1", "number", (Step("", "It is 1."),))
    with pytest.raises(UserError, match="gold sub-questions, which p has not"):
        intervene("questions", [bare])
    with pytest.raises(UserError, match="unknown intervention 'other'"):
        intervene("other", CHAINS)
    solving = Solving(SolveSettings.parse({"solver": "cot"}), lm=planted(asks_gold))
    with pytest.raises(UserError, match="solver 'cot' asks no sub-questions"):
        solving.with_intervention(intervene("generic", CHAINS))
