"""Typed settings: every field documented, an unknown key is an error that names the nearest known one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from socratic.types import UserError

_EXPONENT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]{1,3}", re.ASCII)


class Settings(BaseModel):
    """Base of all settings: immutable, no unknown keys, no silent conversion of a wrong type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str = "setting") -> Self:
        """Settings from ``values``; raises `UserError` that names the first offending key, its value and the fix."""
        for key in values:
            if key not in cls.model_fields:
                raise UserError(f"unknown {where} {key!r}; did you mean {nearest(key, cls.model_fields)!r}?")
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"]) or "value"
            if first["type"] == "missing":
                raise UserError(f"{where} {key!r} is missing; give it") from None
            message = first["msg"].removeprefix("Value error, ")
            raise UserError(f"{where} {key}={first['input']!r} is not usable: {message}") from None


def nearest(name: object, known: Iterable[object]) -> str:
    """The known name that ``name`` abbreviates (``lr``), else the one most like it; ``""`` where none is known."""
    names = list(map(str, known))
    meant = [whole for whole in names if "".join(word[:1] for word in whole.split("_")) == str(name)]
    return next(iter(meant or difflib.get_close_matches(str(name), names, n=1, cutoff=0.0)), "")


def parse_overrides(pairs: Iterable[str]) -> dict[str, Any]:
    """``["lr=3e-4", "seed=1"]`` -> ``{"lr": 0.0003, "seed": 1}``; values are read as YAML scalars."""
    overrides: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key.strip():
            raise UserError(f"override {pair!r} is not of the form key=value")
        try:
            overrides[key.strip()] = _scalar(value)
        except yaml.YAMLError:
            raise UserError(f"override {pair!r}: the value is not readable YAML; quote it") from None
    return overrides


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Every setting whose value differs, as ``name: old, now new``."""
    first, second = _flat(old), _flat(new)
    absent = "not set"
    return [
        f"{name}: {first.get(name, absent)}, now {second.get(name, absent)}"
        for name in first | second
        if first.get(name, absent) != second.get(name, absent)
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as ``a.b`` -> text of the value."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = repr(value)
    return flat


def _scalar(text: str) -> Any:
    """YAML reads ``3e-4`` as text (it wants ``3.0e-4``); people write the former, and ``1e3`` for 1,000."""
    if _EXPONENT.fullmatch(text.strip()):
        value = float(text)
        return int(value) if value.is_integer() else value
    return yaml.safe_load(text)


@contextmanager
def error_of(place: str) -> Iterator[None]:
    """Raise a `UserError` again as that of ``place``."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
