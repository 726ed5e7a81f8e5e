"""Reading of data files, shared by all data sets: every file becomes a list of `Row`, every fault one sentence."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from socratic.calculator import format_result
from socratic.types import UserError

# Bounded, so that 1e999999999 is refused rather than computed.
_NUMBER = re.compile(r"[-+]?\d{1,30}(\.\d{0,30})?([eE][-+]?\d{1,2})?")


@dataclass(frozen=True)
class Row:
    """One record and where it stands: ``FILE:LINE``, or ``FILE, record N`` (from 0, as in ids) without lines."""

    where: str
    values: Mapping[str, Any]

    def get(self, column: str) -> Any:
        """The value of ``column``; raises `UserError` where the record has no such column."""
        if column not in self.values:
            have = ", ".join(sorted(self.values)) or "none"
            raise UserError(f"{self.where} has no column {column!r} (it has: {have}); add or rename it")
        return self.values[column]

    def text(self, column: str) -> str:
        """The text in ``column``, stripped; raises `UserError` where it is not text, blank, or not valid Unicode."""
        return clean_text(self.get(column), f"{self.where}: {column!r}")

    def texts(self, column: str) -> list[str]:
        """The list of texts in ``column``, each as `text` has it."""
        values = self.get(column)
        if not isinstance(values, list) or not values:
            raise UserError(
                f"{self.where}: {column!r} must be a list of texts with at least one entry, not {values!r:.60}"
            )
        return [clean_text(value, f"{self.where}: entry {i} of {column!r}") for i, value in enumerate(values)]


@dataclass(frozen=True)
class Hub:
    """A copy of a data set on the Hub; ``columns`` gives its name for each of ours that it calls otherwise."""

    repository: str
    config: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)


def clean_text(value: Any, where: str) -> str:
    """``value`` stripped of surrounding whitespace; raises `UserError` where it is blank or no valid text."""
    if value is None or (isinstance(value, str) and not value.strip()):
        raise UserError(f"{where} is empty; fill it in or remove the record")
    if not isinstance(value, str):
        raise UserError(f"{where} is {value!r:.60}, not text; write it as text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{where} holds half a surrogate pair, which is not text; correct that character") from None
    return value.strip()


def number_text(value: Any, where: str) -> str:
    """A JSON number, or its text, as a gold is written: ``51.0`` -> ``51``, ``0.6666666666666666`` -> ``2/3``.

    Raises `UserError` where it is no finite number.
    """
    if value is None or value == "":
        raise UserError(f"{where} is empty; fill it in or remove the record")
    text = value.strip() if isinstance(value, str) else repr(value)
    if isinstance(value, bool) or not _NUMBER.fullmatch(text):
        raise UserError(
            f"{where} is {value!r:.60}, not a finite number of at most 30 digits; correct it, or write it as text"
        )
    if isinstance(value, float) and abs(value) >= 2**53 and value % 10:  # JSON may have lost digits of it
        raise UserError(f"{where} is {text}, too large to be exact in JSON with its decimals; write it as text")
    fraction = recover_fraction(Fraction(text))
    decimal = format_result(fraction)
    return decimal if Fraction(decimal) == fraction else str(fraction)


def recover_fraction(value: Fraction) -> Fraction:
    """The fraction with denominator at most 1,000 that a long decimal stands for, else ``value`` itself."""
    near = value.limit_denominator(1000)
    return near if abs(near - value) <= abs(value) / 10**12 else value


def read_rows(path: Path) -> list[Row]:
    """The records of a ``.parquet``, ``.csv``, ``.jsonl`` or ``.json`` file (an array, or one object a line).

    Raises `UserError`, with the line where there is one, for a file that is missing, empty, torn or malformed.
    """
    if path.suffix == ".parquet":
        rows = _parquet_rows(path)
    else:
        text = _read_text(path)
        if path.suffix == ".csv":
            rows = list(_csv_rows(path, text))
        elif text.lstrip().startswith("["):
            rows = records(path, parse_json(text, str(path)))
        else:
            rows = list(_json_lines(path, text))
    if not rows:
        raise UserError(f"{path} is empty; it needs at least one record")
    return rows


def line_rows(where: str, text: str, **values: str) -> list[Row]:
    """The records of JSON lines or a JSON array; of any other text, each line is a ``question``, with ``values``."""
    if not text.strip():
        raise UserError(f"{where} is empty; it needs at least one record")
    if re.match(r"\s*\[\s*\{", text):
        return records(where, parse_json(text, where))
    if text.lstrip().startswith("{"):
        return list(_json_lines(where, text))
    lines = enumerate(text.split("\n"), start=1)
    return [Row(f"{where}:{number}", {"question": line, **values}) for number, line in lines if line.strip()]


def read_json(path: Path) -> Any:
    """The JSON value in ``path``; NaN is let through, so that whoever reads it can name the record."""
    return parse_json(_read_text(path), str(path))


def parse_json(text: str, where: str) -> Any:
    """The JSON value in ``text``; raises `UserError` that begins with ``where``."""
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        line = f", line {error.lineno}" if "\n" in text.strip() else ""
        raise UserError(f"{where}{line}: not valid JSON ({error.msg}); correct it") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not valid JSON ({error}); correct it") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        doubled = next(key for key in values if [name for name, _ in pairs].count(key) > 1)
        raise ValueError(f"the key {doubled!r} stands in it more than once")
    return values


def records(path: Path | str, values: Any) -> list[Row]:
    """A list of JSON objects as rows; anything else raises `UserError`."""
    if not isinstance(values, list):
        raise UserError(f"{path} does not hold a list of records; write [{{…}}, {{…}}]")
    rows = []
    for number, value in enumerate(values):
        if not isinstance(value, dict):
            raise UserError(f"{path}, record {number}: {value!r:.60} is not a JSON object; correct it")
        rows.append(Row(f"{path}, record {number}", value))
    return rows


def hub_rows(hub: Hub, split: str) -> list[Row]:
    """The records of ``split`` of a data set on the Hub; raises `UserError` where it cannot be fetched."""
    import datasets
    import huggingface_hub

    huggingface_hub.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    hint = "pass --data-dir or set SOCRATIC_DATA to a folder with the authors' files"
    try:
        table = datasets.load_dataset(hub.repository, hub.config, split=split)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{hub.repository} could not be loaded from the Hub ({reason}); {hint}") from None
    ours = {theirs: column for column, theirs in hub.columns.items()}
    return [
        Row(
            f"{hub.repository} ({split}), record {number}", {ours.get(key, key): value for key, value in record.items()}
        )
        for number, record in enumerate(table)
    ]


def _read_text(path: Path) -> str:
    data = _read_bytes(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}:{line}: not valid UTF-8 (byte {data[error.start]:#04x}); save the file as UTF-8"
        ) from None


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; check the path, --data-dir and SOCRATIC_DATA") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check the path") from None
    if not data.strip():
        raise UserError(f"{path} is empty; it needs at least one record")
    return data


def _json_lines(path: Path | str, text: str) -> Iterator[Row]:
    # Not splitlines(): JSON text may hold U+2028 and its like unescaped.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{path}:{number}"
            if line.strip() == "{":
                raise UserError(f"{where}: a record goes over several lines; write one a line, or [{{…}}, {{…}}]")
            value = parse_json(line, where)
            if not isinstance(value, dict):
                raise UserError(f"{where}: {line.strip()[:40]!r} is not a JSON object; write one object a line")
            yield Row(where, value)


def _csv_rows(path: Path, text: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: Sequence[str] | None = None
    start = 1
    try:
        for cells in reader:
            where = f"{path}:{start}"
            start = reader.line_num + 1
            if header is None:
                header = [name.strip() for name in cells]
                doubled = [name for name in header if header.count(name) > 1]
                if doubled:
                    raise UserError(f"{where}: two columns are called {doubled[0]!r}; rename one")
                if len(header) == 1 and (mark := next((mark for mark in ";\t|" if mark in header[0]), None)):
                    raise UserError(f"{where}: {mark!r} separates the columns; save the file with commas")
            elif cells:
                if len(cells) != len(header):
                    raise UserError(
                        f"{where}: {len(cells)} cells under a header of {len(header)}; quote cells with commas"
                    )
                yield Row(where, dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: not valid CSV ({error}); correct that line") from None


def _parquet_rows(path: Path) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    data = _read_bytes(path)
    try:
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(data)).to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is not a whole parquet file ({reason}); fetch it again") from None
    return [Row(f"{path}, record {number}", values) for number, values in enumerate(table)]
