from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socratic import store
from socratic.types import Problem, Step, Trace, UserError

PROBLEM = Problem("d/test/1", "d", "test", "Which?", "B", "choice", ("x", "y"), None, {"row": 1})
TRACE = Trace("d/test/1", 0, "cot", (Step("", "x"),), "x\n#### B", "B", "finished", None, False, 5, 0.25, "1")


def test_atomic_write_keeps_the_old_file_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "file"
    store.atomic_write(path, b"old")

    def disk_full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OSError, match="No space"):
        store.atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("place", ["folder", "pipe", "file/a", "file/a/b", "x" * 300, "/proc/none/file"])
def test_a_place_that_cannot_be_written_is_named(place: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=rf"{place} cannot be written \(.*\); choose another place"):
        store.atomic_write(tmp_path / place, b"new")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "pipe"]


def test_a_full_disk_is_no_mistake_in_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def disk_full(path: Path, exist_ok: bool) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "touch", disk_full)
    with pytest.raises(OSError, match="No space"):
        store.atomic_write(tmp_path / "file", b"new")


def test_a_failing_record_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.write_jsonl(tmp_path / "a.jsonl", [{"x": 1}, {"x": float("nan")}])
    assert list(tmp_path.iterdir()) == []


texts = st.text() | st.sampled_from(["a\nb\r\n\u2028\x85\x00", "½ 🙂"])


@given(st.lists(st.dictionaries(texts, texts | st.integers() | st.none()), max_size=5))
def test_jsonl_round_trip(tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, object]]) -> None:
    path = tmp_path_factory.getbasetemp() / "round.jsonl"
    store.write_jsonl(path, records)
    assert list(store.read_jsonl(path)) == records


def test_a_lone_surrogate_does_not_stop_a_run(tmp_path: Path) -> None:
    with store.JsonlAppender(tmp_path / "a.jsonl") as log:
        log.append({"raw": "a\ud83d"})
    assert list(store.read_jsonl(tmp_path / "a.jsonl")) == [{"raw": "a?"}]


@pytest.mark.parametrize(
    "line",
    [
        b'{"a": 1',
        b'{"a": "\xff"}',
        b"[1]",
        b'{"a": NaN}',
        b"[" * 100_000,
        b'{"a": ' + b"9" * 5000 + b"}",
        b"\xef\xbb\xbf{}",
        b"\x00\x00",
    ],
    ids=["cut", "not utf-8", "list", "nan", "deep", "long digits", "bom", "nul"],
)
def test_a_bad_line_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n\n' + line + b"\n")
    with pytest.raises(UserError, match=r"a\.jsonl:3: ") as caught:
        list(store.read_jsonl(path))
    assert "\n" not in str(caught.value)


def test_absent_files_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(UserError, match=str(path)):
            list(store.read_jsonl(path))
        with pytest.raises(UserError, match=str(path)):
            store.read_json(path)


def test_records_come_back_equal(tmp_path: Path) -> None:
    store.write_jsonl(tmp_path / "p.jsonl", [PROBLEM.to_json()])
    store.write_jsonl(tmp_path / "t.jsonl", [TRACE.to_json()])
    assert list(store.read_records(tmp_path / "p.jsonl", Problem)) == [PROBLEM]
    assert list(store.read_records(tmp_path / "t.jsonl", Trace)) == [TRACE]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"tokens": "5"}, "tokens"),
        ({"raw": None}, "raw"),
        ({"stop_reason": "bored"}, "stop_reason"),
        ({"extra": 1}, "extra"),
        ({"steps": [{"question": 1, "answer": "x"}]}, "steps.0.question"),
        ({"steps": 3}, "steps"),
    ],
)
def test_a_record_with_a_wrong_field_is_refused_by_line_and_field(
    tmp_path: Path, change: dict[str, object], field: str
) -> None:
    store.write_jsonl(tmp_path / "t.jsonl", [TRACE.to_json(), {**TRACE.to_json(), **change}])
    with pytest.raises(UserError, match=rf"t\.jsonl:2: field '{field}' of this trace"):
        list(store.read_records(tmp_path / "t.jsonl", Trace))


def test_a_missing_field_is_refused(tmp_path: Path) -> None:
    store.write_jsonl(tmp_path / "p.jsonl", [{"id": "1"}])
    with pytest.raises(UserError, match=r"p\.jsonl:1: field 'dataset' of this problem"):
        list(store.read_records(tmp_path / "p.jsonl", Problem))


@pytest.mark.parametrize("cut", range(1, len('{"n": 1}\n')))
def test_a_torn_last_line_is_cut_when_appending_goes_on(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"n": 0}\n{"n": 1}\n'[:-cut])
    with store.JsonlAppender(path) as log:
        log.append({"n": 2})
    assert list(store.read_jsonl(path)) == [{"n": 0}, {"n": 2}]


@pytest.mark.parametrize("torn", [1, 65535, 65536, 200_000])
@pytest.mark.parametrize("whole", [b"", b'{"n": 0}\n'])
def test_a_long_torn_line_is_cut(tmp_path: Path, whole: bytes, torn: int) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(whole + b"x" * torn)
    store.JsonlAppender(path).close()
    assert path.read_bytes() == whole


def test_only_a_torn_last_line_is_left_out_of_records(tmp_path: Path) -> None:
    line = json.dumps(TRACE.to_json()).encode()
    path = tmp_path / "t.jsonl"
    path.write_bytes(line + b"\n" + line[:-9])
    assert list(store.read_records(path, Trace, allow_torn_tail=True)) == [TRACE]
    with pytest.raises(UserError, match=r"t\.jsonl:2"):
        list(store.read_records(path, Trace))
    path.write_bytes(line[:-9] + b"\n" + line + b"\n")
    with pytest.raises(UserError, match=r"t\.jsonl:1"):
        list(store.read_records(path, Trace, allow_torn_tail=True))


HOLD = """
import sys, time
from pathlib import Path
from socratic import store
with store.lock(Path(sys.argv[1])):
    print("held", flush=True)
    {body}
    time.sleep(60)
"""


def hold(folder: Path, body: str = "pass") -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(body=body), str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_told_who_holds_the_folder_until_the_holder_dies(tmp_path: Path) -> None:
    process = hold(tmp_path)
    try:
        with pytest.raises(UserError, match=rf"in use by process {process.pid} \(-c .*\)"), store.lock(tmp_path):
            pass
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        if process.stdout:
            process.stdout.close()
    with store.lock(tmp_path):
        pass


def test_a_forked_worker_does_not_keep_the_lock_of_its_killed_parent(tmp_path: Path) -> None:
    process = hold(tmp_path, "import os; os.fork() or print(os.getpid(), flush=True)")
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        process.send_signal(signal.SIGKILL)
        process.wait()
        os.kill(child, 0)
        with store.lock(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()


def test_one_of_many_racers_proceeds(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom socratic import store\nfrom socratic.types import UserError\n"
        "start = float(sys.argv[2])\ntime.sleep(max(0, start - time.time()))\n"
        "try:\n    with store.lock(Path(sys.argv[1])):\n        print('won', flush=True)\n        sys.stdin.read()\n"
        "except UserError as error:\n    print(error, flush=True)\n"
    )
    start = str(time.time() + 1)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), start],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    said = [racer.stdout.readline() for racer in racers if racer.stdout]
    for racer in racers:
        racer.communicate()
    assert said.count("won\n") == 1
    assert sum("in use by" in line for line in said) == 3


def test_the_lock_is_free_after_an_error_and_excludes_its_own_process(tmp_path: Path) -> None:
    def fail() -> None:
        with store.lock(tmp_path / "run"):
            with pytest.raises(UserError, match=f"process {os.getpid()}"), store.lock(tmp_path / "run"):
                pass
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with store.lock(tmp_path / "run"):
        pass


def test_a_file_is_no_folder_to_lock(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    wrong = pytest.raises(UserError, match=r"file cannot be written to .*; choose another folder")
    with wrong, store.lock(tmp_path / "file"):
        pass


def test_hashes_are_of_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert store.hash_file(tmp_path / "a") == store.hash_text("abc") == digest
    assert store.hash_json({"a": 1, "b": [2]}) == store.hash_json({"b": [2], "a": 1})
    assert store.hash_json({"a": 1}) != store.hash_json({"a": "1"})


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    (folder / "sub").mkdir(parents=True)
    (folder / "weights").write_bytes(b"0123456789")
    (folder / "sub" / "config").write_bytes(b"{}")
    with store.lock(folder):
        store.write_manifest(folder)
    return folder


def test_a_whole_folder_passes(checkpoint: Path) -> None:
    assert store.check_manifest(checkpoint) is None
    (checkpoint / "report.html").write_text("added later")
    assert store.check_manifest(checkpoint) is None
    files = store.read_json(checkpoint / "manifest.json")["files"]
    assert sorted(files) == ["sub/config", "weights"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("weights", b"012345678", "has 9 bytes"),
        ("weights", b"0123456780", "recorded SHA-256"),
        ("sub/config", None, "is missing"),
        ("manifest.json", None, "cannot be read"),
        ("manifest.json", b'{"files": {', "not valid JSON"),
        ("manifest.json", b'{"files": [1]}', "is not a manifest"),
        ("manifest.json", b"[]", "is not a manifest"),
        ("manifest.json", b'{"files": {"../x": {"size": 1, "sha256": ""}}}', "lies outside"),
    ],
)
def test_a_broken_folder_says_what_is_wrong(checkpoint: Path, name: str, content: bytes | None, said: str) -> None:
    (checkpoint / name).unlink()
    if content is not None:
        (checkpoint / name).write_bytes(content)
    assert said in (store.check_manifest(checkpoint) or "whole")


def test_a_file_is_no_folder_to_append_in(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"x\.jsonl cannot be written to \(.*\); choose another file"):
        store.JsonlAppender(tmp_path / "file" / "x.jsonl")
