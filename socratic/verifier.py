"""A verifier reads solutions, many at once, and says how likely each is right: behind every step, and as a whole.

Source: Cobbe et al. (2021), "Training verifiers to solve math word problems", section 4.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from math import exp, expm1

from socratic.calculator import canonicalise
from socratic.lm.base import LM, LocalLM, Request
from socratic.prompts import learned_text, render_problem, solution_slots, takes_verdict
from socratic.types import Judgement, Problem, Trace, UserError


def checked_verifier(lm: LM) -> LocalLM:
    """``lm``; raises `UserError` where it was not trained as a verifier."""
    if lm.role != "verifier" or not isinstance(lm, LocalLM):
        known = f"was trained as {lm.role!r}" if lm.role else "was not trained here"
        raise UserError(f"{lm.name} {known} and is no verifier; give a student that `socratic train verifier` wrote")
    return lm


def verifier_name(lm: LM) -> str:
    """What judgements call a verifier: the hash of its weights, and its number format, which changes what it says."""
    return f"{lm.fingerprint} {lm.dtype}"


def judge(solutions: Iterable[tuple[Problem, Trace]], lm: LocalLM, batch_size: int = 64) -> Iterator[Judgement]:
    """What the verifier ``lm`` says of each solution, in order of completion, ``batch_size`` of them under way."""
    waiting = iter(solutions)
    under_way: dict[Request, Generator[Request, None, Judgement]] = {}
    try:
        while True:
            started = [_reading(*one, lm) for one in islice(waiting, batch_size - len(under_way))]
            if not started and not under_way:
                return
            ended = [under_way.pop(request) for request in lm.step(1)]
            for reading in (*started, *ended):
                try:
                    request = next(reading)
                except StopIteration as done:
                    yield done.value
                else:
                    lm.submit(request)
                    under_way[request] = reading
    finally:
        lm.cancel(under_way)


def _reading(problem: Problem, trace: Trace, lm: LocalLM) -> Generator[Request, None, Judgement]:
    """Writes a solution into a session as the verifier was trained on it; yields a request for each verdict."""
    words = lm.codec.verdict(True), lm.codec.verdict(False)
    session, found, read = lm.session(), list[float](), 0
    session.write_problem(render_problem(problem))
    for slot in solution_slots(trace.steps, trace.answer) if trace.answer is not None else ():
        session.write_marker(slot.kind)
        session.write_slot(learned_text(canonicalise(slot.text)))
        if takes_verdict(slot):
            mark = session.mark()
            request = Request(lm, session, slot.kind, 1, False, 1.0, random.Random(0), among=words)
            yield request
            session.crop(mark)
            if request.completion is None or request.logprob is None:  # no position was left
                found.clear()
                break
            said_right = request.completion.text == lm.codec.decode(words[:1])
            found.append(exp(request.logprob) if said_right else -expm1(request.logprob))
            read = mark
    return Judgement(trace.problem_id, trace.sample, verifier_name(lm), tuple(found), read)
