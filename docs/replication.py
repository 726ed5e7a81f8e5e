"""Writes ``replication.md`` from ``published.yaml`` and ``results/``: ``python docs/replication.py``.

A test holds that the committed page is what this writes, and that the other pages print no published number that is not
in the ledger.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, model_validator

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "results"
HEAD = """\
<!-- Written by docs/replication.py from docs/published.yaml and results/; change these, not this file. -->

# Published numbers and ours

{count} published results, each with where it stands and how we know it: **checked** was read in the authors' own
repository, model card, saved outputs or abstract ({checked}), **recalled** is from memory of the paper and was not
checked against it ({recalled}). Beside {ours} of them stands a result of ours with its 95 % interval; what differs
between their setting and ours is said above the table. Settings, such as learning rates and sizes of data, are not
listed.
"""
_CITED = re.compile(r"et al\.|arxiv|\brecalled\b|\b\d{4}\.\d{5}\b", re.IGNORECASE)
_PRINTED = re.compile(r"(?<![\d.,])(-?\d+(?:\.\d+)?)(?=\s?(?:%|points\b))|(?<![\w.])(0?\.\d{2,3})\b")
_CELL = re.compile(r"(?<![\w.])(-?\d*\.\d+)(?![\w.])")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Strict):
    """A paper."""

    cite: str
    title: str
    arxiv: str


class Ours(_Strict):
    """A result of ours: a run with its ``metrics.json``, or an ``arm`` of one part of a ``comparison.json``.

    ``run`` may be a pattern, such as ``test/cot-s?``: the runs of several seeds.
    """

    folder: str
    run: str | None = None
    arm: str | None = None
    of: str = "test, calculator on"
    metric: Literal["correct", "strict", "majority"] = "correct"

    @model_validator(mode="after")
    def _one_of_both(self) -> Ours:
        if (self.run is None) == (self.arm is None):
            raise ValueError("ours names a run or an arm")
        return self


class Number(_Strict):
    """A published result, of which a student may be none."""

    system: str
    student: str
    value: float
    ours: Ours | None


class Group(_Strict):
    """Published results that share where they stand."""

    source: str
    where: str
    data: str
    metric: str
    status: Literal["checked", "recalled"]
    differences: str | None
    numbers: tuple[Number, ...]

    @model_validator(mode="after")
    def _says_where(self) -> Group:
        if self.status == "checked" and "not noted" in self.where:
            raise ValueError("what was checked was read somewhere: say where")
        return self

    @model_validator(mode="after")
    def _says_what_differs(self) -> Group:
        if (self.differences is None) != all(number.ours is None for number in self.numbers):
            raise ValueError("what differs is said where, and only where, a result of ours stands beside a number")
        return self


class Ledger(_Strict):
    """All of ``published.yaml``."""

    sources: dict[str, Source]
    results: tuple[Group, ...]

    @model_validator(mode="after")
    def _sources_are_known(self) -> Ledger:
        if unknown := {group.source for group in self.results} - self.sources.keys():
            raise ValueError(f"no such source: {', '.join(sorted(unknown))}")
        return self


def read_ledger(path: Path = DOCS / "published.yaml") -> Ledger:
    """The ledger; raises pydantic's `ValidationError` where a number lacks its source, its status or a field."""
    return Ledger.model_validate(yaml.safe_load(path.read_text("utf-8")))


def result(ours: Ours, results: Path = RESULTS) -> str:
    """What we measured, with its interval, problems and seeds; raises `ValueError` where there is no such result."""
    folder = results / ours.folder
    if ours.run:
        found = [json.loads(place.read_text("utf-8")) for place in sorted(folder.glob(f"{ours.run}/metrics.json"))]
        if not found:
            raise ValueError(f"no run is at {folder / ours.run}")
        seeds = len(found)
    else:
        place = folder / "comparison.json"
        rows = {row["name"]: row for row in json.loads(place.read_text("utf-8")).get(ours.of, {}).get("rows", ())}
        if ours.arm not in rows:
            raise ValueError(f"{place} has no arm {ours.arm} of {ours.of}")
        found = [rows[ours.arm]["metrics"]]
        seeds = len(rows[ours.arm]["runs"])
    rates = [metrics[ours.metric] for metrics in found]
    shares = "; ".join(map(_share, rates))
    if len(found) > 1:
        shares = f"{100 * fmean(rate['rate'] for rate in rates):.1f} % on average: {shares}"
    link = f"[{ours.folder}/{ours.run or ours.arm}](../results/{ours.folder}/README.md)"
    return f"{shares}, {found[0]['problems']:g} problems, {seeds} seed{'s' * (seeds > 1)}: {link}"


def _share(rate: dict[str, float]) -> str:
    return f"{100 * rate['rate']:.1f} % [{100 * rate['low']:.1f}, {100 * rate['high']:.1f}]"


def page(ledger: Ledger, results: Path = RESULTS) -> str:
    """``replication.md``."""
    of_status = {status: 0 for status in ("checked", "recalled")}
    for group in ledger.results:
        of_status[group.status] += len(group.numbers)
    ours = sum(number.ours is not None for group in ledger.results for number in group.numbers)
    lines = [HEAD.format(count=sum(of_status.values()), ours=ours, **of_status)]
    for key, source in ledger.sources.items():
        lines += [
            f"## {source.cite}",
            "",
            f"{source.title}, [{source.arxiv}](https://arxiv.org/abs/{source.arxiv})",
            "",
        ]
        for group in ledger.results:
            if group.source == key:
                lines += _group(group, results)
    return "\n".join(lines)


def _group(group: Group, results: Path) -> Iterator[str]:
    yield f"**{group.data}**: {group.metric}. {group.status.capitalize()}: {group.where}."
    yield from [f"Ours differs: {group.differences.strip()}", ""] if group.differences else [""]
    yield "| system | student | published | ours |"
    yield "|---|---|---|---|"
    for number in group.numbers:
        measured = result(number.ours, results) if number.ours else ""
        yield f"| {number.system} | {number.student} | {number.value:g} | {measured} |"
    yield ""


def unledgered(text: str, ledger: Ledger) -> list[str]:
    """Numbers that a page prints beside a citation and that are no value of the ledger, with the place.

    A paragraph, an item of a list or a row of a table is beside a citation where it has "et al.", an arXiv number or
    the word "recalled"; what is looked up there are per cents, points and shares such as .508. Rows are so too where
    the paragraph before their table is and ends in a colon: there every decimal number is looked up.
    """
    values = {number.value for group in ledger.results for number in group.numbers}
    found: list[str] = []
    table_is_cited = False
    for part in re.split(r"\n\s*\n|\n(?=[|*-] ?)", text):
        is_row, is_cited = part.startswith("|"), bool(_CITED.search(part))
        if not is_row:
            table_is_cited = is_cited and part.rstrip().endswith(":")
        pattern = _CELL if is_row and table_is_cited else _PRINTED
        if is_cited or pattern is _CELL:
            printed = (match[0] for match in pattern.finditer(part))
            found += [f"{number} in {part[:60]!r}" for number in printed if float(number) not in values]
    return found


if __name__ == "__main__":
    (DOCS / "replication.md").write_text(page(read_ledger()), encoding="utf-8")
