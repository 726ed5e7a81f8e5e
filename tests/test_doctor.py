from __future__ import annotations

import json
from pathlib import Path

import pytest

from socratic.doctor import examine
from socratic.tasks import TASKS


def test_findings_are_plain_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOCRATIC_DATA", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    found = examine()
    assert json.loads(json.dumps(found)) == found
    assert found["torch"][0].isdigit()
    assert found["dtype"].startswith(("bf16", "fp32"))
    assert found["device"]
    assert found["data folder"].startswith("none")
    assert found["data sets there"] == "none"
    assert found["OPENAI_API_KEY"].startswith("not set")


def test_a_key_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-key")
    found = examine()
    assert found["OPENAI_API_KEY"] == "set"
    assert "secret" not in json.dumps(found)


def test_data_is_looked_for_in_the_folder_given_then_in_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "given" / "svamp").mkdir(parents=True)
    (tmp_path / "variable" / "gsm8k").mkdir(parents=True)
    monkeypatch.setenv("SOCRATIC_DATA", str(tmp_path / "variable"))
    assert examine(str(tmp_path / "given"))["data sets there"] == "svamp"
    assert examine()["data folder"] == str(tmp_path / "variable")
    assert examine()["data sets there"].split(", ")[0] == "gsm8k"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert examine("~/given")["data sets there"] == "svamp"
    assert examine(str(tmp_path / "absent"))["data sets there"] == "none"


def test_every_data_set_is_found_in_the_folder_of_all(data_dir: Path) -> None:
    assert examine(str(data_dir))["data sets there"].split(", ") == [name for name in TASKS if name != "stories"]
