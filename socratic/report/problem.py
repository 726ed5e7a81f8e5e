"""One problem of a run in full, as text."""

from __future__ import annotations

from socratic.config import nearest
from socratic.evaluate import Run
from socratic.report import visible
from socratic.types import Problem, Score, StopReason, Trace, UserError

STOPPED: dict[StopReason, str] = {
    "finished": "finished",
    "max_steps": "stopped after as many steps as are allowed (max_steps)",
    "repeated_step": "stopped at a step that was there before (repeated_step)",
    "empty_output": "stopped at an empty text (empty_output)",
    "overlong": "stopped at a text that did not end in time (overlong)",
    "invalid_output": "stopped at a text with a special token in it (invalid_output)",
    "model_error": "stopped since a model failed (model_error)",
}
"""Stop reasons in words."""


def show_problem(run: Run, problem_id: str) -> str:
    """One problem in full as safe plain text: question, gold, each sample's steps, answer, stop reason and score."""
    problem, traces = find_problem(run, problem_id)
    parts = [_problem_text(problem), *(_trace_text(trace, score) for trace, score in traces)]
    if not traces:
        parts.append("not solved yet")
    return visible("\n\n".join(parts) + "\n")


def find_problem(run: Run, problem_id: str) -> tuple[Problem, list[tuple[Trace, Score | None]]]:
    """A problem, and its traces by sample with their scores; raises `UserError` that names the nearest known id."""
    problem = next((p for p in run.problems if p.id == problem_id), None)
    if problem is None:
        near = nearest(problem_id, [p.id for p in run.problems])
        raise UserError(f"no problem {problem_id!r} in {run.path}; did you mean {near!r}?")
    scores = {s.sample: s for s in run.scores if s.problem_id == problem_id}
    traces = sorted((t for t in run.traces if t.problem_id == problem_id), key=lambda t: t.sample)
    return problem, [(trace, scores.get(trace.sample)) for trace in traces]


def _problem_text(problem: Problem) -> str:
    lines = [f"Problem {problem.id} ({problem.dataset}, {problem.split})"]
    if problem.context:
        lines.append(_field("Context", problem.context))
    lines.append(_field("Question", problem.question))
    lines += [_field(f"({chr(ord('A') + i)})", choice) for i, choice in enumerate(problem.choices or ())]
    lines.append(_field("Gold", problem.answer))
    return "\n".join(lines)


def _trace_text(trace: Trace, score: Score | None) -> str:
    calculator = "on" if trace.calculator else "off"
    lines = [
        f"Sample {trace.sample}: {trace.solver}, calculator {calculator}, {STOPPED[trace.stop_reason]}, "
        f"{trace.tokens} tokens, {trace.seconds:.2f} s"
    ]
    for number, step in enumerate(trace.steps, start=1):
        if step.question:
            lines.append(_field(f"Q{number}", step.question))
        lines.append(_field(f"A{number}", step.answer))
    lines.append(_field("Answer", "none" if trace.answer is None else trace.answer))
    if trace.error:
        lines.append(_field("Error", trace.error))
    if score is None:
        lines.append("  Score: not scored yet")
    else:
        right, strict = "right" if score.correct else "wrong", "right" if score.strict else "wrong"
        lines.append(_field("Score", f"{right}, strict {strict}, read {score.predicted}, reason {score.reason}"))
    return "\n".join(lines)


def _field(label: str, text: str) -> str:
    """A labelled text, further lines indented so that no text can pass for another field."""
    return f"  {label}: " + text.replace("\n", "\n      ")
