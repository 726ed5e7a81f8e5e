"""What is the engine's own; that it writes what transformers writes stands in `test_causal`, which runs over it too."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from test_causal import SHORT, decode
from tiny import FAMILIES, byte_tokenizer, causal_model, problems, solved

from socratic.lm import engine, kernels
from socratic.lm.backends import TorchBackend
from socratic.lm.base import Request
from socratic.lm.engine import EngineLM
from socratic.tokens import Codec
from socratic.types import Completion, UserError


def made(family: str = "llama", pages: int | None = 600, **model: Any) -> EngineLM:
    tokenizer = byte_tokenizer(family)
    return EngineLM(causal_model(family, tokenizer, **model), Codec(tokenizer), family, pages=pages)


def raws(qg: EngineLM, qa: EngineLM, **how: Any) -> list[str]:
    return [trace.raw for trace in solved(problems(12), qg=qg, qa=qa, **{**SHORT, **how})]


@pytest.mark.parametrize("family", FAMILIES)
def test_pages_that_run_out_change_nothing(family: str) -> None:
    plenty = raws(made(family), made(family, seed=1))
    scarce = made(family, pages=20), made(family, pages=14, seed=1)
    assert raws(*scarce) == plenty
    assert raws(*scarce, batch_size=2) == plenty


def test_pages_come_back() -> None:
    lm = made(pages=40)
    for _ in range(3):
        solved(problems(6), "unified", lm=lm, **SHORT)
        assert sorted(lm.pages.free) == list(range(40))


@pytest.mark.parametrize("tokens", [1, 7, 33])
def test_the_size_of_a_turn_changes_nothing(tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = raws(made(), made(seed=1))
    monkeypatch.setattr(engine, "_TOKENS", tokens)
    assert raws(made(), made(seed=1)) == whole


def test_what_is_padded_is_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(seed: int) -> EngineLM:
        lm = made(seed=seed)
        lm.backend = TorchBackend(lm.dense, lm.pages)
        return lm

    whole = raws(slow(0), slow(1))
    scores = list[int]()
    begin = TorchBackend.begin

    def counting(self: TorchBackend, batch: Any) -> None:
        begin(self, batch)
        rows, longest = self.padded
        scores.append(rows * longest * (int(batch.position.max()) + 1))

    monkeypatch.setattr(TorchBackend, "begin", counting)
    monkeypatch.setattr(engine, "_PADDED_SCORES", 2_000)
    assert raws(slow(0), slow(1)) == whole
    assert 200 < max(scores) <= 2_000


def test_a_fork_goes_its_own_way() -> None:
    lm = made()
    session = lm.session()
    session.write_problem("Problem: Some text")
    session.write_marker("question")
    decode(lm, session)
    session.write_marker("answer")
    fork, fresh = session.fork(), lm.session()
    mark = fork.mark()
    fresh.ids = list(session.ids)
    fork.write_slot(" something quite different")
    fork.write_marker("question")
    decode(lm, fork)
    assert decode(lm, session) == decode(lm, fresh)
    fork.crop(mark)
    assert decode(lm, fork).text == decode(lm, made_again(lm, fork.ids[:mark])).text


def test_a_fork_without_pages_to_spare_reads_again() -> None:
    lm = made(pages=4)
    session = lm.session()
    session.write_problem("Problem: " + "x" * 20)
    session.write_marker("question")
    decode(lm, session, tokens=4)
    lm.pages.free, held = [], lm.pages.free
    fork = session.fork()
    assert (fork.cache, fork.cached, fork.ids) == (None, 0, session.ids)
    lm.pages.free = held
    for other in (session, fork):
        other.write_marker("answer")
    assert decode(lm, fork, tokens=4) == decode(lm, session, tokens=4)


def made_again(lm: EngineLM, ids: list[int]) -> Any:
    session = lm.session()
    session.ids = list(ids)
    return session


def test_memory_is_checked_before_anything_is_solved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=200_000))
    with pytest.raises(UserError, match=r"llama needs 0\.0 GiB of KV cache for one sequence of 1024 tokens"):
        made(pages=None)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=20_000_000))
    assert 64 <= made(pages=None).pages.count < 60_000


def test_a_control_groups_memory_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=200_000_000))
    monkeypatch.setattr(engine, "_CGROUP", tmp_path)
    (tmp_path / "memory.current").write_text("10000000\n")
    (tmp_path / "memory.max").write_text("max\n")
    roomy = made(pages=None).pages.count
    (tmp_path / "memory.max").write_text("30000000\n")
    assert made(pages=None).pages.count == pytest.approx(roomy / 10, rel=0.01)


def test_without_a_compiler_it_runs_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = made()
    assert fast.note is None
    monkeypatch.setattr(kernels, "_load", lambda: (None, "there is no C++ compiler"))
    slow = made()
    assert isinstance(slow.backend, TorchBackend)
    assert slow.note == "llama runs without compiled kernels, which is slower: there is no C++ compiler"
    assert raws(slow, slow) == raws(fast, fast)


def test_memory_for_a_long_student_need_not_hold_its_longest_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=20_000_000))
    lm = made(pages=None, positions=1 << 17)
    assert 128 <= lm.pages.count < 8192


def test_greedy_and_sampled_rows_take_turns_together() -> None:
    def written(lm: EngineLM, which: Sequence[int]) -> dict[int, Completion | None]:
        """What is written of those texts in one batch, every second one sampled."""
        asked = {}
        for number in which:
            session = lm.session()
            session.write_problem(f"Problem: {'Some text ' * (number + 1)}")
            session.write_marker("question")
            rng = random.Random(number)
            asked[number] = Request(lm, session, "question", 12, False, 2.0 * (number % 2), rng)
            lm.submit(asked[number])
        while any(request.completion is None for request in asked.values()):
            lm.step(5)
        return {number: request.completion for number, request in asked.items()}

    lm = made()
    together = written(lm, range(6))
    assert together == {number: written(lm, [number])[number] for number in range(6)}
    assert len({said.text for said in together.values() if said}) == 6
