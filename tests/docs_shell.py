"""Blocks of code in the documentation, and a shell that runs them here, small and without the network."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from socratic.teacher.client import Received

SHELL = ("sh", "console")
SHOWN = ("text", "json", "yaml")
_FENCE = re.compile(
    r"^(?:<!-- (?P<mark>not run|file): (?P<said>[^>]+) -->\n+)?```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.M | re.S
)
_ASSIGNMENT = re.compile(r"([A-Z_]+)=(.*)")
_SUM = re.compile(r"has (\d+) pens and gets (\d+) more")


@dataclass(frozen=True)
class Block:
    """A fenced block: info string, content, and from the comment before it why it is not run, or a file's name."""

    page: str
    line: int
    info: str
    body: str
    not_run: str | None
    file: str | None

    @property
    def commands(self) -> list[str]:
        """Its command lines; continued ones are joined, and of a console those behind ``$``."""
        lines = self.body.replace("\\\n", " ").splitlines()
        if self.info == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]

    @property
    def outputs(self) -> list[str]:
        """What a console shows behind each of its commands."""
        return [part.partition("\n")[2] for part in re.split(r"^\$ ", self.body, flags=re.M)[1:]]


def blocks(path: Path) -> list[Block]:
    """The fenced blocks of a page."""
    text = path.read_text("utf-8")
    return [
        Block(
            path.name,
            text[: found.start("info")].count("\n") + 1,
            found["info"],
            found["body"],
            found["said"] if found["mark"] == "not run" else None,
            found["said"] if found["mark"] == "file" else None,
        )
        for found in _FENCE.finditer(text)
    ]


def words_of(line: str, variables: Mapping[str, str]) -> list[str]:
    """The words of a command line, variables put in; comments, and where its output goes, left out."""
    words = shlex.split(string.Template(line).safe_substitute(variables), comments=True)
    return [*itertools.takewhile(lambda word: word not in (">", "|", "&"), words)]


@dataclass
class Shell:
    """Runs lines as a shell in the current folder would: ``NAME=value``, and what ``command`` takes.

    ``models`` stand in for what the pages name in a model's place.
    """

    command: Callable[[list[str]], str]
    export: Callable[[str, str], None]
    models: Mapping[str, str]
    variables: dict[str, str] = field(default_factory=dict)

    def run(self, line: str) -> str:
        """One line; what it prints."""
        words = words_of(line, self.variables)
        exported = words[0] == "export"
        if assigned := _ASSIGNMENT.fullmatch(words[exported]):
            self.variables[assigned[1]] = assigned[2]
            if exported and assigned[2] != "…":
                self.export(*assigned.groups())
            return ""
        assert words[0] == "socratic", f"{words[0]} is not run here; mark the block"
        return self.command(shortened([self.models.get(word, word) for word in words[1:]]))


def shortened(words: list[str]) -> list[str]:
    """The same command, so that little is trained and little is written."""
    solving = ("max_steps=2", "max_tokens=8", "max_rationale_tokens=8")
    brief = {
        "train": ("max_steps=1", "limit=8", "dev_limit=2"),
        "solve": solving,
        "evaluate": solving,
        "tutor": solving,
    }
    given = {word.partition("=")[0] for word in words}
    missing = [pair for pair in brief.get(words[0], ()) if pair.partition("=")[0] not in given]
    more = ["--limit", "8"] if words[0] == "evaluate" and "--limit" not in words else []
    return [*words, *more, *(word for pair in missing for word in ("--set", pair))]


def write_data(folder: Path) -> None:
    """GSM8K, SVAMP and CommonsenseQA as their authors have them, small: sums of pens."""
    import pyarrow
    import pyarrow.parquet

    def question(a: int) -> str:
        return f"Ann has {a} pens and gets {a + 3} more. How many pens has she?"

    for config, asked in (("main", ""), ("socratic", "How many pens has she? ** ")):
        for part, numbers in (("train", range(10, 26)), ("test", range(30, 38))):
            rows = [
                {
                    "question": question(a),
                    "answer": f"{asked}{a}+{a + 3}=<<{a}+{a + 3}={2 * a + 3}>>{2 * a + 3}\n#### {2 * a + 3}",
                }
                for a in numbers
            ]
            path = folder / "gsm8k" / config / f"{part}-00000-of-00001.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    (folder / "svamp").mkdir()
    (folder / "splits").mkdir()
    numbers = range(10, 18)
    records = [
        {
            "ID": f"chal-{a}",
            "Body": question(a).split(". ")[0],
            "Question": "How many pens has she?",
            "Equation": f"( {a}.0 + {a + 3}.0 )",
            "Answer": 2.0 * a + 3,
            "Type": "Addition",
        }
        for a in numbers
    ]
    (folder / "commonsenseqa").mkdir()
    words = ("ink", "milk", "sand", "wool", "tea")
    offered = [{"label": label, "text": word} for label, word in zip("ABCDE", words, strict=True)]
    general = {"answerKey": "A", "id": "pens", "question": {"stem": "What do pens need?", "choices": offered}}
    for name in ("train", "dev"):
        (folder / "commonsenseqa" / f"{name}_rand_split.jsonl").write_text(json.dumps(general) + "\n")
    (folder / "svamp" / "SVAMP.json").write_text(json.dumps(records))
    split = {"train": list(range(6)), "test": [6, 7]}
    (folder / "splits" / "svamp__default.json").write_text(json.dumps(split))


async def teacher(endpoint: Any, body: Mapping[str, Any], sample: int) -> Received:
    """What a teacher that can add replies, in place of `Endpoint.send`."""
    asked = body["messages"][-1]["content"]
    if '{"sum"' in asked:
        text = json.dumps({"sum": "5"})
    else:
        a, b = map(int, _SUM.findall(" ".join(message["content"] for message in body["messages"]))[-1])
        step = {"question": "How many pens are that?", "answer": f"{a}+{b}=<<{a}+{b}={a + b}>>{a + b} pens"}
        text = json.dumps({"steps": [step], "answer": str(a + b)})
        if asked.startswith("Therefore"):
            text = f"{a + b}."
    message = {"role": "assistant", "content": text}
    reply = {
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18},
    }
    return Received("reply", raw=json.dumps(reply), tokens=(9, 9))
