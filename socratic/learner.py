"""A learner in QA's place: a person's sub-answers held against gold's and QA's, with hints on request.

It is what the method was named after: whoever asks does not tell. (Shridhar et al. 2212.00193, section 1.)
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass

from socratic.answers import extract, sub_answer_value
from socratic.calculator import calculate, format_result, marks, prose
from socratic.numerals import NUMBER, WORDS
from socratic.tutor import Node, Tutor
from socratic.types import AnswerType, CalculatorError

_KINDS: tuple[AnswerType, ...] = ("number", "yesno", "text")
_YES_OR_NO = re.compile(r"\A\W*(?:yes|no)\b\s*(?:[,.;:!]\s*|\Z)", re.IGNORECASE)
_EQUALS = re.compile(r"= *\$?\Z")
_NUMBER_NEXT = re.compile(rf"\A *\$?(?:{NUMBER.pattern})")


@dataclass(frozen=True)
class Verdict:
    """What is said to a sub-answer; ``answer``, where it is right, is the whole answer that it agrees with.

    That is what joins the transcript: students were trained on sentences, and a bare number puts QG off.
    """

    why: str
    answer: str | None = None


class Learner:
    """Judges what a person answers to the question that waits in ``tutor``.

    Gold's answer decides where gold asks the same in the same place, else QA's, which may itself be wrong.
    """

    def __init__(self, tutor: Tutor) -> None:
        self.tutor = tutor
        self._peeked: tuple[Node, str | None, str] | None = None

    def judge(self, said: str) -> Verdict:
        """``said`` against the answers that are known."""
        own, gold = self._qa_answer(), self._gold_answer()
        if gold is not None:
            if _same(said, gold):
                return Verdict("right", gold)
            return Verdict(f"that is not the data set's answer{', though QA says so too' * _same(said, own)}")
        if not own:
            return Verdict("QA has no answer to hold yours against; /answer TEXT takes yours unjudged")
        return Verdict("right: QA says so too", own) if _same(said, own) else Verdict("that is not what QA says")

    def hint(self) -> str | None:
        """How the answer is calculated without what comes out, or the first half of its words; None without any."""
        answer = _YES_OR_NO.sub("", self._gold_answer() or self._qa_answer())
        value = _value(answer, "number")
        shown, operands = answer, set[str]()
        for mark in reversed([*marks(answer)]):
            operands |= {number.replace(",", "") for number in NUMBER.findall(mark.expr)}
            is_told = _EQUALS.search(shown, 0, mark.start)
            behind = _NUMBER_NEXT.sub("", shown[mark.end :], count=1)
            shown = f"{shown[: mark.start]}{'' if is_told else f'{mark.expr}='}?{behind}"
        for found in reversed([*prose(shown)]):
            operands |= {number.replace(",", "") for number in NUMBER.findall(found.expr)}
            *_, number = NUMBER.finditer(shown, found.start, found.end)
            shown = f"{shown[: number.start()]}?{shown[number.end() :]}"
        if value is not None and value not in operands:
            shown = NUMBER.sub(lambda found: "?" if _value(found[0], "number") == value else found[0], shown)
        words = answer.split()
        if shown != answer:
            return shown
        return f"{' '.join(words[: len(words) // 2])} …" if len(words) > 3 else None

    def _gold_answer(self) -> str | None:
        """Gold's answer in this place, where it asks the same."""
        gold, place = self.tutor.gold, len(self.tutor.steps)
        if gold is None or place >= len(gold.steps) or self.tutor.question is None:
            return None
        return gold.steps[place].answer if gold.steps[place].question.split() == self.tutor.question.split() else None

    def _qa_answer(self) -> str:
        """QA's answer, ``""`` where it has none; written once for each question."""
        here, question = self.tutor.here, self.tutor.question
        if self._peeked is None or self._peeked[:2] != (here, question):
            self._peeked = here, question, self.tutor.peek()
        return self._peeked[2]


def _same(said: str, wanted: str) -> bool:
    """Whether two answers come to the same.

    Where ``wanted`` begins with yes or no, by that, or if ``said`` has neither, by the number if there is but one. Else
    by the number, if ``wanted`` has any, by yes or no, or by the words.
    """
    if _YES_OR_NO.match(wanted):
        kind: AnswerType = "yesno" if _value(said, "yesno") or len(NUMBER.findall(wanted)) != 1 else "number"
        return _value(said, kind) == _value(wanted, kind)
    for kind in _KINDS:
        value = _value(wanted, kind)
        if value is not None:
            return _value(said, kind) == value
    return False


def _value(text: str, kind: AnswerType) -> str | None:
    """What an answer comes to. A person may also type the calculation alone, ``6*11``, or the number in words."""
    if kind != "number":
        return extract(text, kind).predicted
    bare = text.strip().rstrip(".").lower()
    with suppress(CalculatorError):
        text = format_result(calculate(bare))
    return sub_answer_value(format_result(WORDS[bare]) if bare in WORDS else text)
