"""AQuA-RAT: algebraic word problems with a rationale, one of five choices. Ling et al. 2017.

A record of ``test.json`` (shortened; one a line)::

    {"question": "The original price of an item is discounted 22%. A customer buys the item at this discounted price …",
     "options": ["A)$61", "B)$65", "C)$67.40", "D)$70", "E)$78.20"],
     "rationale": "Let x be the original price of the item\\nDiscounted price = 0.78x\\n…\\nx = 78.20\\nAnswer: E",
     "correct": "E"}

The gold chain is the rationale, a step a line, without sub-questions. Ids name the row of the file,
``aqua/train/00017``, from the Hub as well, which also gives train where a folder has test alone. The split of
Fine-tune-CoT has 10,000 of train's 97,467 rows, and all of test. A question of test is left out of train, under either
scheme.
"""

from __future__ import annotations

from pathlib import Path

from socratic.tasks.base import Item, Part, SplitScheme, Task, checked, gold_chain, normalise, take_part
from socratic.tasks.files import Hub, Row, hub_rows, read_rows
from socratic.types import Problem, Step, UserError

HUB = Hub("deepmind/aqua_rat", "raw")
_LETTERS = "ABCDE"


def load(data_dir: Path | None, part: Part, scheme: SplitScheme) -> list[Item]:
    """The rows of ``part``, under ``fine-tune-cot`` those of the paper."""
    test = _items(_rows(data_dir, "test"), "test")
    if part == "test":
        return test
    train = _items(_rows(data_dir, "train"), "train")
    if scheme == "fine-tune-cot":
        if data_dir is None:
            raise UserError("aqua's split 'fine-tune-cot' stands in splits/aqua__default.json; pass --data-dir")
        return take_part([*train, *test], part, data_dir / "splits" / "aqua__default.json")
    asked = {normalise(problem.question) for problem, _ in test}
    return [item for item in train if normalise(item[0].question) not in asked]


def _rows(data_dir: Path | None, part: Part) -> list[Row]:
    if data_dir is None:
        return hub_rows(HUB, part)
    path = data_dir / "aqua" / f"{part}.json"
    if part == "train" and path.parent.is_dir() and not path.exists():  # large, so often left out
        try:
            return hub_rows(HUB, part)
        except UserError as error:
            raise UserError(f"{path} does not exist, and {error}") from None
    return read_rows(path)


def _items(rows: list[Row], part: Part) -> list[Item]:
    return [_item(row, f"aqua/{part}/{number:05d}", part) for number, row in enumerate(rows)]


def _item(row: Row, id: str, part: Part) -> Item:
    named = [option.partition(")") for option in row.texts("options")]
    if [letter for letter, _, _ in named] != list(_LETTERS):
        raise UserError(f"{row.where}: the options do not begin with A) to E) in order; correct them")
    problem = Problem(
        id=id,
        dataset="aqua",
        split=part,
        question=row.text("question"),
        answer=row.text("correct"),
        answer_type="choice",
        choices=tuple(text.strip() for _, _, text in named),
    )
    checked(problem, row.where)
    lines = [line.strip() for line in str(row.values.get("rationale") or "").splitlines() if line.strip()]
    return problem, gold_chain(problem, [Step("", line) for line in lines]) if lines else None


TASK = Task(
    "aqua",
    "algebra word problems, one of five, gold rationale",
    "choice",
    True,
    "deepmind/AQuA",
    "Apache-2.0",
    load,
)
