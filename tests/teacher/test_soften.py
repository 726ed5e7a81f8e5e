from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_cli import Cli, cli
from test_trainer import CHAINS, save_tiny
from tiny import FAMILIES, byte_tokenizer, causal_model

from socratic.examples import causal_example
from socratic.prompts import TeacherPrompt, render_problem
from socratic.store import lock, read_records
from socratic.targets import TOKENS
from socratic.teacher.replies import likeliest
from socratic.teacher.soften import load_teacher, soften, soften_kept
from socratic.tokens import Codec
from socratic.types import Chain, Step, UserError

__all__ = ["cli"]

PROMPT = TeacherPrompt("socratic", "{format}", "{answer}", (CHAINS[1],))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_local_model_reads_a_chain_and_says_what_else_it_expected(family: str) -> None:
    import torch

    exact = Codec(byte_tokenizer(family))
    model = causal_model(family, exact.tokenizer)
    chain = replace(CHAINS[0], steps=(*CHAINS[0].steps, Step(" Zoë? ", "½ of <<3*4=12.0>>12.")))
    [made] = soften([chain], model, exact, PROMPT, top=3)
    tokens = made.metadata[TOKENS]
    text = "".join(token for token, _ in tokens)
    assert text == PROMPT.reply(CHAINS[0], "text").replace("\n#### 24", "\nQ: Zoë?\nA: ½ of <<3*4=12>>12.\n#### 24")
    assert replace(made, metadata={}) == chain
    assert all(len(candidates) <= 3 for _, candidates in tokens)

    given = "".join(f"{render_problem(c.problem())}\n{PROMPT.reply(c, 'text')}\n\n" for c in PROMPT.examples)
    given += f"{render_problem(chain.problem())}\n"
    ids = [*exact.bos, *exact.tokenizer(given, add_special_tokens=False).input_ids]
    with torch.no_grad():
        best = model(input_ids=torch.tensor([ids])).logits[0, -1].softmax(-1)
    for piece, chance in tokens[0][1]:  # what is no text of its own, as END, is not among them
        assert chance == pytest.approx(best[exact.ids_of_pieces[piece]].item(), abs=1e-4)
    assert sum(len(candidates) for _, candidates in tokens) > len(tokens)

    example = causal_example(made, "unified", exact)
    read = [token for token, soft in zip(example.ids, example.targets, strict=True) if soft]
    assert len(read) > 0.5 * sum(example.learned)


def test_a_chain_that_is_too_long_comes_back_as_it_was(exact: Codec) -> None:
    model = causal_model("gpt2", exact.tokenizer, positions=64)
    assert list(soften(CHAINS, model, exact, PROMPT, top=2)) == CHAINS
    earlier = [replace(chain, metadata={**chain.metadata, TOKENS: [["a", []]]}) for chain in CHAINS]
    assert list(soften(earlier, model, exact, PROMPT, top=2)) == CHAINS  # another teacher's are not its own


def reply(content: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": "x"}, "logprobs": {"content": content}}]}


def test_an_endpoints_logprobs_are_kept_in_little_room() -> None:
    others = [{"token": " Ann", "logprob": math.log(0.75)}, {"token": " Bo", "logprob": -20.0}]
    said = [{"token": " Ann", "logprob": -0.1, "top_logprobs": others}, {"token": "\n", "top_logprobs": []}]
    assert likeliest(reply(said)) == [[" Ann", [[" Ann", 0.75]]], ["\n", []]]


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"choices": [{}]},
        {"choices": [{"logprobs": None}]},
        reply(None),
        reply([7]),
        reply([{"token": "a"}]),
        reply([{"token": "a", "top_logprobs": [{"token": "b", "logprob": "x"}]}]),
    ],
)
def test_a_reply_without_logprobs_has_none(raw: dict[str, Any]) -> None:
    assert likeliest(raw) == []


def test_what_was_read_before_an_interruption_is_not_read_again(tmp_path: Path) -> None:
    import torch

    teacher = load_teacher(save_tiny(tmp_path / "lm", positions=1024), torch.float32)
    whole, _ = soften_kept(tmp_path / "whole", CHAINS, teacher, PROMPT, 2)
    read: list[int] = []

    def interrupted(top: int = 2) -> None:
        def stop(done: int) -> None:
            if done == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            soften_kept(tmp_path / "soft", CHAINS, teacher, PROMPT, top, stop)
        read.clear()

    interrupted()
    [part] = tmp_path.glob("soft.*.part")
    with (part / "read.jsonl").open("ab") as file:
        file.write(b'{"torn')
    assert soften_kept(tmp_path / "soft", CHAINS, teacher, PROMPT, 2, read.append) == (whole, part)
    assert read == [3]
    assert list(read_records(part / "read.jsonl", Chain)) == whole
    interrupted(top=3)
    soften_kept(tmp_path / "soft", CHAINS, teacher, PROMPT, 4, read.append)
    assert read == [1, 2, 3], "other settings are another reading"
    with lock(part), pytest.raises(UserError, match="in use by"):
        soften_kept(tmp_path / "soft", CHAINS, teacher, PROMPT, 2)


def test_the_command_softens_chains_that_a_student_then_learns(cli: Cli, tmp_path: Path) -> None:
    model, chains, soft = save_tiny(tmp_path / "lm", positions=1024), tmp_path / "chains.jsonl", tmp_path / "soft.jsonl"
    rows = [chain.to_json() for chain in CHAINS]
    long = {**rows[0], "problem_id": "tiny/long", "question": "Why? " * 1000}
    chains.write_text("".join(json.dumps(row) + "\n" for row in (*rows, long)))
    done = cli("soften", str(chains), "--lm", model, "--out", str(soft), "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out) == {"chains": 4, "read": 3}
    assert not list(tmp_path.glob("*.part"))
    made = list(read_records(soft, Chain))
    assert [chain.steps for chain in made] == [*(chain.steps for chain in CHAINS), CHAINS[0].steps]
    trained = cli(
        *("train", "qa", "--chains", str(soft), "--student", model, "--out", str(tmp_path / "qa")),
        *("--set", "loss=kl", "--set", "max_steps=1"),
    )
    assert trained.code == 0, trained.err
    adapter = str(tmp_path / "adapter")
    cli("train", "cot", "--chains", str(chains), "--student", model, "--out", adapter, "--set", "lora_rank=2")
    read = cli("soften", str(chains), "--lm", adapter, "--limit", "1", "--out", str(tmp_path / "own"), "--json")
    assert json.loads(read.out) == {"chains": 1, "read": 1}, read.err
    cot = cli("soften", str(chains), "--lm", model, "--style", "cot", "--limit", "1", "--out", str(soft), "--json")
    assert json.loads(cot.out) == {"chains": 1, "read": 1}
