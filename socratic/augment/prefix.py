"""Problems that end at an earlier step: a sub-question takes the final question's place.

Gold sub-questions were often written for the step, not for a reader: some ask for less, more or something else than
their sub-answer gives. The filters here look at both and leave out what can be seen not to fit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

from socratic.augment.vary import Impossible
from socratic.calculator import agrees, calculate, holds, marks
from socratic.numerals import NUMBER, values
from socratic.tasks.overlap import words
from socratic.types import Chain, Step

# As `tasks.equations` has it, and behind a closing quotation mark.
_SENTENCE_END = re.compile(r"(?<=[.!?])(?<!\bMr\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bMrs\.)[\"”']?\s+(?=\S)")
_HOW = r"(?:(?:at|in|by|for|on|to|after|of|from|with)\s+)?(?:how|what)|find|calculate|determine"
_CONDITION = re.compile(rf"(.+?,)\s+(?:then\s+)?(?:{_HOW})\b", re.IGNORECASE | re.DOTALL)
_IF = re.compile(r"\b(?:if|when|assuming|given|since)\b", re.IGNORECASE)
_IS_TOLD = re.compile(r"if|when|assuming|suppose|given|since|because|as\b", re.IGNORECASE)
_ASKING = re.compile(rf"(?:{_HOW}|who|which|when|where)\b", re.IGNORECASE)
_QUALIFIES = re.compile(
    r"\b(?:less|more|fewer|than|extra|additional|dozens?|half|twice|times)\b",
    re.IGNORECASE,
)
_NAMES_IT = re.compile(r"\b(?:difference|average|sum|ratio|percent(?:age)?|profit)\b", re.IGNORECASE)
_EACH = re.compile(r"\b(?:each|every|per|apiece)\b|/ ?(?=[a-z])", re.IGNORECASE)
_OF_ONE = re.compile(r"\b(?:an?|one) [a-z]|/", re.IGNORECASE)
_HOW_MANY = re.compile(r"\bhow many ((?:[\w'’-]+ ?){1,4})", re.IGNORECASE)
_NO_UNIT = re.compile(r"\W*(?:[a-z]+ly|in|at|on|for|from|by|to|of|after|before|with|and|so|the)\b", re.IGNORECASE)
_IN_MONEY = re.compile(r"\b(?:dollars?|cents?|money|bucks?|\$)", re.IGNORECASE)


def prefixes(chain: Chain) -> Iterator[Chain | str]:
    """A problem for each step but the last: what is told stays, the step's question is asked, its result the answer.

    A condition in the final question (``If each costs $2, how many …``) is told too. For a step that makes no problem
    its reason takes the place: ``unclear_result`` (see `_result`), ``no_question`` where the sub-question cannot take
    the final one's place, ``asked_already`` in the problem, ``result_told`` in the sub-question, ``unfit_answer`` (see
    `_fits`). Raises `Impossible` for a chain without sub-questions, or whose problem does not end in a question, or
    ends in one with a condition that cannot be kept (``How many … if each costs $2?``).
    """
    *told, last = _SENTENCE_END.split(chain.question.strip())
    if not last.rstrip("\"”'").endswith("?"):
        raise Impossible("no_final_question")
    if not all(step.question.strip() for step in chain.steps):
        raise Impossible("no_sub_questions")
    condition = _CONDITION.match(last)
    kept = condition[1] if condition and _IS_TOLD.match(condition[1]) else ""
    if _IF.search(last, len(kept)) and values(last[len(kept) :]):
        raise Impossible("condition_lost")
    for number, step in enumerate(chain.steps[:-1], start=1):
        asked = step.question.strip()
        answer = _result(step)
        if answer is None:
            yield "unclear_result"
        elif not asked.endswith("?") or (kept and not _ASKING.match(asked)):
            yield "no_question"
        elif " ".join(words(asked)) in " ".join(words(chain.question)):
            yield "asked_already"
        elif not values(answer).isdisjoint(values(asked)):
            yield "result_told"
        elif not _fits(step):
            yield "unfit_answer"
        else:
            asked = f"{kept} {asked[0].lower()}{asked[1:]}" if kept else asked
            question = " ".join([*told, asked])
            yield replace(chain, question=question, answer=answer, final_answer=answer, steps=chain.steps[:number])


def _result(step: Step) -> str | None:
    """The result of a step as it is written: the only number behind the last mark, that mark's, all others led to it.

    None where it is not so, since then another of the step's results may be what its question asks for.
    """
    written = [*marks(step.answer)]
    if not written or not all(map(holds, written)):
        return None
    last = written[-1]
    results = {calculate(mark.expr) for mark in written[:-1]}
    numbers = NUMBER.findall(step.answer[last.end :])
    if len(NUMBER.findall(last.expr)) < 2 or len(numbers) != 1 or not agrees(numbers[0], calculate(last.expr)):
        return None
    read: set[Fraction] = {value for mark in written[1:] for value in values(mark.expr)}
    return numbers[0] if results <= read else None


def _fits(step: Step) -> bool:
    """Whether nothing shows that the answer is to another question.

    What qualifies the result (``5 less than on Monday``, ``3 dozen``) or names it (``the difference is``) has to stand
    in the question, too; what is asked of each, be told of each or of one; and what the question counts (``How many
    pairs of earrings``) has to be among the words behind the result, or in the whole answer where none names a unit.
    """
    asked = step.question
    *_, last = marks(step.answer)
    behind = step.answer[last.end :]
    if _found(_QUALIFIES, behind) - _found(_QUALIFIES, asked):
        return False
    if _found(_NAMES_IT, step.answer) - _found(_NAMES_IT, asked):
        return False
    if _EACH.search(behind) and not _EACH.search(asked):
        return False
    if _EACH.search(asked) and not (_EACH.search(step.answer) or _OF_ONE.search(step.answer)):
        return False
    counted = _HOW_MANY.search(asked)
    if counted is None:
        return True
    if step.answer[: last.start].rstrip().endswith("$") and not _IN_MONEY.search(counted[1]):
        return False
    unit = re.sub(r"^\W*[\d.,]+", "", behind)
    named = _stems(unit)[:5] if re.search("[a-z]", unit) and not _NO_UNIT.match(unit) else _stems(step.answer)
    return not set(named).isdisjoint(_stems(re.split(r" of\b", counted[1])[0]))


def _found(pattern: re.Pattern[str], text: str) -> set[str]:
    return {match.lower() for match in pattern.findall(text)}


def _stems(text: str) -> list[str]:
    """The first four letters of each word, which are the same for one and for many."""
    return [word[:4] for word in re.findall(r"[a-z]+", text.lower())]
