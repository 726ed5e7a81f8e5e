"""GSM8K: grade-school word problems, with sub-questions (`gsm8k`) or without (`gsm8k-main`). Cobbe et al. 2021.

A record of the socratic configuration (shortened); ``main`` has the same rows, and its answer lacks the sub-questions::

    {"question": "Natalia sold clips to 48 of her friends in April, …",
     "answer": "How many clips did Natalia sell in May? ** Natalia sold 48/2 = <<48/2=24>>24 clips …\\n…\\n#### 72"}

Both load the same problems under the same ids, ``gsm8k/train/00017``: the row of the file ``train``.
A step whose answer is empty (6 chains have one) is dropped. The split of Fine-tune-CoT is the authors' own.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

from socratic.tasks.base import Item, Part, SplitScheme, Task, checked, gold_chain
from socratic.tasks.files import Hub, Row, hub_rows, read_rows
from socratic.types import Problem, Step, UserError

Config = Literal["main", "socratic"]


def load(config: Config, data_dir: Path | None, part: Part, scheme: SplitScheme) -> list[Item]:
    """All rows of ``part``, in the authors' order."""
    if data_dir is None:
        rows = hub_rows(Hub("openai/gsm8k", config), part)
    else:
        rows = read_rows(data_dir / "gsm8k" / config / f"{part}-00000-of-00001.parquet")
    return [_item(row, number, config, part) for number, row in enumerate(rows)]


def _item(row: Row, number: int, config: Config, part: Part) -> Item:
    body, mark, answer = row.text("answer").rpartition("\n#### ")
    if not mark:
        raise UserError(f"{row.where}: the answer has no last line '#### NUMBER'; add it")
    problem = Problem(f"gsm8k/{part}/{number:05d}", "gsm8k", part, row.text("question"), answer.strip())
    steps = [_step(row, line, config) for line in body.split("\n")]
    return checked(problem, row.where), gold_chain(problem, [step for step in steps if step.answer])


def _step(row: Row, line: str, config: Config) -> Step:
    if config == "main":
        return Step("", line.strip())
    question, mark, answer = line.partition(" ** ")
    if not mark or not question.strip():
        raise UserError(f"{row.where}: the line {line!r:.60} is not 'sub-question ** step'; correct it")
    return Step(question.strip(), answer.strip())


def _task(name: str, config: Config, description: str) -> Task:
    upstream = "openai/grade-school-math"
    return Task(name, description, "number", True, upstream, "MIT", partial(load, config), folder="gsm8k")


TASKS = (
    _task("gsm8k", "socratic", "grade-school word problems, gold sub-questions and steps"),
    _task("gsm8k-main", "main", "the same problems, gold steps without sub-questions"),
)
