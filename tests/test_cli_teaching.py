from __future__ import annotations

from pathlib import Path

from test_cli import Cli, cli, write_jsonl
from test_curate import GOOD, with_step

__all__ = ["cli"]


def test_curated_chains_and_their_yields(cli: Cli, tmp_path: Path) -> None:
    wrong = with_step(1, question="")
    file = write_jsonl(tmp_path / "chains.jsonl", GOOD.to_json(), wrong.to_json(), GOOD.to_json())
    out, rejects = tmp_path / "kept.jsonl", tmp_path / "rejects.jsonl"
    result = cli("curate", file, "--out", out, "--rejects", rejects)
    assert result.code == 0
    assert "3 chains of 1 problems; 1 problems keep one or more" in result.out
    assert cli("curate", out, "--json").json == {"chains": 1, "problems": 1, "problems_kept": 1, "kept": 1}
    yields = cli("curate", rejects, "--json").json
    assert yields == {"chains": 2, "problems": 1, "problems_kept": 1, "kept": 1, "empty_question": 1}
    assert [line.split('"rejected": ')[1].split("}")[0] for line in rejects.read_text().splitlines()] == [
        '"empty_question"',
        '"duplicate"',
    ]


def test_gold_can_be_curated(cli: Cli) -> None:
    result = cli("curate", "gold:stories", "--json")
    assert result.json["kept"] == result.json["chains"] > 1000
    assert cli("curate", "gold:nothing").code == 2
    assert cli("curate", "nowhere.jsonl").code == 2
