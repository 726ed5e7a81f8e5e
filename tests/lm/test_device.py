"""The device's loop writes what the engine writes turn by turn; here its steps run one by one on a CPU."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from test_causal import SHORT
from test_engine import made
from tiny import FAMILIES, problems, solved

from socratic.lm import device
from socratic.lm.base import Request
from socratic.lm.device import MOST, DeviceLoop
from socratic.lm.engine import EngineLM


def on_device(*where: Any, **how: Any) -> EngineLM:
    lm = made(*where, **how)
    lm.loop = lm.device_loop()
    return lm


def raws(*lms: EngineLM, **how: Any) -> list[tuple[str, int]]:
    return [(t.raw, t.tokens) for t in solved(problems(12), qg=lms[0], qa=lms[1], **{**SHORT, **how})]


@pytest.mark.parametrize("calculator", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_it_writes_what_the_engine_writes(family: str, calculator: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = raws(made(family), made(family, seed=1), calculator=calculator)
    asked = list[int]()
    lms = on_device(family), on_device(family, seed=1)
    run = DeviceLoop.run

    def noting_run(*given: Any) -> list[list[int]]:
        asked.append(given[-1])
        return run(*given)

    monkeypatch.setattr(DeviceLoop, "run", noting_run)
    assert raws(*lms, calculator=calculator) == plain
    assert max(asked) > 4  # tokens between two looks


def test_a_row_stops_where_the_host_has_to_look() -> None:
    lm = on_device()
    assert lm.loop is not None
    ids = [5, 6, 7]
    tables = [[lm.pages.free.pop()] for _ in ids]
    lm.loop.stops.zero_()
    free = lm.loop.run(ids, [0, 0, 0], tables, MOST)
    assert [len(said) for said in free] == [MOST] * 3
    lm.loop.stops[free[1][2]] = True
    stopped = lm.loop.run(ids, [0, 0, 0], tables, MOST)
    assert stopped[1] == free[1][: free[1].index(free[1][2]) + 1]
    for mine, whole in zip(stopped, free, strict=True):
        assert mine == whole[: len(mine)]


def test_where_pages_are_scarce_rows_go_the_other_way() -> None:
    plenty = raws(made(), made(seed=1))
    assert raws(on_device(pages=24), on_device(pages=18, seed=1)) == plenty


@pytest.mark.parametrize("calculator", [True, False])
def test_samples_are_the_engines(calculator: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    how = {"temperature": 1.0, "calculator": calculator}
    sampled = raws(made(), made(seed=1), **how)
    drawn = 0
    load = device._Rows.load_draws

    def counting(*given: Any) -> None:
        nonlocal drawn
        drawn += 1
        load(*given)

    monkeypatch.setattr(device._Rows, "load_draws", counting)
    assert raws(on_device(), on_device(seed=1), **how) == sampled
    assert drawn > 10


def test_greedy_and_sampled_rows_share_a_step() -> None:
    def written(lm: EngineLM) -> list[str]:
        requests = []
        for k in range(6):
            session = lm.session()
            session.write_problem(f"Problem: {k}")
            session.write_marker("answer")
            requests.append(Request(lm, session, "answer", 20, False, float(k % 2), random.Random(k)))
            lm.submit(requests[-1])
        while lm.waiting:
            lm.step(8)
        return [request.completion.text for request in requests if request.completion]

    assert written(on_device()) == written(made())


def test_rows_at_the_end_of_their_positions_end_as_they_would() -> None:
    short = {"max_tokens": 400, "max_steps": 3}
    plain = raws(made(positions=72), made(positions=72, seed=1), **short)
    assert raws(on_device(positions=72), on_device(positions=72, seed=1), **short) == plain
    assert raws(on_device(pages=6), on_device(pages=6, seed=1), **short) == raws(
        made(pages=5), made(pages=5, seed=1), **short
    )


def test_rows_that_fill_up_the_shape_touch_nothing() -> None:
    lm = on_device()
    assert lm.loop is not None
    held = lm.pages.free.pop()
    lm.pages.kv[:, held] = 7.0
    lm.loop.run([5, 6, 8], [0, 3, 1], [[lm.pages.free.pop()] for _ in range(3)], MOST)
    assert torch.equal(lm.pages.kv[:, held], torch.full_like(lm.pages.kv[:, held], 7.0))
