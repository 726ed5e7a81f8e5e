"""Answers that are chosen, not written: of a problem's choices the one whose words a model finds likeliest.

This measures what a model knows whether or not it was trained here: it reads plain text, ``Question: …``, ``Answer:``,
without the transcript's markers and without a list of the choices, and writes nothing. (Brown et al. 2020, "Language
models are few-shot learners", section 2.4, compare completions so.)
"""

from __future__ import annotations

import string
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice

from socratic.lm.base import LM
from socratic.prompts import PLAIN, TRANSCRIPT_VERSION, render_raw
from socratic.types import Problem, Trace, UserError


def offered(problem: Problem) -> dict[str, str]:
    """The answers that a problem may have, and the words of each; raises `UserError` for one that offers none."""
    if problem.answer_type == "yesno":
        return {"yes": "yes", "no": "no"}
    if problem.answer_type == "choice" and problem.choices:
        return dict(zip(string.ascii_uppercase, problem.choices, strict=False))
    raise UserError(
        f"problem {problem.id} offers no choices ({problem.answer_type}); solver 'likelihood' is for problems that do, "
        "and for yes or no"
    )


def likeliest(jobs: Iterable[tuple[Problem, int]], lm: LM, batch_size: int) -> Iterator[Trace]:
    """A trace of each job (problem, sample), in order; the choices of ``batch_size`` problems are read together.

    Log probabilities are divided by the number of characters, as lm-evaluation-harness does for ``acc_norm``: longer
    choices are not less likely for their length, and models with different tokens are measured alike. Yes and no are
    taken as they are, since a letter more would always favour one of them. A problem of which any choice is longer than
    the model reads ends as overlong. Raises `UserError` as `offered`.
    """
    waiting = iter(jobs)
    while batch := list(islice(waiting, batch_size)):
        started = time.perf_counter()
        choices = [offered(problem) for problem, _ in batch]
        asked = [PLAIN.problem(replace(problem, choices=None)) for problem, _ in batch]
        texts = [(given, words) for given, own in zip(asked, choices, strict=True) for words in own.values()]
        found = iter(lm.logprobs(texts))
        likely = [{answer: next(found) for answer in own} for own in choices]
        seconds = round((time.perf_counter() - started) / len(batch), 4)
        for (problem, sample), own, logprobs in zip(batch, choices, likely, strict=True):
            answer = _best(own, logprobs, problem.answer_type == "yesno")
            yield Trace(
                problem_id=problem.id,
                sample=sample,
                solver="likelihood",
                steps=(),
                raw=render_raw([], answer),
                answer=answer,
                stop_reason="overlong" if answer is None else "finished",
                error=None,
                calculator=False,
                tokens=0,
                seconds=seconds,
                version=TRANSCRIPT_VERSION,
            )


def _best(words: dict[str, str], logprobs: dict[str, float | None], as_they_are: bool) -> str | None:
    """The likeliest answer, of equal ones the first; None where one was not read."""
    known = {answer: logprob for answer, logprob in logprobs.items() if logprob is not None}
    if len(known) < len(words):
        return None
    return max(known, key=lambda answer: known[answer] / (1 if as_they_are else len(words[answer].strip())))
