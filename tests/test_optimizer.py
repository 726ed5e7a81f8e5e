from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from test_trainer import tiny_tokenizer

from socratic.lm import scratch
from socratic.optimizer import MuonAdamW


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    return scratch.build("llama-micro", tiny_tokenizer())


def step(model: Any, optimizer: torch.optim.Optimizer, seed: int) -> None:
    ids = torch.randint(3, 50, (2, 12), generator=torch.Generator().manual_seed(seed))
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def test_matrices_inside_are_muons_and_all_else_adamws(model: Any) -> None:
    optimizer = MuonAdamW(model, lr=0.01, weight_decay=0.1, betas=(0.9, 0.95))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    inner, decayed, others = ([names[id(p)] for p in group["params"]] for group in optimizer.param_groups)
    assert len(inner) == 4 * 7
    assert all("proj" in name for name in inner)
    assert decayed == ["model.embed_tokens.weight"]
    assert all("norm" in name for name in others)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.1, 0.0]


def test_a_rate_that_is_scheduled_reaches_both(model: Any) -> None:
    student = copy.deepcopy(model)
    optimizer = MuonAdamW(student, lr=0.01, weight_decay=0.0, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    step(student, optimizer, 0)
    schedule.step()
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_what_is_saved_goes_on_as_if_nothing_had_happened(model: Any) -> None:
    straight, stopped = copy.deepcopy(model), copy.deepcopy(model)
    optimizer = MuonAdamW(straight, lr=0.01, weight_decay=0.1, betas=(0.9, 0.95))
    for seed in range(4):
        step(straight, optimizer, seed)
    first = MuonAdamW(stopped, lr=0.01, weight_decay=0.1, betas=(0.9, 0.95))
    for seed in range(2):
        step(stopped, first, seed)
    second = MuonAdamW(stopped, lr=0.5, weight_decay=0.1, betas=(0.9, 0.95))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for seed in range(2, 4):
        step(stopped, second, seed)
    assert all(torch.equal(value, stopped.state_dict()[name]) for name, value in straight.state_dict().items())


def test_it_learns(model: Any) -> None:
    student = copy.deepcopy(model)
    optimizer = MuonAdamW(student, lr=0.01, weight_decay=0.0, betas=(0.9, 0.95))
    ids = torch.randint(3, 50, (2, 12), generator=torch.Generator().manual_seed(0))
    before = student(input_ids=ids, labels=ids).loss.item()
    for _ in range(20):
        step(student, optimizer, 0)
    assert student(input_ids=ids, labels=ids).loss.item() < before / 4


def test_tables_of_positions_are_no_matrices_for_muon() -> None:
    model = scratch.build("gpt2-tiny", tiny_tokenizer())
    optimizer = MuonAdamW(model, lr=0.01, weight_decay=0.1, betas=(0.9, 0.95))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    inner = [names[id(p)] for p in optimizer.param_groups[0]["params"]]
    assert inner
    assert not any("wpe" in name or "wte" in name for name in inner)
