from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_cli import Cli, cli
from test_trainer import CHAINS, save_tiny
from tiny import Planted, byte_tokenizer

from socratic.evaluate import evaluate, load_run
from socratic.rewards import Reward, questions_given, rewarded, rewards
from socratic.solving import SolveSettings, Solving
from socratic.tokens import Codec
from socratic.types import Chain, Step, UserError

__all__ = ["cli"]


def asking(made: Chain, *questions: str) -> Chain:
    return replace(made, steps=tuple(Step(question, "?") for question in questions), source="student:qg")


CLIPS, BOOKS, PENS = CHAINS
GOLD = {chain.problem_id: chain for chain in CHAINS}
ASKED = [
    asking(CLIPS, *(step.question for step in CLIPS.steps)),
    asking(CLIPS, "How many are left?"),
    asking(BOOKS, "Why?", "What?", "Who?"),
    asking(PENS, "What do the pens cost?", "Something else entirely here?"),
]


def answers(tmp_path: Path, chains: list[Chain]) -> Any:
    """A run in which QA is right, in one of two samples, wherever it is asked what gold asks first."""
    codec = Codec(byte_tokenizer("qwen2"))
    gold = {chain.steps[0].question: chain.answer for chain in CHAINS}
    drawn = iter(range(10_000))

    def say(transcript: str, kind: str) -> str:
        if kind != "final":
            return f"a{next(drawn)}"
        first = transcript.split("\nQ: ")[1].split(codec.end_text)[0]
        return gold.get(first, "0") if next(drawn) % 2 else "0"

    problems, given = questions_given(chains)
    qg = Planted(codec, lambda transcript, kind: pytest.fail("QG is not asked"))
    solving = Solving(SolveSettings.parse({}), qg=qg, qa=Planted(codec, say)).with_intervention(given)
    evaluate(problems, lambda jobs: solving.run(jobs, 1), tmp_path, solving.record(), samples=8)
    return load_run(tmp_path)


def test_questions_are_rewarded_for_gold_words_gold_number_and_right_answers(tmp_path: Path) -> None:
    found = rewards(ASKED, answers(tmp_path, ASKED), GOLD)
    assert [reward.granularity for reward in found] == [1.0, 0.5, 0.0, 1.0]
    assert [reward.fluency for reward in found[:1]] == [pytest.approx(1.0)]
    assert found[2].fluency is not None
    assert found[3].fluency is not None
    assert found[2].fluency < 0.05 < found[3].fluency < 1
    assert [reward.answerability > 0 for reward in found] == [True, False, False, True]


def test_rewards_weigh_or_filter() -> None:
    found = [Reward(1.0, 1.0, 0.5), Reward(0.5, 0.5, 0.0), Reward(0.1, 0.0, 1.0), Reward(0.8, 1.0, 0.25)]
    weighed = rewarded(ASKED, found, ["granularity", "answerability"], None)
    assert [chain.metadata["weight"] for chain in weighed] == [0.5, 0.0, 0.0, 0.25]
    kept = rewarded(ASKED, found, ["answerability"], 0.5)
    assert [(chain.problem_id, chain.metadata) for chain in kept] == [
        ("tiny/clips", {"rewards": {"fluency": 1.0, "granularity": 1.0, "answerability": 0.5}}),
        ("tiny/books", {"rewards": {"fluency": 0.1, "granularity": 0.0, "answerability": 1.0}}),
    ]
    with pytest.raises(UserError, match="tiny/clips has no gold questions, so no fluency; name their data set"):
        rewarded(ASKED[:1], [Reward(None, None, 1.0)], ["fluency"], None)


def test_without_gold_there_is_only_answerability(tmp_path: Path) -> None:
    [first, *_] = rewards(ASKED, answers(tmp_path, ASKED), {})
    assert (first.fluency, first.granularity) == (None, None)
    cot = replace(CLIPS, steps=(Step("", "48/2=24"),))
    [first, *_] = rewards(ASKED, load_run(tmp_path), {cot.problem_id: cot})
    assert (first.fluency, first.granularity) == (None, 0.0)


def test_what_cannot_be_rewarded_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not about these chains"):
        rewards(ASKED[:2], answers(tmp_path, ASKED), GOLD)
    with pytest.raises(UserError, match="the chain of tiny/clips has no sub-questions to reward"):
        questions_given([replace(CLIPS, steps=(Step("", "s"),))])


def test_the_command_weighs_and_filters_chains(cli: Cli, tmp_path: Path) -> None:
    model, chains = save_tiny(tmp_path / "qa"), tmp_path / "asked.jsonl"
    chains.write_text("".join(json.dumps(chain.to_json()) + "\n" for chain in ASKED))
    common = ("reward", str(chains), "--qa", model, "--samples", "2", "--set", "max_tokens=4")
    made = tmp_path / "rewarded.jsonl"
    done = cli(*common, "--out", str(made), "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert (said["chains"], said["written"], said["fluency"]) == (4, 4, None)
    written = [json.loads(line)["metadata"] for line in made.read_text().splitlines()]
    assert [row["weight"] for row in written] == [row["rewards"]["answerability"] for row in written]
    assert len((tmp_path / "rewarded.jsonl.answers" / "traces.jsonl").read_text().splitlines()) == 8
    answers = tmp_path / "rewarded.jsonl.answers" / "traces.jsonl"
    before = answers.read_bytes()
    assert cli(*common, "--out", str(made), "--by", "answerability", "--least", "1").code == 0
    assert answers.read_bytes() == before, "nothing is solved again: not even the seconds are others"
    assert made.read_text() == ""
    missing = cli(*common, "--out", str(made), "--by", "fluency")
    assert missing.code == 2
    assert "no gold questions" in missing.err
    unknown = cli(*common, "--out", str(made), "--by", "fun")
    assert unknown.code == 2
    assert "--by 'fun' is unknown" in unknown.err
