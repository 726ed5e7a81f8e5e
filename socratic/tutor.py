"""Solving by hand: one problem, a tree of steps, and a path through it that QG and QA read as their transcript.

What the students have read stays in their caches: going back crops them, going on appends. A learner may take either
student's place, which is what the method was named after.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from math import exp
from typing import Literal

from socratic.evaluate import score_trace
from socratic.lm.base import LM, Request, Session
from socratic.loops import normalised, open_sessions
from socratic.prompts import TRANSCRIPT_VERSION, SlotKind, learned_text, render_raw
from socratic.solving import Solving, decode
from socratic.types import Chain, Completion, Problem, Score, Step, StopReason, Trace, UserError

Writer = Literal["student", "person"]

_NEARLY_GREEDY = 1e-6
"""A temperature at which the likeliest is drawn, and its probability kept, as for any draw."""


@dataclass(eq=False)
class Node:
    """A step in the tree, and who wrote its question and its answer."""

    step: Step
    parent: Node | None = None
    asked_by: Writer = "student"
    answered_by: Writer = "student"
    children: list[Node] = field(default_factory=list)

    def path(self) -> list[Node]:
        """The nodes from the first step to this one; the root is none of them."""
        found: list[Node] = []
        node = self
        while node.parent:
            found.append(node)
            node = node.parent
        return found[::-1]

    def walk(self) -> Iterator[Node]:
        """This node and all below it, each before those behind it."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += reversed(node.children)


class Tutor:
    """One problem with its students; ``here`` is where the next step goes, ``gold`` the data set's own way if known.

    The solver must ask sub-questions. Raises `UserError` for one that does not.
    """

    def __init__(self, problem: Problem, solving: Solving, gold: Chain | None = None) -> None:
        pair = solving.pair
        if pair is None:
            raise UserError(f"solver {solving.settings.solver!r} asks no sub-questions; give --qg and --qa, or tied")
        if solving.guidance != "none":
            raise UserError(f"{pair[0].name} reads a plan, which the tutor does not make; give a QG without guidance")
        self.problem, self.solving, self.gold = problem, solving, gold
        self.root = self.here = Node(Step("", ""))
        self.question: str | None = None
        self.asked_by: Writer = "student"
        self.final_answer: str | None = None
        self.concluded = False
        self.fault: StopReason | None = None
        self.stop_reason: StopReason = "finished"
        self.tokens = 0
        self._qg, self._qa = pair
        self._draws = 0
        self._written: list[Node] = []
        self._marks: list[tuple[int, int]] = []
        self._open()

    @property
    def steps(self) -> list[Step]:
        """The steps so far."""
        return [node.step for node in self.here.path()]

    def ask(self, temperature: float = 0.0) -> Iterator[str]:
        """QG writes the next sub-question, piece by piece; ``question`` is then that, ``""`` where QG stops.

        It is None where what was written is not usable, which ``fault`` then names, and where the caller breaks off.
        """
        self._leave()
        self._ask.write_marker("question")
        completion = yield from self._decode(self._qg, self._ask, "question", temperature)
        if self.fault is None and completion.text and not completion.text.strip():
            self.fault = "empty_output"
        if self.fault is None:
            self.question, self.asked_by = completion.text, "student"

    def put(self, question: str, by: Writer = "person") -> None:
        """Take a sub-question as the next one."""
        self._leave()
        self._ask.write_marker("question")
        self.question, self.asked_by = learned_text(question), by
        self._ask.write_slot(self.question)

    def answer(self, temperature: float = 0.0) -> Iterator[str]:
        """QA answers the question, piece by piece; the step joins the tree.

        Where the answer is not usable, ``fault`` names why, and the question waits again; also where the caller breaks
        off.
        """
        question, by, before = self.question, self.asked_by, self.here
        self._begin_answer(self._reply)
        try:
            completion = yield from self._decode(self._qa, self._reply, "answer", temperature)
            if self.fault is None and not completion.text.strip():
                self.fault = "empty_output"
            if self.fault is None:
                self._join(completion.text, "student")
        finally:
            if self.here is before:
                self.put(question or "", by)

    def put_answer(self, answer: str, by: Writer = "person") -> None:
        """Take an answer to the question; the step joins the tree."""
        self._begin_answer(self._reply)
        self._reply.write_slot(learned_text(answer))
        self._join(learned_text(answer), by)

    def peek(self) -> str:
        """What QA would answer to the question that waits, ``""`` where that is not usable; the tree stays as it is."""
        session = self._reply.fork()
        self._begin_answer(session)
        request = self.solving.request(self._qa, session, "answer", 0.0, self._rng())
        for _ in decode(request):
            pass
        completion = request.completion
        return "" if completion is None or completion.fault else completion.text.strip()

    def alternatives(self, count: int = 16) -> list[tuple[str, float]]:
        """Sub-questions that QG might ask here, likeliest first, each with the probability of its very words.

        They are QG's own greedy one and what ``count`` samples at temperature 1 came to; ``""`` is QG's stop. Of a
        model that gives no probabilities it is the share of all these.
        """
        requests = []
        for temperature in (_NEARLY_GREEDY, *[1.0] * count):
            session = self._ask.fork()
            session.crop(self._marks[-1][0])
            session.write_marker("question")
            request = self.solving.request(self._qg, session, "question", temperature, self._rng())
            self._qg.submit(request)
            requests.append(request)
        try:
            while self._qg.waiting:
                self._qg.step(8)
        finally:
            self._qg.cancel(requests)
        found: dict[str, float] = {}
        for request in requests:
            done = request.completion
            if done is not None and done.fault is None:
                text = done.text.strip()
                share = found.get(text, 0.0) + 1 / len(requests)
                found[text] = share if request.logprob is None else exp(request.logprob)
        return sorted(found.items(), key=lambda pair: -pair[1])

    def conclude(self, stop_reason: StopReason = "finished") -> Iterator[str]:
        """QA writes the final answer, piece by piece; ``final_answer`` is then that, unless a ``fault`` is named.

        ``stop_reason`` says why there are no more steps; a fault of the final answer takes its place.
        """
        self._leave()
        self.stop_reason = stop_reason
        self._reply.write_marker("question")
        self._reply.write_slot("")
        self._reply.write_marker("final")
        completion = yield from self._decode(self._qa, self._reply, "final", 0.0)
        if completion.fault is None and completion.text.strip():
            self.final_answer = completion.text.strip()
        else:
            self.stop_reason = self.fault = completion.fault or "empty_output"
        self.concluded = True
        self._retreat()

    def go(self, node: Node) -> None:
        """Continue behind another node; what the two paths share stays in the caches."""
        self.here = node
        self._leave()

    def undo(self) -> None:
        """Leave out the last step; it stays in the tree."""
        if self.here.parent is None:
            raise UserError("there is no step to take back")
        self.go(self.here.parent)

    def repeats(self) -> bool:
        """Whether the last step stood in the path before: the loop ends there (`repeated_step`)."""
        *before, last = map(normalised, self.steps)
        return last in before

    def _leave(self) -> None:
        """Leave the question and the final answer, and have both students read exactly the steps up to ``here``."""
        self.final_answer, self.concluded, self.stop_reason = None, False, "finished"
        path = self.here.path()
        same = next((i for i, (a, b) in enumerate(zip(path, self._written, strict=False)) if a is not b), None)
        same = min(len(path), len(self._written)) if same is None else same
        self._written, self._marks = self._written[:same], self._marks[: same + 1]
        self._retreat()
        for node in path[same:]:
            self._ask.write_marker("question")
            self._ask.write_slot(learned_text(node.step.question))
            self.question = learned_text(node.step.question)
            self._begin_answer(self._reply)
            self._reply.write_slot(learned_text(node.step.answer))
            self._close_step(node, learned_text(node.step.answer))

    def score(self) -> Score | None:
        """The final answer against the gold one, where both are there."""
        if self.final_answer is None or not self.problem.answer:
            return None
        return score_trace(self.problem, self.trace())

    def trace(self) -> Trace:
        """The path to ``here`` and the final answer, as a run would record them."""
        steps = self.steps
        slots = [text for step in steps for text in (step.question, step.answer)]
        return Trace(
            problem_id=self.problem.id,
            sample=0,
            solver=self.solving.name,
            steps=tuple(steps),
            raw=render_raw(slots, self.final_answer),
            answer=self.final_answer,
            stop_reason=self.stop_reason,
            error=None,
            calculator=self.solving.calculator,
            tokens=self.tokens,
            seconds=0.0,
            version=TRANSCRIPT_VERSION,
        )

    def _open(self) -> None:
        """Sessions that have read the problem alone."""
        self._ask, self._reply = open_sessions(
            self.problem, self._qg, self._qa, self.solving.qg_sees, self.solving.format(self.problem)
        )
        self._marks, self._written = [self._mark()], []

    def _begin_answer(self, session: Session) -> None:
        """Have ``session``, which is QA's or a fork of it, read the question that waits."""
        if self.question is None or not self.question.strip():
            raise UserError("there is no question to answer; let one be asked first")
        if self._reply is not self._ask:
            session.write_marker("question")
            session.write_slot(self.question)
        session.write_marker("answer")

    def _join(self, answer: str, by: Writer) -> None:
        assert self.question is not None
        node = Node(Step(self.question.strip(), answer.strip()), self.here, self.asked_by, by)
        self.here.children.append(node)
        self.here = node
        self._close_step(node, answer)

    def _close_step(self, node: Node, answer: str) -> None:
        if self._reply is not self._ask and self.solving.qg_sees == "answers":
            self._ask.write_marker("answer")
            self._ask.write_slot(answer)
        self._written.append(node)
        self._marks.append(self._mark())
        self.question = None

    def _retreat(self) -> None:
        """Crop both sessions to the last step that is written."""
        self.question = None
        for session, mark in zip((self._ask, self._reply), self._marks[-1], strict=True):
            session.crop(mark)

    def _mark(self) -> tuple[int, int]:
        return self._ask.mark(), self._reply.mark()

    def _rng(self) -> random.Random:
        self._draws += 1
        return random.Random(f"{self.solving.settings.seed}|{self.problem.id}|{self._draws}")

    def _decode(self, lm: LM, session: Session, kind: SlotKind, temperature: float) -> Generator[str, None, Completion]:
        request: Request = self.solving.request(lm, session, kind, temperature, self._rng())
        self.fault = None
        shown = 0
        try:
            for piece in decode(request):
                yield piece
                shown += len(piece)
        except BaseException:  # broken off, and nobody knows how far the caches got
            self._open()
            self._leave()
            raise
        completion = request.completion
        assert completion is not None
        self.tokens += completion.tokens
        self.fault = completion.fault
        yield completion.text[shown:]
        return completion
