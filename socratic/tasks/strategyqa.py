"""StrategyQA: yes/no questions whose reasoning steps are implicit. Geva et al. 2021.

A record of ``train.json`` (shortened)::

    {"qid": "2bc9c4f9c19c167187f2", "term": "Genghis Khan", "description": "founder and first Great Khan of …",
     "question": "Are more people today related to Genghis Khan than Julius Caesar?", "answer": true,
     "facts": ["Julius Caesar had three children.", …],
     "decomposition": ["How many kids did Julius Caesar have?", …, "Is #2 greater than #1?"], "evidence": […]}

``test`` is the authors' ``dev.json`` (they publish no golds for their test); ids name the row of the file:
``strategyqa/train/00017``, ``strategyqa/dev/00003``. Only a record with exactly one fact fewer than sub-questions
has a gold chain: the facts answer all sub-questions but the last, which is an operation whose answer is the final
one. That the facts line up by position is assumed, and marked so.

``split_scheme="fine-tune-cot"`` is the split of Ho et al. 2023 over BIG-bench's copy of the same questions::

    {"input": "Is it common to see frost during …?", "target_scores": {"Yes": 1, "No": 0}, "target": "Yes. College …"}

with ids ``strategyqa-bigbench/all/00017``. A question that stands in its train and its test is left out of train.
Chains are the authors', found by the text of the question, and none belongs to a question of that test.

The Hub's copy has a split of its own: its ids begin with ``strategyqa-hub``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from socratic.tasks.base import Item, Part, SplitScheme, Task, checked, gold_chain, normalise, take_part
from socratic.tasks.bigbench import examples
from socratic.tasks.files import Hub, Row, hub_rows, read_rows
from socratic.types import Problem, Step, UserError

HUB = Hub("ChilleD/StrategyQA")
_REFERENCE = re.compile(r"#([0-9]+)")


def load(data_dir: Path | None, part: Part, scheme: SplitScheme) -> list[Item]:
    """The rows of ``part`` under either split scheme."""
    if scheme == "fine-tune-cot":
        if data_dir is None:
            raise UserError("strategyqa with the split scheme 'fine-tune-cot' is read from files; pass --data-dir")
        return _load_bigbench(data_dir, part)
    if data_dir is None:
        return _items(hub_rows(HUB, part), f"strategyqa-hub/{part}", part)
    return _load_authors(data_dir, part)


def _load_authors(data_dir: Path, part: Part) -> list[Item]:
    file = "dev" if part == "test" else "train"
    return _items(read_rows(data_dir / "strategyqa" / f"{file}.json"), f"strategyqa/{file}", part)


def _items(rows: Sequence[Row], prefix: str, part: Part) -> list[Item]:
    return [_item(row, f"{prefix}/{number:05d}", part) for number, row in enumerate(rows)]


def _item(row: Row, id: str, part: Part) -> Item:
    answer = row.get("answer")
    if not isinstance(answer, bool):
        raise UserError(f"{row.where}: the answer is {answer!r:.60}, not true or false; correct it")
    kept = ("qid", "term", "description", "facts", "decomposition")
    problem = Problem(
        id=id,
        dataset="strategyqa",
        split=part,
        question=row.text("question"),
        answer="yes" if answer else "no",
        answer_type="yesno",
        metadata={column: row.values[column] for column in kept if column in row.values},
    )
    checked(problem, row.where)
    if not all(isinstance(row.values.get(column), list) for column in ("facts", "decomposition")):
        return problem, None
    facts, questions = row.texts("facts"), row.texts("decomposition")
    if len(facts) != len(questions) - 1:
        return problem, None
    return problem, gold_chain(problem, resolve(questions, [*facts, problem.answer]), alignment="assumed")


def resolve(questions: Sequence[str], answers: Sequence[str]) -> list[Step]:
    """Steps in which every ``#n`` that refers to an earlier answer is that answer, in double quotes, no full stop."""
    return [Step(_insert(question, answers[:i]), answers[i]) for i, question in enumerate(questions)]


def _insert(question: str, earlier: Sequence[str]) -> str:
    def quoted(match: re.Match[str]) -> str:
        index = int(match[1])
        return f'"{earlier[index - 1].removesuffix(".")}"' if 1 <= index <= len(earlier) else match[0]

    # One pass: "#10" is never read as "#1", and a "#1" inside an inserted answer stays.
    return _REFERENCE.sub(quoted, question)


def _load_bigbench(data_dir: Path, part: Part) -> list[Item]:
    rows = examples(data_dir / "strategyqa" / "bigbench_task.json")
    authors = _load_authors(data_dir, "train") + _load_authors(data_dir, "test")
    chains = {normalise(problem.question): chain for problem, chain in authors}
    items: list[Item] = []
    for number, row in enumerate(rows):
        scores = row.get("target_scores")
        if scores not in ({"Yes": 1, "No": 0}, {"Yes": 0, "No": 1}):
            raise UserError(
                f"{row.where}: the target_scores are {scores!r:.60}, not 1 and 0 for Yes and No; correct them"
            )
        problem = Problem(
            id=f"strategyqa-bigbench/all/{number:05d}",
            dataset="strategyqa",
            split=part,
            question=row.text("input"),
            answer="yes" if scores["Yes"] else "no",
            answer_type="yesno",
            metadata={"rationale": row.text("target")},
        )
        checked(problem, row.where)
        chain = chains.get(normalise(problem.question))
        if part == "test" or chain is None or chain.answer != problem.answer:
            items.append((problem, None))
        else:
            items.append((problem, gold_chain(problem, chain.steps, alignment="assumed", authors_id=chain.problem_id)))
    return take_part(items, part, data_dir / "splits" / "strategy_qa__default.json")


TASK = Task(
    "strategyqa",
    "yes/no questions with implicit steps, sub-questions and facts",
    "yesno",
    True,
    "eladsegal/strategyqa",
    "MIT (BIG-bench's copy Apache-2.0)",
    load,
)
