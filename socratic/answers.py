"""What a right answer is: read an output, normalise it, compare it with the gold, per answer type.

An output is cleaned, then read behind a marker (``#### 18``, ``The answer is 18.``, ``\\boxed{18}``) or, failing that,
in all of its text. What was read becomes a canonical answer: a number is an exact fraction in lowest terms, a yes/no is
``yes`` or ``no``, a choice is its letter, a text is stripped and case folded. It all takes time linear in the output.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from itertools import groupby, islice

from socratic.calculator import last_result
from socratic.types import AnswerType, Score, ScoreReason, UserError

SCORER_VERSION = "3"
"""Stands beside stored scores; it changes whenever a decision of `score` could."""

MAX_CHARACTERS = 20_000
MAX_DIGITS = 400
MAX_EXPONENT = 100
_MAX_COMBINING = 30

_TERMINAL = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-~]?", re.ASCII
)
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufe00-\ufe0f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
_NEWLINE = re.compile("\r\n?|[\u2028\u2029]")
_VULGAR_FRACTION = re.compile("(?<=[0-9])(?=[\xbc-\xbe\u2150-\u215f])")
_POWER = re.compile("(?<=[0-9A-Za-z)])([\xb2\xb3\xb9\u2070-\u2079]+)")
_MINUS = re.compile(r"(?<!\w)[\u2010-\u2013](?=[$€£]?\.?\d)")
"""A dash that stands directly before a number and behind none."""
_SYMBOLS = str.maketrans({"\u2212": "-", "\u2044": "/", "\u066b": ".", "\u066c": ","})

_MARKER = re.compile(
    r"#{4,}:?|-->|\[answer\]:?|\\boxed ?\{"
    r"|(?:\bthe +)?(?:\bfinal +)?\banswer[*_]*[ \t]*(?:is\b[ \t]*:?|:)",
    re.IGNORECASE,
)
_BLANK = re.compile(r"[\s:*_`$]*")
_DECORATION = re.compile(r"[\s:*_`$\"'(]*")
_STARTS_WITH_NUMBER = re.compile(r"[\"'(\[{€£$*_` ]{0,8}(?:\\boxed ?\{ {0,2})?[-+]?[ $€£]{0,3}\.?\d")

_CALCULATOR_MARK = re.compile(r"<<(?:[^\n]*?>>|[^\n]*)")
_LATEX_FRACTION = re.compile(r"(\d?)\\[dt]?frac *\{([^{}]*)\} *\{([^{}]*)\}")
_UNIT = "(?:km|cm|mm|kg|mg|ml|mi|m|g|lbs|lb|oz|l|L|ft|in|hrs|hr|h|mins|min|secs|sec|s|am|pm|AM|PM|st|nd|rd|th)"
_NOT_GLUED = r"(?![^\W_]|[.,:/']\d|_[^\W_]|\^[({]?[-+]?\w)"
_RUN = r"[^\W_](?:[^\W_]|(?<=\d)[.,:/'](?=\d)|_(?=[^\W_])|\^[({]?[-+]?(?=\w))*"


def _number_pattern(groups: str) -> re.Pattern[str]:
    """A readable number, else (no group set) the whole run of characters that stand glued to each other."""
    integer = rf"(?:[1-9]\d{{0,2}}(?:{groups})|\d+)"
    decimal = rf"(?:{integer}(?:\.\d+)?|(?<![\w.])\.\d+)(?:[eE][-+]?\d+)?"
    mixed = rf"(?P<whole>{integer}) +(?P<over>\d+)/(?P<under>\d+)"
    plain = rf"(?P<number>{decimal})(?:/(?P<divisor>[-+]?{decimal}))?"
    money = r"(?P<sign>[-+]?)(?:[$€£]{1,2}(?P<inner>[-+]?))?"
    return re.compile(rf"{money}(?:{mixed}|{plain}){_UNIT}?(?:[$€£%]|{_NOT_GLUED})|{_RUN}")


_NUMBER = _number_pattern(r"(?:,\d{3})+")
_MARKED_NUMBER = _number_pattern(r"(?:,\d{3})+|(?: \d{3})+")
_DIGIT = re.compile(r"\d")
_SPACED_SIGN = re.compile(r"\A([\s:*_`\"'(\[]*[-+])[ \t]*(?:[$€£][ \t]*)?(?=\.?\d)")

_YESNO = re.compile(r"(?<!\w)(?<!\w-)(?:yes|no|(?:not[ \t]+)?(?:true|false))(?!-?\w)", re.IGNORECASE)
_YESNO_JOINED = re.compile(r"[\s\"'*`()]*(?:(?:,[\s\"'*`()]*)?or|and(?:/or)?|/)[\s\"'*`()]*", re.IGNORECASE)

_LETTER = re.compile(r"(?<![^\W_])(?<![^\W_]['’.-])[A-Z](?![^\W_]|['’-][^\W_]|[ \t]*:)")
_NEXT_WORD = re.compile(r"[ \t]+([^\W\d_]{2,})")
_SENTENCE_START = re.compile(r"(?:^|[.!?:;\n])[\s*_`\"']*$")
_AFTER_A_LETTER = re.compile(
    "and|are|as|because|but|by|can|could|does|fits|for|has|if|in|is|looks|must|not|only|or|seems|since|so|too|was|which"
    "|will|with|would",
    re.IGNORECASE,
)
_CHOICE_LISTED = re.compile(r"[\s)\]*\"',(\[]*")
_CHOICE_JOINED = re.compile(r"[^.;!?\n]*\bor\b[\s(\[*\"']*(?:(?:the|an?)\s+)?", re.IGNORECASE)

_QUOTES = " \n\t\"'*`“”‘’«»"
_LATEX_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\{([^{}]*)\}")
_DATE = re.compile(r"([0-9]{1,2})/([0-9]{1,2})/([0-9]{4})")


@dataclass(frozen=True)
class Extraction:
    """What was read from an output: the canonical answer or None, whether a marker led to it, and why it is None."""

    predicted: str | None
    marked: bool
    reason: ScoreReason | None


class _Ambiguous(Exception):
    """Two different answers are left standing."""


def score(
    output: str,
    gold: str,
    answer_type: AnswerType,
    choices: Sequence[str] | None = None,
    *,
    truncated: bool = False,
    tolerance: Fraction | None = None,
) -> Score:
    """Decides one output; ``problem_id`` is ``""`` and ``sample`` 0, for the caller to fill in.

    ``truncated`` says that the output was cut off; ``tolerance`` is the largest absolute difference that still makes a
    number right (None: exact equality). Raises `UserError` for a gold answer that cannot be read.
    """
    expected = canonical(gold, answer_type, choices)
    found = extract(output, answer_type, choices)
    if found.predicted is None:
        cut_off = truncated and found.reason == "unparsed"
        return Score("", 0, False, False, None, gold, "truncated" if cut_off else found.reason or "unparsed")
    correct = found.predicted == expected
    if tolerance is not None and answer_type == "number":
        correct = abs(Fraction(found.predicted) - Fraction(expected)) <= tolerance
    return Score("", 0, correct, correct and found.marked, found.predicted, gold, "right" if correct else "wrong")


def extract(output: str, answer_type: AnswerType, choices: Sequence[str] | None = None) -> Extraction:
    """Reads the answer from ``output``; never raises on any output."""
    text = _clean(output)
    if not text:
        return Extraction(None, False, "empty")
    unfinished = "\n" not in text[text.rfind("<<") :] and text.rfind("<<") > text.rfind(">>")
    if answer_type == "number":
        text = _plain_numbers(text)
    region = _marked_region(text, answer_type)
    marked = region is not None
    try:
        predicted = _read(text if region is None else region, marked, answer_type, choices)
    except _Ambiguous:
        return Extraction(None, marked, "ambiguous")
    if predicted is None:
        return Extraction(None, marked, "truncated" if unfinished else "unparsed")
    return Extraction(predicted, marked, None)


def sub_answer_value(text: str) -> str | None:
    """The number that a sub-answer comes to, in canonical form; None without one.

    It is the result of its last calculation, with a mark or in prose, else what `extract` reads:
    ``<<4*12=48>>48 more lions after 1 year`` is 48.
    """
    result = last_result(text)
    value = extract(result, "number").predicted if result else None
    return extract(text, "number").predicted if value is None else value


def canonical(gold: str, answer_type: AnswerType, choices: Sequence[str] | None = None) -> str:
    """The form in which a gold answer is compared; `UserError` where it is not an answer of its type."""
    text = _clean(gold)
    answer: str | None
    if answer_type == "number":
        match = _MARKED_NUMBER.fullmatch(text)
        answer = _number_value(match) if match else None
    elif answer_type == "yesno":
        answer = _yesno_value(text) if _YESNO.fullmatch(text) else None
    elif answer_type == "choice":
        answer = _lone_letter(text, _offered(choices))
    elif answer_type == "text":  # as it is read in a final slot, which is one line
        answer = None if "\n" in text else extract(f"#### {text}", "text").predicted
    else:
        raise UserError(f"answer_type {answer_type!r} is unknown; use number, yesno, choice or text")
    if answer is None:
        mend = {
            "choice": f"write its letter, A to {_offered(choices)[-1]}",
            "text": "write it as one line, of more than marks",
        }
        wanted = mend.get(answer_type, "correct the data")
        raise UserError(f"gold answer {gold!r:.60} is not a {answer_type} answer; {wanted}, or change its answer_type")
    return answer


def _read(text: str, marked: bool, answer_type: AnswerType, choices: Sequence[str] | None) -> str | None:
    if answer_type == "number":
        return _read_number(text, marked)
    if answer_type == "yesno":
        return _read_yesno(text, marked)
    if answer_type == "choice":
        return _read_choice(text, marked, choices)
    if answer_type == "text":
        return _read_text(text, marked)
    raise UserError(f"answer_type {answer_type!r} is unknown; use number, yesno, choice or text")


def _clean(output: str) -> str:
    text = _NEWLINE.sub("\n", _TERMINAL.sub("", output))
    text = _INVISIBLE.sub("", text)[-MAX_CHARACTERS:]
    if not text.isascii():
        # Normalising takes time quadratic in the length of a run of combining characters.
        text = _MINUS.sub("-", _POWER.sub(r"^\1", _VULGAR_FRACTION.sub(" ", text)))
        runs = groupby(text, lambda c: unicodedata.combining(c) > 0)
        text = "".join("".join(islice(run, _MAX_COMBINING if combining else None)) for combining, run in runs)
        text = unicodedata.normalize("NFKC", text).translate(_SYMBOLS)
        text = "".join(str(unicodedata.digit(c)) if c.isdigit() else c for c in text)[-MAX_CHARACTERS:]
    return text.strip()


def _marked_region(text: str, answer_type: AnswerType) -> str | None:
    """What stands behind the marker that counts, or None without a marker."""
    last = None
    for marker in _MARKER.finditer(text):
        if marker[0].startswith("#"):
            start, end = _line(text, marker.end())
            if answer_type == "number" and end < len(text) and not _STARTS_WITH_NUMBER.match(text, start):
                continue  # a heading
            last = marker
            if start < len(text):
                break
        last = marker
    while last is not None:
        start, end = _line(text, last.end())
        if last[0].endswith("{"):
            inside = _braced(text, last.end())
            return text[start:end] if inside is None else inside
        inner = _MARKER.match(text, _DECORATION.match(text, start).end())  # type: ignore[union-attr]
        if inner is None:
            return text[start:end]
        last = inner
    return None


def _line(text: str, position: int) -> tuple[int, int]:
    """Start and end of the rest of the line at ``position`` or, where that is blank, of the next line that is not."""
    blank_end = _BLANK.match(text, position).end()  # type: ignore[union-attr]
    start = blank_end if blank_end == len(text) else max(position, text.rfind("\n", position, blank_end) + 1)
    end = text.find("\n", start)
    return start, len(text) if end < 0 else end


def _braced(text: str, start: int) -> str | None:
    """What stands between the brace before ``start`` and the one that closes it on the same line, or None."""
    depth = 1
    for position in range(start, len(text)):
        character = text[position]
        if character == "\n":
            return None
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return text[start:position]
    return None


def _plain_numbers(text: str) -> str:
    text = _CALCULATOR_MARK.sub("", text).replace("\\$", "$").replace("\\%", "%").replace("{,}", ",")
    text = text.replace("\\!", "").replace("\\,", " ")
    return _LATEX_FRACTION.sub(lambda m: f"{m[1]}{m[1] and ' '}{m[2].strip()}/{m[3].strip()}", text).strip()


def _read_number(text: str, marked: bool) -> str | None:
    if marked:
        text = _SPACED_SIGN.sub(r"\1", text.rpartition("=")[2])
    chosen = None
    for match in (_MARKED_NUMBER if marked else _NUMBER).finditer(text):
        if _DIGIT.search(match[0]):
            chosen = match
            if marked:
                break
    return _number_value(chosen) if chosen else None


def _number_value(match: re.Match[str]) -> str | None:
    if len(_DIGIT.findall(match[0])) > MAX_DIGITS:
        return None
    if match["whole"]:
        whole, rest = _decimal(match["whole"]), _fraction(match["over"], match["under"])
        value = None if whole is None or rest is None else whole + rest
    else:
        value = _fraction(match["number"], match["divisor"]) if match["number"] else None
    if value is None:
        return None
    negative = match["inner"] == "-" or (match["sign"] == "-" and not _subtracts(match.string, match.start()))
    return str(-value if negative else value)


def _fraction(over: str, under: str | None) -> Fraction | None:
    numerator = _decimal(over)
    if under is None:
        return numerator
    denominator = _decimal(under)
    return numerator / denominator if numerator is not None and denominator else None


def _decimal(text: str) -> Fraction | None:
    digits, _, exponent = text.replace(",", "").replace(" ", "").lower().partition("e")
    if not exponent:
        return Fraction(digits)
    return Fraction(digits) * Fraction(10) ** int(exponent) if abs(int(exponent)) <= MAX_EXPONENT else None


def _subtracts(text: str, position: int) -> bool:
    """Whether a sign at ``position`` has something to subtract from before it."""
    touching = text[:position]
    before = touching.rstrip(" ")
    if before != touching:
        return before[-1:].isdigit() or before[-1:] == "%"
    return before[-1:].isalnum() or before[-1:] in tuple(")]}%$€£-")


def _read_yesno(text: str, marked: bool) -> str | None:
    found = list(_YESNO.finditer(text))
    if not found:
        return None
    leads = not text[: found[0].start()].strip("\"'*`( ") and re.match(r"[^\w\s]", text[found[0].end() :])
    first = marked or leads
    left, right = (found[:2] if first else found[-2:]) if len(found) > 1 else (found[0], found[0])
    differ = _yesno_value(left[0]) != _yesno_value(right[0])
    if differ and _YESNO_JOINED.fullmatch(text, left.end(), right.start()):
        raise _Ambiguous
    return _yesno_value((left if first else right)[0])


def _yesno_value(word: str) -> str:
    *denied, last = word.lower().split()
    return "yes" if (last in ("yes", "true")) is not bool(denied) else "no"


def _read_choice(text: str, marked: bool, choices: Sequence[str] | None) -> str | None:
    offered = _offered(choices)
    letter = _lone_letter(text, offered)
    if letter:
        return letter
    spans = [(m[0], m.start(), m.end()) for m in _LETTER.finditer(text) if m[0] in offered and not _is_article(m)]
    if not spans and choices:
        text = _folded(text)
        spans = _option_spans(text, choices)
    if not spans:
        return None
    index = 0 if marked else len(spans) - 1
    if index and _joined(text, spans, index - 1):
        raise _Ambiguous
    while index + 1 < len(spans):
        if _joined(text, spans, index):
            raise _Ambiguous
        if not _CHOICE_LISTED.fullmatch(text, spans[index][2], spans[index + 1][1]):
            break
        index += 1
    return spans[0 if marked else -1][0]


def _offered(choices: Sequence[str] | None) -> str:
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(choices) if choices else 5]


def _lone_letter(text: str, offered: str) -> str | None:
    """The letter that is all there is, in either case."""
    letter = text.strip(" \n\t\"'*_`()[]{}$.,;!").upper()
    return letter if len(letter) == 1 and letter in offered else None


def _is_article(match: re.Match[str]) -> bool:
    """Whether a bare ``A`` (or the pronoun ``I``) opens a sentence as a word: ``A bank is best``, not ``A is best``."""
    word = _NEXT_WORD.match(match.string, match.end())
    if match[0] not in "AI" or word is None or _AFTER_A_LETTER.fullmatch(word[1]):
        return False
    return _SENTENCE_START.search(match.string[max(0, match.start() - 8) : match.start()]) is not None


def _joined(text: str, spans: list[tuple[str, int, int]], index: int) -> bool:
    (left, _, start), (right, end, _) = spans[index : index + 2]
    return left != right and _CHOICE_JOINED.fullmatch(text, start, end) is not None


def _option_spans(text: str, choices: Sequence[str]) -> list[tuple[str, int, int]]:
    letters: dict[str, str] = {}
    for letter, choice in zip(_offered(choices), choices, strict=False):
        letters.setdefault(_folded(_clean(choice)).strip(_QUOTES + "."), letter)
    letters.pop("", None)
    if not letters:
        return []
    options = "|".join(re.escape(option) for option in sorted(letters, key=len, reverse=True))
    pattern = re.compile(rf"(?<![\w-])(?<!\d[.,])(?:{options})(?!\w|[.,]\d)")
    return [(letters[m[0]], m.start(), m.end()) for m in pattern.finditer(text)]


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _read_text(text: str, marked: bool) -> str | None:
    line = text if marked else text.rpartition("\n")[2]
    line = _folded(_LATEX_TEXT.sub(r"\1", line).lstrip(_QUOTES).rstrip(_QUOTES + "."))
    match = _DATE.fullmatch(line)
    if match is None:
        return line or None
    month, day, year = (int(part) for part in match.groups())
    try:
        return date(year, month, day).strftime("%m/%d/") + match[3]
    except ValueError:
        return line
