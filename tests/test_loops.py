from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from tiny import (
    CHAINS,
    FAMILIES,
    SOLVERS,
    Recorded,
    Replay,
    byte_tokenizer,
    causal_model,
    narrow,
    problems,
    said,
    solved,
)

import socratic
from socratic.lm.base import Request
from socratic.lm.engine import EngineLM
from socratic.lm.scripted import ScriptedLM
from socratic.prompts import TRANSCRIPT_VERSION, SlotKind
from socratic.solving import Event, SolveSettings, Solving, solve, stream
from socratic.store import as_record
from socratic.tokens import Codec
from socratic.types import Problem, QGSees, Solver, Trace, UserError

PROBLEM = Problem("p", "tiny", "test", "How many?", "7")
SHORT: dict[str, Any] = {"max_tokens": 20, "max_rationale_tokens": 30, "max_steps": 3, "calculator": False}


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec(byte_tokenizer("qwen2"))


def speaker(codec: Codec, seed: int = 0) -> Recorded:
    """A random model confined to a few letters, so that slots end."""
    return Recorded(narrow(causal_model("qwen2", codec.tokenizer, seed), codec), codec, f"speaker{seed}")


def counting(steps: int) -> Callable[[str, SlotKind], str]:
    """A script that asks q1, q2, …, answers a1, a2, …, and stops."""

    def script(transcript: str, kind: SlotKind) -> str:
        if kind == "final":
            return "7"
        asked = transcript.count("\nQ:")
        return f"a{asked}" if kind == "answer" else "" if asked > steps else f"q{asked}"

    return script


def students(codec: Codec, solver: Solver, seed: int = 0) -> dict[str, Any]:
    return (
        {"qg": speaker(codec, seed), "qa": speaker(codec, seed + 1)} if solver == "socratic" else {"lm": speaker(codec)}
    )


# ---- Who sees what


def replayed(codec: Codec, sees: QGSees) -> tuple[str, str]:
    """What QG's and QA's sessions hold in the end."""
    chain = CHAINS[0]
    qg = Replay(codec, [said(chain, "qg", qg_sees=sees)], sees)
    qa = Replay(codec, [said(chain, "qa")])
    solved([chain.problem()], qg=qg, qa=qa)
    return codec.decode(qg.kept[0].ids), codec.decode(qa.kept[0].ids)


def test_qg_reads_the_answers_unless_it_was_trained_on_questions(codec: Codec) -> None:
    asks, answers = replayed(codec, "answers")
    assert "<<48/2=24>>" in asks
    assert "####" not in asks
    asks, answers = replayed(codec, "questions")
    assert "\nA:" not in asks
    assert "24" not in asks
    assert asks.count("\nQ:") == 3
    assert "<<48/2=24>>" in answers


class Watching(ScriptedLM):
    """Keeps the transcript as it stood when each slot was asked for."""

    def __init__(self, codec: Codec, script: Callable[[str, SlotKind], str], **more: Any) -> None:
        self.seen: list[tuple[SlotKind, str]] = []

        def watched(transcript: str, kind: SlotKind) -> str:
            self.seen.append((kind, transcript))
            return script(transcript, kind)

        super().__init__(codec, watched, **more)


@pytest.mark.parametrize("sees", ["answers", "questions"])
def test_qa_never_sees_later_questions(codec: Codec, sees: QGSees) -> None:
    qg, qa = Watching(codec, counting(3)), Watching(codec, counting(3))
    solved([PROBLEM], qg=qg, qa=qa, qg_sees=sees)
    assert [kind for kind, _ in qa.seen] == ["answer"] * 3 + ["final"]
    for n, (_, transcript) in enumerate(qa.seen[:3], start=1):
        assert f"q{n}" in transcript
        assert f"q{n + 1}" not in transcript
        assert f"a{n - 1}" in transcript or n == 1
    assert [kind for kind, _ in qg.seen] == ["question"] * 4
    for n, (_, transcript) in enumerate(qg.seen):
        assert (f"a{n}" in transcript) == (sees == "answers" and n > 0)


def test_one_student_in_both_roles_of_a_plan_still_plans_without_answers(codec: Codec) -> None:
    lm = Watching(codec, counting(2))
    trace = solved([PROBLEM], qg=lm, qa=lm, qg_sees="questions")[0]
    assert [s.answer for s in trace.steps] == ["a1", "a2"]
    assert not any("\nA:" in transcript for kind, transcript in lm.seen if kind == "question")


def test_the_plan_is_qgs_own_habit_unless_it_is_overruled(codec: Codec) -> None:
    planner = ScriptedLM(codec, counting(2), qg_sees="questions")
    asker = ScriptedLM(codec, counting(2))
    assert solved([PROBLEM], qg=planner, qa=asker)[0].solver == "plan"
    assert solved([PROBLEM], qg=asker, qa=planner)[0].solver == "iterative"
    assert solved([PROBLEM], qg=planner, qa=asker, qg_sees="answers")[0].solver == "iterative"


# ---- Traces


def test_a_trace(codec: Codec) -> None:
    trace = solved([PROBLEM], "unified", lm=ScriptedLM(codec, counting(2)))[0]
    assert (trace.problem_id, trace.sample, trace.solver) == ("p", 0, "unified")
    assert trace.raw == "q1\na1\nq2\na2\n#### 7"
    assert (trace.calculator, trace.version, trace.error) == (True, TRANSCRIPT_VERSION, None)
    assert trace.tokens == sum(len(codec.slot(text)) for text in (" q1", " a1", " q2", " a2", "", " 7"))
    assert as_record("trace", trace.to_json(), Trace) == trace


@pytest.mark.parametrize("solver", SOLVERS)
def test_solvers_are_named_in_their_traces(codec: Codec, solver: Solver) -> None:
    models = {"qg": "x", "qa": "x"} if solver == "socratic" else {"lm": "x"}
    lms = {role: ScriptedLM(codec, counting(1)) for role in models}
    trace = solved([PROBLEM], solver, **lms)[0]
    assert trace.solver == ("iterative" if solver == "socratic" else solver)
    assert trace.answer == "7"
    if solver == "cot":
        assert [s.question for s in trace.steps] == [""]


def test_answers_are_stored_stripped_and_read_unstripped(codec: Codec) -> None:
    class Spaced(ScriptedLM):
        def step(self, tokens: int) -> list[Request]:
            ended, self._queue = self._queue, []
            for request in ended:
                session: Any = request.session
                from socratic.lm.base import Decoding

                decoding = Decoding(request, session)
                for token in [*codec.text(self.script(codec.decode(session.ids), request.kind)), codec.end_id]:
                    decoding.push(token)
            return ended

    asks = iter(["  what\n", ""])
    qg = Spaced(codec, lambda transcript, kind: next(asks))
    qa = Watching(codec, counting(1))
    trace = solved([PROBLEM], qg=qg, qa=qa)[0]
    assert trace.steps[0].question == "what"
    assert f"\nQ:  what\n{codec.end_text}\nA:" in qa.seen[0][1]


@pytest.mark.parametrize("solver", SOLVERS)
def test_seconds_add_up_to_the_wall_time(codec: Codec, solver: Solver) -> None:
    import time

    asked = problems(9)
    models = students(codec, solver)
    started = time.perf_counter()
    traces = list(solve(asked, solver, **models, batch_size=4, **SHORT))
    wall = time.perf_counter() - started
    assert all(t.seconds >= 0 for t in traces)
    assert 0 < sum(t.seconds for t in traces) <= wall + 0.0001 * len(traces)


@pytest.mark.parametrize("solver", ["socratic", "unified", "cot"])
def test_tokens_are_those_the_students_decoded(codec: Codec, solver: Solver) -> None:
    models = students(codec, solver)
    counted: Counter[int] = Counter()
    for lm in models.values():
        step = lm.step

        def counting_step(tokens: int, step: Any = step) -> list[Request]:
            ended: list[Request] = step(tokens)
            counted.update({0: sum(r.completion.tokens for r in ended if r.completion)})
            return ended

        lm.__dict__["step"] = counting_step
    traces = solved(problems(9), solver, **models, **SHORT)
    assert sum(t.tokens for t in traces) == counted[0] > 0


# ---- Many at once


def test_traces_come_in_order_of_completion(codec: Codec) -> None:
    """A problem that is solved at once does not wait for the slow one that was begun before it."""

    def script(transcript: str, kind: SlotKind) -> str:
        return counting(9 if "slow" in transcript else 1)(transcript, kind)

    asked = [Problem("slow", "t", "test", "slow", "7")] + [Problem(f"p{i}", "t", "test", "P", "7") for i in range(6)]
    order = [t.problem_id for t in solve(asked, "unified", lm=ScriptedLM(codec, script), batch_size=3)]
    assert sorted(order) == sorted(p.id for p in asked)
    assert order[0] == "p0"
    assert order.index("slow") > 2


def test_problems_are_taken_as_they_are_needed(codec: Codec) -> None:
    taken = []

    def endless() -> Any:
        n = 0
        while True:
            taken.append(n)
            yield Problem(f"p{n}", "t", "test", "P", "7")
            n += 1

    traces = solve(endless(), "answer", lm=ScriptedLM(codec, counting(0)), batch_size=4)
    for _ in range(3):
        next(traces)
    assert len(taken) <= 8


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_that_is_left_leaves_its_models_usable(family: str) -> None:
    codec = Codec(byte_tokenizer(family))
    lm = EngineLM(causal_model(family, codec.tokenizer), codec, family, pages=600)
    how: dict[str, Any] = {"lm": lm, "max_tokens": 12, "max_steps": 2}
    whole = sorted(t.raw for t in solve(problems(6), "unified", **how))
    left = solve(problems(6), "unified", batch_size=4, **how)
    next(left)
    with pytest.raises(UserError, match=f"{family} is solving for another call; let that one end, or close it"):
        next(solve(problems(6), "unified", **how))
    left.close()  # type: ignore[attr-defined]
    assert sorted(t.raw for t in solve(problems(6), "unified", **how)) == whole
    piece = stream(problems(1)[0], "unified", **how)
    next(piece)
    piece.close()  # type: ignore[attr-defined]
    assert sorted(t.raw for t in solve(problems(6), "unified", **how)) == whole
    assert len(lm.pages.free) == 600


@pytest.mark.parametrize("size", [0, -1, 1.5, True])
def test_a_batch_of_nothing_is_refused(codec: Codec, size: Any) -> None:
    lm = ScriptedLM(codec, counting(0))
    with pytest.raises(UserError, match=f"batch_size must be a whole number of at least 1, not {size}"):
        list(solve(problems(2), "answer", lm=lm, batch_size=size))


@pytest.mark.parametrize("samples", [0, -1, 1.5])
def test_a_number_of_samples_that_is_none_is_refused(codec: Codec, samples: Any) -> None:
    with pytest.raises(UserError, match=f"samples must be a whole number of at least 1, not {samples}"):
        solve(problems(2), "answer", lm=ScriptedLM(codec, counting(0)), samples=samples)


def test_no_problems_no_traces(codec: Codec) -> None:
    assert list(solve([], "answer", lm=ScriptedLM(codec, counting(0)))) == []


def test_samples(codec: Codec) -> None:
    traces = list(solve(problems(3), "unified", lm=speaker(codec), samples=4, temperature=1.0, **SHORT))
    assert sorted((t.problem_id, t.sample) for t in traces) == [(f"p{i}", k) for i in range(3) for k in range(4)]
    assert len({t.raw for t in traces}) > 3
    greedy = solved(problems(3), "unified", lm=speaker(codec), samples=2, **SHORT)
    assert [t.raw for t in greedy[::2]] == [t.raw for t in greedy[1::2]]


# ---- One, piece by piece


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("solver", SOLVERS)
def test_stream_and_solve_agree(codec: Codec, solver: Solver, temperature: float) -> None:
    for problem in problems(4):
        how = {"temperature": temperature, "seed": 3, **SHORT}
        events = list(stream(problem, solver, **students(codec, solver), **how))
        trace = solved([problem], solver, **students(codec, solver), **how)[0]
        streamed = events[-1].trace
        assert streamed is not None
        for field in ("steps", "raw", "answer", "stop_reason", "tokens", "solver"):
            assert getattr(streamed, field) == getattr(trace, field)


def slots(events: list[Event]) -> list[tuple[str, str, str | None]]:
    """The slots that the events make up: kind, text, fault."""
    made, text = [], ""
    for event in events:
        text += event.text
        if event.done:
            made.append((str(event.kind), text, event.fault))
            text = ""
    assert not text
    return made


@pytest.mark.parametrize("family", FAMILIES)
def test_events_concatenate_to_the_slots(family: str) -> None:
    """Also where a model writes half characters."""
    codec = Codec(byte_tokenizer(family))
    lm = Recorded(causal_model(family, codec.tokenizer), codec, family)
    pieces = 0
    for problem in problems(8):
        events = list(stream(problem, "unified", lm=lm, **SHORT))
        trace = events[-1].trace
        assert trace is not None
        assert [e.kind for e in events].count("trace") == 1
        made = slots(events[:-1])
        texts = [text.strip() for kind, text, fault in made if fault is None and kind != "final"]
        told = [text for step in trace.steps for text in (step.question, step.answer)]
        assert texts[: len(told)] == told
        assert made[-1][0] == "final"
        assert trace.answer == (made[-1][1].strip() or None if made[-1][2] is None else None)
        pieces += len(events)
    assert pieces > 8 * 6, "text must come in pieces"


def test_events_of_a_script(codec: Codec) -> None:
    events = list(stream(PROBLEM, qg=ScriptedLM(codec, counting(1)), qa=ScriptedLM(codec, counting(1))))
    assert slots(events) == [
        ("question", " q1", None),
        ("answer", " a1", None),
        ("question", "", None),
        ("final", " 7", None),
    ]
    assert events[-1] == Event("trace", trace=events[-1].trace)


# ---- The user's mistakes


@pytest.mark.parametrize("solver", SOLVERS)
def test_models_that_do_not_fit_the_solver_are_refused(codec: Codec, solver: Solver) -> None:
    lm = ScriptedLM(codec, counting(1))
    wanted = {"qg", "qa"} if solver == "socratic" else {"lm"}
    for given in ({"qg"}, {"qa"}, {"lm"}, {"qg", "qa"}, {"qg", "qa", "lm"}, {"qa", "lm"}, set[str]()):
        if given == wanted:
            continue
        for function in (
            lambda **models: list(solve([PROBLEM], solver, **models)),
            lambda **m: stream(PROBLEM, solver, **m),
        ):
            with pytest.raises(UserError, match=f"solver '{solver}' needs"):
                function(**dict.fromkeys(given, lm))


def test_models_are_checked_before_a_problem_is_read() -> None:
    with pytest.raises(UserError):
        solve([PROBLEM], "cot")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_step": 3}, "unknown setting 'max_step'; did you mean 'max_steps'"),
        ({"max_steps": 0}, "max_steps=0"),
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"solver": "plan"}, "solver='plan'"),
        ({"qg_sees": "all"}, "qg_sees='all'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(codec: Codec, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        solve([PROBLEM], **{"solver": "cot", "lm": ScriptedLM(codec, counting(1)), **settings})


@pytest.mark.parametrize("solver", ["tied", "unified", "cot", "answer"])
def test_a_plan_needs_two_students(codec: Codec, solver: Solver) -> None:
    with pytest.raises(UserError, match=f"qg_sees='questions' is for solver 'socratic', not '{solver}'"):
        solve([PROBLEM], solver, lm=ScriptedLM(codec, counting(1)), qg_sees="questions")


def test_a_calculator_that_a_model_cannot_stop_for_is_refused(codec: Codec, inexact: Codec) -> None:
    able, unable = ScriptedLM(codec, counting(1)), ScriptedLM(inexact, lambda t, k: "7", name="old-t5")
    with pytest.raises(UserError, match="calculator cannot interrupt old-t5"):
        solve([PROBLEM], qg=able, qa=unable, calculator=True)
    assert Solving(SolveSettings.parse({}), able, unable).calculator is False
    assert Solving(SolveSettings.parse({}), able, able).calculator is True
    able.calculator_default = False
    assert Solving(SolveSettings.parse({}), able, able).calculator is False
    assert Solving(SolveSettings.parse({"calculator": True}), able, able).calculator is True


def test_what_decides_a_trace_is_on_record(codec: Codec) -> None:
    lm = ScriptedLM(codec, counting(1), name="script")
    record = Solving(SolveSettings.parse({"solver": "cot", "seed": 4}), lm=lm).record()
    assert record["seed"] == 4
    assert record["transcript"] == TRANSCRIPT_VERSION
    assert record["calculator"] is True
    assert record["models"] == {"lm": {"name": "script", "sha256": None, "dtype": "", "parameters": None}}
    assert set(SolveSettings.model_fields) <= set(record)


def test_the_public_names() -> None:
    assert socratic.solve is solve
    assert socratic.stream is stream
