from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_cli import Cli, cli
from test_trainer import CHAINS
from tiny import Replay, byte_tokenizer, solved
from tiny import chain as tiny_chain

from socratic import encode
from socratic.formats import FORMS, Form, formed, mixed
from socratic.prompts import FINE_TUNE_COT, Slot, problem_text, render_chain
from socratic.store import read_records
from socratic.tasks import load_chains, load_problems
from socratic.tokens import Codec
from socratic.types import Chain, UserError

__all__ = ["cli"]

PEN = tiny_chain("pen", "What costs a pen?", [("q", "It costs 1+1=<<1+1=2>>2.")], "2", context="A pen is red.")
MANY = [replace(CHAINS[0], problem_id=f"c{i}", question=f"Question {i}?") for i in range(400)]


def test_forms_are_drawn_by_their_shares_and_the_same_again() -> None:
    shares = {"zero-shot-cot": 3.0, "in-context-answer": 1.0}
    made = mixed(MANY, shares, CHAINS, shots=2)  # type: ignore[arg-type]
    counts = Counter(chain.metadata["form"] for chain in made)
    assert counts.keys() == shares.keys()
    assert 2.3 < counts["zero-shot-cot"] / counts["in-context-answer"] < 3.9
    assert mixed(MANY[5:9], shares, CHAINS, shots=2) == made[5:9]  # type: ignore[arg-type]
    assert mixed(MANY, shares, CHAINS, shots=2, seed=1) != made  # type: ignore[arg-type]


def test_a_zero_shot_chain_of_thought_is_the_chain_itself() -> None:
    [made] = mixed([PEN], {"zero-shot-cot": 1}, [])
    assert made == replace(PEN, metadata={**PEN.metadata, "form": "zero-shot-cot"})


def test_an_answer_alone_is_learned_as_the_final_slot() -> None:
    [made] = mixed([PEN], {"zero-shot-answer": 1}, [])
    text = render_chain(PEN, "cot")[0]
    assert render_chain(made, "cot") == (text, [Slot("final", "2", learned=True)])
    assert render_chain(made, "qa") == render_chain(PEN, "qa")


@pytest.mark.parametrize("form", ["in-context-cot", "in-context-answer"])
def test_what_stands_in_context_reads_as_the_transcript(form: str) -> None:
    [made] = mixed([PEN], {form: 1}, [*CHAINS, PEN], shots=3)  # type: ignore[dict-item]
    text = render_chain(made, "cot")[0]
    *before, own = text.split("\n\n")
    assert own == "Problem:\nA pen is red.\nWhat costs a pen?"
    whole = {f"{problem_text(c.question)}\nA: {_thought(c)}\n#### {c.answer}" for c in CHAINS}
    bare = {f"{problem_text(c.question)}\n#### {c.answer}" for c in CHAINS}
    assert set(before) == (whole if form == "in-context-cot" else bare)
    tokenizer = byte_tokenizer("qwen2")
    ids, learned = encode(made, "cot", tokenizer)
    said = tokenizer.decode([i for i, is_learned in zip(ids, learned, strict=True) if is_learned])
    assert said == (" It costs 1+1=<<1+1=2>>2.<|im_end|> 2<|im_end|>" if form == "in-context-cot" else " 2<|im_end|>")


def _thought(chain: Chain) -> str:
    return "\n".join(step.answer for step in chain.steps)


@pytest.mark.parametrize("form", FORMS)
def test_a_problem_gets_the_form_that_its_chain_gets(form: Form) -> None:
    how: Any = ({form: 1}, [*CHAINS, PEN], 3, 0, "Reason. ")
    [made], [problem] = mixed([PEN], *how), formed([(PEN.problem("test"), 0)], *how)
    assert made.problem("test") == problem
    assert problem.stated == PEN.problem("test")
    assert render_chain(made, "cot")[0].startswith("Problem: Reason.\n")


def test_an_instruction_stands_before_the_problem() -> None:
    [made] = mixed([PEN], {"zero-shot-cot": 1}, [], instruction="Reason.")
    assert render_chain(made, "cot")[0] == "Problem: Reason.\nA pen is red.\nWhat costs a pen?"


def test_forms_survive_a_file_of_chains(tmp_path: Path) -> None:
    samples = [replace(PEN, sample=sample) for sample in range(8)]
    made = mixed(samples, dict.fromkeys(FORMS, 1.0), CHAINS, shots=2)
    file = tmp_path / "mixed.jsonl"
    file.write_text("".join(json.dumps(chain.to_json()) + "\n" for chain in made))
    assert len({chain.metadata["form"] for chain in made}) > 2
    assert load_chains(str(file), "test") == made
    [problem] = load_problems(str(file), "test")
    assert problem == made[-1].problem("test")


def test_a_problem_to_be_answered_at_once_needs_a_student_that_can_tell() -> None:
    [problem] = formed([(PEN.problem(), 0)], {"zero-shot-answer": 1}, [])
    lm = Replay(Codec(byte_tokenizer("qwen2")), [[]])
    lm.format = FINE_TUNE_COT
    with pytest.raises(UserError, match="which a student of format fine-tune-cot does not learn"):
        solved([problem], "cot", lm=lm)


def test_shares_and_problems_that_do_not_do_are_refused() -> None:
    with pytest.raises(UserError, match="the share in-context-cot=-1 is below 0; give it 0 or more"):
        mixed([PEN], {"zero-shot-cot": 1, "in-context-cot": -1}, [])
    for shares in ({}, {"zero-shot-cot": 0}):
        with pytest.raises(UserError, match="draw nothing; give one of zero-shot-cot, "):
            mixed([PEN], shares, [])  # type: ignore[arg-type]
    with pytest.raises(UserError, match="2 solved problems are too few to draw 2 from"):
        mixed([PEN], {"in-context-cot": 1}, [PEN, CHAINS[0]], shots=2)
    many = [*(replace(CHAINS[0], sample=n) for n in range(100)), *CHAINS[1:]]
    for seed in range(5):  # the few that are drawn first may all be of one problem
        mixed([PEN], {"in-context-cot": 1}, many, shots=len(CHAINS), seed=seed)
    with pytest.raises(UserError, match="instruction ' ': it is not one line; write one, or leave it out"):
        mixed([PEN], {"zero-shot-cot": 1}, [], instruction=" ")


def test_the_command_mixes_forms(cli: Cli, tmp_path: Path) -> None:
    chains, made = tmp_path / "chains.jsonl", tmp_path / "mixed.jsonl"
    chains.write_text("".join(json.dumps(chain.to_json()) + "\n" for chain in MANY[:20]))
    shares = [word for form in FORMS for word in ("--share", f"{form}=1")]
    done = cli("mix", str(chains), "--out", str(made), *shares, "--json")
    assert done.code == 0, done.err
    assert sum(json.loads(done.out).values()) == len(made.read_text().splitlines()) == 20
    for words, why in (
        (["--share", "cot=1"], "--share cot=1 is not of the form"),
        (["--share", "zero-shot-cot=much"], "is not of the form"),
        (["--share", "in-context-cot=1", "--split", "test"], "would give answers away"),
        (["--share", "zero-shot-cot=1", "--shots", "2"], "no form has problems in context"),
    ):
        refused = cli("mix", str(chains), "--out", str(made), *words)
        assert refused.code == 2
        assert why in refused.err


def test_a_files_dev_chains_are_told_from_its_train(cli: Cli, tmp_path: Path) -> None:
    chains, out = tmp_path / "chains.jsonl", tmp_path / "mixed.jsonl"
    both = [*load_chains("stories", "train", limit=3), *load_chains("stories", "dev", limit=3)]
    chains.write_text("".join(json.dumps(chain.to_json()) + "\n" for chain in both))
    cli("mix", str(chains), "--share", "in-context-cot=1", "--shots", "2", "--out", str(out))
    learned = {chain.question for chain in both[:3]}
    asked = [chain.metadata["context"] for chain in read_records(out, Chain)]
    assert len(asked) == 6
    assert not any(chain.question in context for chain in both[3:] for context in asked)
    assert all(any(question in context for question in learned) for context in asked)
    cli("mix", str(chains), "--share", "zero-shot-cot=1", "--split", "dev", "--out", str(out))
    assert [chain.question for chain in read_records(out, Chain)] == [chain.question for chain in both[3:]]


def test_a_chain_has_one_form() -> None:
    made = mixed([PEN], {"zero-shot-answer": 1}, [])
    with pytest.raises(UserError, match="has a form already"):
        mixed(made, {"zero-shot-cot": 1}, [])


def test_a_data_sets_dev_chains_get_a_form_but_stand_in_no_context(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "mixed.jsonl"
    cli("mix", "gold:stories", "--share", "in-context-answer=1", "--shots", "1", "--out", str(out))
    made = list(read_records(out, Chain))
    dev = {chain.question for chain in load_chains("stories", "dev")}
    assert dev <= {chain.question for chain in made}
    assert not any(chain.metadata["context"].split("\n")[0] in dev for chain in made)
