from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import Field, field_validator

from socratic.config import Settings, differences, nearest, parse_overrides
from socratic.prepare import TrainSettings
from socratic.solving import SolveSettings
from socratic.types import UserError


class Made(Settings):
    rate: float = Field(0.1, gt=0)
    steps: int | None = None
    kind: Literal["small", "large"] = "small"
    names: dict[str, Any] = Field(default_factory=dict)

    @field_validator("steps")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("only even numbers")
        return value


def test_values_become_fields_and_the_rest_stays_as_it_is() -> None:
    made = Made.parse({"rate": 2, "steps": 4})
    assert (made.rate, made.steps, made.kind) == (2.0, 4, "small")
    with pytest.raises(ValueError, match="frozen"):
        made.rate = 3.0


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rat": 1}, "unknown setting 'rat'; did you mean 'rate'?"),
        ({"zzz": 1}, "unknown setting 'zzz'; did you mean '"),
        ({"rate": 0}, "setting rate=0 is not usable: Input should be greater than 0"),
        ({"rate": "fast"}, "setting rate='fast' is not usable: "),
        ({"steps": 3}, "setting steps=3 is not usable: only even numbers"),
        ({"steps": 2.5}, "setting steps=2.5 is not usable: "),
        ({"kind": "middle"}, "setting kind='middle' is not usable: Input should be 'small' or 'large'"),
    ],
)
def test_a_bad_value_is_one_sentence_with_key_value_and_fix(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        Made.parse(values)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "meant"), [("lr", "learning_rate"), ("bs", "batch_size"), ("rank", "lora_rank")])
def test_an_abbreviation_is_the_first_setting_with_these_initials(name: str, meant: str) -> None:
    assert nearest(name, TrainSettings.model_fields) == meant


@pytest.mark.parametrize("values", [{"rate": True}, {"rate": "2"}, {"steps": "4"}, {"steps": True}, {"steps": 4.0}])
def test_a_wrong_type_is_not_converted(values: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="is not usable"):
        Made.parse(values)


def test_the_place_of_a_fault_can_be_named() -> None:
    with pytest.raises(UserError, match=r"unknown card\.json field 'rat'"):
        Made.parse({"rat": 1}, where="card.json field")


def test_overrides_are_read_as_yaml_scalars() -> None:
    pairs = [
        "lr=3e-4",
        "most=1e3",
        "seed=1",
        " name =a b",
        "on=true",
        "none=null",
        "empty=",
        "set={a: 1}",
        "text='3e4'",
        "word=nan",
        "a=b=c",
    ]
    assert parse_overrides(pairs) == {
        "lr": 0.0003,
        "most": 1000,
        "seed": 1,
        "name": "a b",
        "on": True,
        "none": None,
        "empty": None,
        "set": {"a": 1},
        "text": "3e4",
        "word": "nan",
        "a": "b=c",
    }


@pytest.mark.parametrize("pair", ["epochs", "=3", "", "epochs=[", "epochs='"])
def test_an_override_that_cannot_be_read_is_named(pair: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_overrides([pair])
    assert repr(pair) in str(caught.value)


def test_differences_name_every_setting_however_deep() -> None:
    old = {"seed": 1, "lm": {"hash": "a", "name": "x"}, "gone": None, "empty": {}}
    new = {"seed": 1, "lm": {"hash": "b", "name": "x"}, "added": [1], "empty": {}}
    assert differences(old, new) == ["lm.hash: 'a', now 'b'", "gone: None, now not set", "added: not set, now [1]"]
    assert differences(new, new) == []


@pytest.mark.parametrize("settings", [TrainSettings, SolveSettings])
def test_every_setting_a_user_can_give_says_what_it_does(settings: type[Settings]) -> None:
    assert [name for name, field in settings.model_fields.items() if not field.description] == []
    settings.parse(settings().model_dump())
