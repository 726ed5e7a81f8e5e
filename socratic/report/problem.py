"""One problem of a run, and stop reasons in words."""

from __future__ import annotations

from socratic.config import nearest
from socratic.evaluate import Run
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


def find_problem(run: Run, problem_id: str) -> tuple[Problem, list[tuple[Trace, Score | None]]]:
    """A problem, and its traces by sample with their scores; raises `UserError` that names the nearest known id."""
    problem = next((p for p in run.problems if p.id == problem_id), None)
    if problem is None:
        near = nearest(problem_id, [p.id for p in run.problems])
        raise UserError(f"no problem {problem_id!r} in {run.path}; did you mean {near!r}?")
    scores = {s.sample: s for s in run.scores if s.problem_id == problem_id}
    traces = sorted((t for t in run.traces if t.problem_id == problem_id), key=lambda t: t.sample)
    return problem, [(trace, scores.get(trace.sample)) for trace in traces]
