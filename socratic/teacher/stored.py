"""Teacher output that others paid for and published, read as chains of a known data set's problems.

``reasoning-teacher``: one JSON object of Fine-tune-CoT (itsnamgyu/reasoning-teacher, ``src/data/completion_dataset.py``
and ``format.py``; Ho et al. 2212.10071). Under the template ``zs_cot`` the answer follows the rationale in a second
completion; under ``fs_cot`` one completion holds both::

    {"metadata": {"base_model": "text-davinci-002", "prediction_template": "zs_cot", …},
     "data": {"17": [{"sample_index": 17, "completion_index": 0, "question": "…", "answer": "72",
                      "reasoning_completion": "…", "reasoning_finish_reason": "stop", "completion": " 72.", …}]}}

``subq``: lines of GSM8K-AI-SubQ (DT6A/GSM8K-AI-SubQ, ``dataset/qg_train_data_raw.jsonl``), several samples in each::

    {"problem": "…", "questions": ["Q1: How …?\\nQ2: How …?"], "answers": ["A1: …\\nA2: …\\n\\nFinal answer: 72"],
     "feedback": […], "answer": "#### 72"}

``rejection``: lines of rejection sampling (OFA-Sys/gsm8k-ScRel, ``collect_rejection_sampling.py``; Yuan et al.
2308.01825), in GSM8K's own form; the first of every question is GSM8K's own solution::

    {"query": "…", "response": "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\\n…\\n#### 72"}

``chains``: our own records of `Chain`. Whether a chain is good is left to `curate`: ``final_answer`` is what was said.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from socratic.config import nearest
from socratic.prompts import Style
from socratic.store import read_records
from socratic.tasks import TASKS, load_problems, normalise
from socratic.tasks.base import gold_chain
from socratic.tasks.files import read_json, read_rows, records
from socratic.teacher.replies import BadReplyError, Reply, ReplyFault, parse_reply
from socratic.types import Chain, Problem, UserError

Outside = Literal["unknown_question", "other_split", "test_split"]
"""Why a record belongs to no problem that is asked for; what a test split holds is refused for good."""
TRAINING_SPLITS = ("train", "dev")

_NUMBERED = re.compile(r"^[ \t]*([QA]) ?(\d{1,3}):", re.MULTILINE)
_OFFERED = re.compile(r"( which choice is true\?)? answer choices: \(a\).*", re.DOTALL)
"""How Fine-tune-CoT writes the choices behind a question, in the form of `_key`."""
_FINAL = re.compile(r"final answer:", re.IGNORECASE)


@dataclass(frozen=True)
class Stored:
    """One record of a file: what was said about which question, by whom."""

    question: str
    said: Reply | ReplyFault
    source: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Imported:
    """The chains of a file, numbered per problem in file order, and how many records were dropped for which reason."""

    kind: str
    chains: list[Chain] = field(default_factory=list)
    dropped: Counter[Outside | ReplyFault] = field(default_factory=Counter)

    def counts(self) -> dict[str, int]:
        """Records, chains and their problems, what stood outside, and each fault that occurred."""
        outside = {reason: self.dropped[reason] for reason in get_args(Outside)}
        faults = {fault: self.dropped[fault] for fault in get_args(ReplyFault) if self.dropped[fault]}
        problems = len({chain.problem_id for chain in self.chains})
        total = len(self.chains) + self.dropped.total()
        return {"records": total, "chains": len(self.chains), "problems": problems, **outside, **faults}


def import_stored(
    path: Path,
    data: str,
    split: str = "train",
    kind: str | None = None,
    data_dir: Path | str | None = None,
    split_scheme: str = "authors",
) -> Imported:
    """Read the records of ``path`` as chains of ``split`` (``train`` or ``dev``) of the data set ``data``.

    A record belongs to the problem whose question is the same but for whitespace and case, and takes its gold answer
    from there. One whose question stands in a test split is refused, wherever else it stands. ``kind`` is one of
    `KINDS`; it is told from the file where it is None. Raises `UserError` for a wrong argument and a malformed file.
    """
    if data not in TASKS:
        raise UserError(f"unknown data set {data!r}; did you mean {nearest(data, TASKS)!r}?")
    if split not in TRAINING_SPLITS:
        raise UserError(f"chains are imported to train on, and {split!r} is not for that; choose train or dev")
    if kind is not None and kind not in KINDS:
        raise UserError(f"unknown kind {kind!r}; did you mean {nearest(kind, KINDS)!r}?")
    kind = kind or detect(path)
    places = _places(data, split, data_dir, split_scheme)
    done = Imported(kind)
    samples: Counter[str] = Counter()
    for record in KINDS[kind][1](path):
        place = places.get(_key(record.question), "unknown_question")
        if not isinstance(place, Problem):
            done.dropped[place] += 1
        elif not isinstance(record.said, Reply):
            done.dropped[record.said] += 1
        else:
            done.chains.append(_chain(place, record, record.said, samples[place.id]))
            samples[place.id] += 1
    return done


def detect(path: Path) -> str:
    """The kind of file that ``path`` is, by the fields of its first record; raises `UserError` where none fits."""
    try:
        with path.open("rb") as file:
            value = json.loads(next(filter(bytes.strip, file), b""))
    except (OSError, ValueError, RecursionError):
        value = read_json(path)  # one value over several lines, or a fault that is named there
    first = value[0] if isinstance(value, list) and value else value
    for kind, (fields, _) in KINDS.items():
        if isinstance(first, dict) and fields <= first.keys():
            return kind
    raise UserError(f"{path} is of no kind that can be told; give --kind as one of {', '.join(KINDS)}")


def interleave(questions: str, answers: str) -> str:
    """Numbered questions and their numbered answers as one reply: each ``Q:`` before its ``A:``, then the answer."""
    said, *final = _FINAL.split(answers, maxsplit=1)
    asked, answered = _numbered("Q", questions), _numbered("A", said)
    if [number for number, _ in asked] != [number for number, _ in answered]:
        raise BadReplyError("malformed", "questions and answers are not numbered alike")
    turns = [f"Q: {question}\nA: {answer}" for (_, question), (_, answer) in zip(asked, answered, strict=True)]
    return "\n".join([*turns, *(f"#### {answer}" for answer in final)])


def append_answer(rationale: str, answer: str) -> str:
    """A rationale and the answer that follows from it as one reply."""
    return f"{rationale}\n#### {answer.strip()}"


def part_answer(completion: str) -> str:
    """A few-shot completion, which ends in "The answer is 72.", as a reply."""
    rationale, _, answer = completion.partition("The answer is")
    return append_answer(rationale, answer)


def _read_completions(path: Path) -> Iterator[Stored]:
    value = read_json(path)
    try:
        template, model = (value["metadata"].get(name) for name in ("prediction_template", "base_model"))
        completions = [completion for sample in value["data"].values() for completion in sample]
    except (TypeError, KeyError, AttributeError):
        need = '{"metadata": {…}, "data": {"0": [{…}]}}'
        raise UserError(
            f"{path} does not have the form of Fine-tune-CoT's completions, {need}; fetch it again"
        ) from None
    if template not in (None, "zs_cot", "fs_cot"):
        raise UserError(f"{path} holds completions of the template {template!r:.60}; a teacher's are zs_cot or fs_cot")
    source = "imported:reasoning-teacher" + (f":{model}" if isinstance(model, str) else "")
    for row in records(path, completions):
        completion = row.values.get("completion")
        if template == "fs_cot":
            said = _said("cot", part_answer, completion)
        elif row.values.get("reasoning_finish_reason") == "length":
            said = "truncated"
        else:
            said = _said("cot", append_answer, row.values.get("reasoning_completion"), completion)
        yield Stored(row.text("question"), said, source)


def _read_subquestions(path: Path) -> Iterator[Stored]:
    for row in read_rows(path):
        question, asked, answered = row.text("problem"), row.get("questions"), row.get("answers")
        if not isinstance(asked, list) or not isinstance(answered, list) or len(asked) != len(answered):
            raise UserError(
                f"{row.where}: 'questions' and 'answers' must be lists of equal length; correct that record"
            )
        for pair in zip(asked, answered, strict=True):
            yield Stored(question, _said("socratic", interleave, *pair), "imported:subq")


def _read_paths(path: Path) -> Iterator[Stored]:
    for row in read_rows(path):
        yield Stored(row.text("query"), _said("cot", str, row.get("response")), "imported:rejection")


def _read_chains(path: Path) -> Iterator[Stored]:
    for chain in read_records(path, Chain):
        said = Reply(chain.steps, chain.final_answer or "")
        fault: ReplyFault | None = "no_steps" if not said.steps else None if said.answer.strip() else "no_answer"
        yield Stored(chain.question, fault or said, chain.source, chain.metadata)


KINDS: dict[str, tuple[set[str], Callable[[Path], Iterator[Stored]]]] = {
    "reasoning-teacher": ({"metadata", "data"}, _read_completions),
    "subq": ({"problem", "questions", "answers"}, _read_subquestions),
    "rejection": ({"query", "response"}, _read_paths),
    "chains": ({"problem_id", "question", "steps"}, _read_chains),
}
"""Each kind's name, the fields by which it is told, and its reader."""


def _numbered(letter: str, text: str) -> list[tuple[int, str]]:
    """What ``text`` has behind ``Q1:``, ``Q2:`` … (or ``A1:`` …), each with its number; the rest is left out."""
    _, *pieces = _NUMBERED.split(text)
    found = zip(pieces[::3], pieces[1::3], pieces[2::3], strict=True)
    return [(int(number), said.strip()) for kind, number, said in found if kind == letter]


def _said(style: Style, rewrite: Callable[..., str], *texts: Any) -> Reply | ReplyFault:
    """What ``texts``, rewritten into our form, say; or the name of what is wrong with them."""
    if any(text is None or text == "" for text in texts):
        return "empty"
    if not all(isinstance(text, str) for text in texts):
        return "wrong_types"
    try:
        return parse_reply(rewrite(*texts), style)
    except BadReplyError as error:
        return error.fault


def _key(question: str) -> str:
    return _OFFERED.sub("", normalise(question).casefold())


def _places(data: str, split: str, data_dir: Path | str | None, scheme: str) -> dict[str, Problem | Outside]:
    """For every question of the data set, its problem in ``split``, or why it has none; tests overrule the others."""
    tests = [part for part in TASKS[data].splits if part not in TRAINING_SPLITS]
    places: dict[str, Problem | Outside] = {}
    for part in (*TRAINING_SPLITS, *tests):
        for problem in load_problems(data, part, data_dir, split_scheme=scheme):
            if part in tests:
                places[_key(problem.question)] = "test_split"
            else:
                places.setdefault(_key(problem.question), problem if part == split else "other_split")
    return places


def _chain(problem: Problem, record: Stored, said: Reply, sample: int) -> Chain:
    chain = gold_chain(problem, said.steps, split=problem.split)
    kept = {name: value for name, value in record.metadata.items() if name not in ("context", "choices")}
    return replace(
        chain, source=record.source, sample=sample, final_answer=said.answer, metadata={**kept, **chain.metadata}
    )
