"""What the documentation states of settings is what the code has."""

from __future__ import annotations

from pathlib import Path

import pytest

from socratic.config import Settings
from socratic.loops import SolveSettings
from socratic.prepare import TrainSettings

TRAINING = Path(__file__).parent.parent / "docs" / "training.md"


@pytest.mark.parametrize("settings", [TrainSettings, SolveSettings])
def test_every_setting_is_documented_with_its_default(settings: type[Settings]) -> None:
    text = TRAINING.read_text(encoding="utf-8")
    for name, field in settings.model_fields.items():
        default = "unset" if field.default is None else field.default
        assert f"| `{name}` | {default} | {field.description} |" in text
