"""What the documentation states of settings is what the code has."""

from __future__ import annotations

from pathlib import Path

import pytest

from socratic.config import Settings
from socratic.loops import SolveSettings
from socratic.prepare import TrainSettings
from socratic.teacher.annotate import AskSettings
from socratic.teacher.teach import TeachSettings

DOCS = Path(__file__).parent.parent / "docs"
PAGES: dict[type[Settings], str] = {
    TrainSettings: "training.md",
    SolveSettings: "training.md",
    TeachSettings: "teaching.md",
    AskSettings: "teaching.md",
}


@pytest.mark.parametrize("settings", PAGES)
def test_every_setting_is_documented_with_its_default(settings: type[Settings]) -> None:
    text = (DOCS / PAGES[settings]).read_text(encoding="utf-8")
    for name, field in settings.model_fields.items():
        default = "" if field.is_required() else "unset" if field.default is None else field.default
        assert f"| `{name}` | {default} | {field.description} |" in text
