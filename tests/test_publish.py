"""Pushing students and data sets to a Hub that stands here."""

from __future__ import annotations

import base64
import http.server
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import DatasetCard, ModelCard, constants
from test_cli import Cli, chains, cli, write_jsonl
from test_train import fit
from test_trainer import CHAINS, save_tiny

from socratic.lm.checkpoint import read_card
from socratic.lm.load import load_lm
from socratic.store import check_manifest
from socratic.types import Step

__all__ = ["chains", "cli"]


class Hub(http.server.ThreadingHTTPServer):
    """As much of the Hub as a push speaks to; ``refuse`` is a status to answer everything with."""

    refuse = 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.private: dict[str, bool] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Answering(http.server.BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.refuse or self.headers["Authorization"] != "Bearer hf_secret":
            return self.answer({"error": "Invalid username or password."}, self.server.refuse or 401)
        where = self.path.split("?")[0].split("/")
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            self.server.private.setdefault(name, asked.get("private") or asked.get("visibility") == "private")
            prefix = "datasets/" if asked.get("type") == "dataset" else ""
            return self.answer({"url": f"{self.server.url}/{prefix}{name}", "name": name})
        if where[2] == "validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if where[5] == "preupload":
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self.answer({"files": files})
        for line in body.splitlines():
            said = json.loads(line)
            if said["key"] == "file":
                kept = self.server.files.setdefault(f"{where[2]}/{where[3]}/{where[4]}", {})
                kept[said["value"]["path"]] = base64.b64decode(said["value"]["content"])
        there = f"{self.server.url}/{where[3]}/{where[4]}/commit/{'0' * 40}"
        return self.answer({"success": True, "commitOid": "0" * 40, "commitUrl": there})

    def do_GET(self) -> None:
        if (found := re.fullmatch(r"/api/models/(.+)/(revision|tree)/[^/]+", self.path.split("?")[0])) is not None:
            names = self.server.files[f"models/{found[1]}"]
            if found[2] == "tree":
                tree = [{"type": "file", "path": n, "size": len(data), "oid": n} for n, data in names.items()]
                return self.answer(tree)
            siblings = [{"rfilename": name} for name in names]
            return self.answer({"id": found[1], "sha": "0" * 40, "siblings": siblings, "tags": []})
        asked = re.fullmatch(r"/(.+)/resolve/[^/]+/(.+)", self.path)
        data, file = None, self.path
        if asked:
            data, file = self.server.files.get(f"models/{asked[1]}", {}).get(asked[2]), asked[2]
        self.send_response(200 if data is not None else 404)
        self.send_header("Content-Length", str(len(data or b"")))
        self.send_header("ETag", f'"{file}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        if data is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data or b"")

    do_HEAD = do_GET

    def answer(self, value: Any, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: Any) -> None:
        """Nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A Hub that knows the token, which the client finds where it looks for one."""
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    address = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_student_is_pushed_with_its_card_and_not_trained_again(
    cli: Cli, hub: Hub, chains: Path, tmp_path: Path
) -> None:
    out = tmp_path / "asker"
    settings = ["--set", "max_steps=2", "--set", "precision=fp32", "--set", "batch_size=2"]
    command = ["train", "qg", "--chains", chains, "--student", "scratch:llama-micro", "--out", out, *settings]
    assert cli(*command).code == 0
    trained = (out / "model.safetensors").stat().st_mtime_ns
    result = cli(*command, "--push-to-hub", "me/asker")
    assert (result.code, (out / "model.safetensors").stat().st_mtime_ns) == (0, trained)
    assert f"pushed to {hub.url}/me/asker" in result.err
    assert hub.private == {"me/asker": True}
    pushed = hub.files["models/me/asker"]
    assert {"model.safetensors", "tokenizer.json", "socratic.json", "manifest.json", "README.md"} <= pushed.keys()
    assert not any(b"hf_secret" in data for data in pushed.values())
    pushed["README.md"] += b"Its owner's words.\n"
    loaded = load_lm("me/asker", device="cpu", dtype="fp32")
    assert (loaded.role, loaded.name) == ("qg", "asker")

    card: Any = ModelCard(pushed["README.md"].decode())
    assert card.data.to_dict() == {"library_name": "transformers", "tags": ["socratic", "qg"]}
    end = read_card(out).end_text
    assert f"\nQ: How many rolls does the bakery bake?{end}    <- the student\nA: It bakes" in card.text
    assert f"\nQ:{end}    <- the student\n```" in card.text
    assert "| trained on | 3 chains of mine.jsonl |" in card.text
    assert read_card(out).data["sha256"] in card.text
    assert str(tmp_path) not in card.text


def test_a_merged_student_is_pushed_and_names_the_teacher(cli: Cli, hub: Hub, tmp_path: Path) -> None:
    taught = [type(c)(**{**vars(c), "source": "teacher:gpt-9"}) for c in CHAINS]
    fit(save_tiny(tmp_path / "base", "llama"), tmp_path / "adapter", "qa", taught, max_steps=2, lora_rank=2)
    result = cli("merge", tmp_path / "adapter", "--out", tmp_path / "full", "--push-to-hub", "lab/answerer")
    assert (result.code, result.err) == (0, f"pushed to {hub.url}/lab/answerer\n")
    text = hub.files["models/lab/answerer"]["README.md"].decode()
    assert "The terms of use of gpt-9 apply" in text
    assert "| kind | full model |" in text
    hub.files.clear()
    assert cli("merge", tmp_path / "adapter", "--out", tmp_path / "full", "--push-to-hub", "lab/answerer").code == 0
    assert hub.files


def test_a_data_set_is_pushed_with_its_card(cli: Cli, hub: Hub, tmp_path: Path) -> None:
    wrong = [Step("How many?", "It is 5.")]
    records = [c.to_json() | {"source": "teacher:gpt-9", "final_answer": c.answer} for c in CHAINS]
    records.append(records[0] | {"problem_id": "other", "steps": [vars(step) for step in wrong], "final_answer": "5"})
    given = write_jsonl(tmp_path / "chains.jsonl", *records)
    result = cli("curate", given, "--out", tmp_path / "kept.jsonl", "--push-to-hub", "me/chains", "--json")
    assert (result.code, f"pushed to {hub.url}/datasets/me/chains" in result.err) == (0, True)
    pushed = hub.files["datasets/me/chains"]
    assert pushed["kept.jsonl"] == (tmp_path / "kept.jsonl").read_bytes()
    card: Any = DatasetCard(pushed["README.md"].decode())
    said = card.data.to_dict()
    assert said["configs"] == [{"config_name": "default", "data_files": "kept.jsonl"}]
    assert said["size_categories"] == "n<1K"
    assert "The terms of use of gpt-9 apply" in card.text
    assert f"| written by | teacher:gpt-9 ({result.json['kept']}) |" in card.text
    assert f"| kept | {result.json['kept']} |" in card.text


@pytest.mark.parametrize("fault", ["no token", "refused", "nobody there", "no name"])
def test_what_is_not_pushed_is_one_sentence_and_nothing_is_lost(
    fault: str, cli: Cli, hub: Hub, chains: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = "me/chains"
    if fault == "no token":
        monkeypatch.delenv("HF_TOKEN")
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    elif fault == "refused":
        hub.refuse = 403
    elif fault == "nobody there":
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    else:
        repo = "a/b/c"
    result = cli("curate", chains, "--out", tmp_path / "kept.jsonl", "--push-to-hub", repo)
    assert result.code == 2
    assert result.err.startswith(f"socratic: nothing was pushed to {repo} (")
    assert (result.err.count("\n"), "hf_secret" in result.err) == (1, False)
    assert (tmp_path / "kept.jsonl").is_file()


def test_a_push_of_nothing_is_refused(cli: Cli, chains: Path) -> None:
    result = cli("curate", chains, "--push-to-hub", "me/chains")
    assert (result.code, "name it with --out" in result.err) == (2, True)


def test_the_card_may_be_rewritten(tmp_path: Path) -> None:
    fit(save_tiny(tmp_path / "base"), tmp_path / "student", max_steps=1)
    (tmp_path / "student" / "README.md").write_text("mine\n")
    assert check_manifest(tmp_path / "student") is None
