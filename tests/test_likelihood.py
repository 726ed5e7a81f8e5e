"""Answers chosen by their likelihood: what is read, how it is weighed, and that runs of it are runs as any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_cli import Cli, cli
from test_trainer import save_tiny
from tiny import byte_tokenizer, causal_model, metaspace_tokenizer, solved, t5_model

from socratic.likelihood import likeliest, offered
from socratic.lm.causal import CausalLM
from socratic.lm.engine import EngineLM
from socratic.lm.plain import PlainLM
from socratic.lm.scripted import ScriptedLM
from socratic.lm.seq2seq import Seq2SeqLM
from socratic.solving import SolveSettings, Solving
from socratic.store import shipped
from socratic.tasks import load_problems
from socratic.tokens import Codec
from socratic.types import Problem, Role, UserError

__all__ = ["cli"]

EVERYDAY = str(shipped("data") / "everyday.jsonl")
CHOICE = Problem("c", "own", "test", "What glows?", "B", "choice", ("stone", " bulb "), context="It is dark.")
YES = Problem("y", "own", "test", "Is it dark?", "yes", "yesno")
TEXTS = [(f"Question: {'ab' * (i * 7 % 19)}?\nAnswer:", "no" * (1 + i % 4)) for i in range(40)]


class Told(ScriptedLM):
    """Finds texts as likely as it is told."""

    def __init__(self, likely: dict[str, float | None]) -> None:
        super().__init__(Codec(byte_tokenizer("qwen2")), lambda transcript, kind: "")
        self.likely = likely
        self.given: list[str] = []

    def logprobs(self, texts: list[tuple[str, str]]) -> list[float | None]:
        self.given += [given for given, _ in texts]
        return [self.likely[said.strip()] for _, said in texts]


def test_a_plain_prompt_is_read_without_the_choices() -> None:
    lm = Told({"stone": -9.0, "bulb": -8.0, "yes": -1.0, "no": -2.0})
    [first, second] = likeliest([(CHOICE, 0), (YES, 0)], lm, 2)
    assert lm.given == ["Question: It is dark.\nWhat glows?\nAnswer:"] * 2 + ["Question: Is it dark?\nAnswer:"] * 2
    assert (first.answer, first.raw, first.stop_reason, first.tokens) == ("A", "\n#### A", "finished", 0)
    assert (second.solver, second.answer, second.raw) == ("likelihood", "yes", "\n#### yes")


def test_choices_count_by_the_character_and_yes_and_no_as_they_are() -> None:
    lm = Told({"stone": -9.0, "bulb": -7.0, "yes": -2.4, "no": -2.0})
    assert [trace.answer for trace in likeliest([(CHOICE, 0), (YES, 0)], lm, 8)] == ["B", "no"]
    lm.likely["bulb"] = None
    [trace] = likeliest([(CHOICE, 0)], lm, 8)
    assert (trace.answer, trace.raw, trace.stop_reason) == (None, "", "overlong")


def test_problems_without_choices_are_refused() -> None:
    for problem in (
        Problem("n", "own", "test", "How many?", "7"),
        Problem("c", "own", "test", "Which?", "B", "choice"),
    ):
        with pytest.raises(UserError, match=f"problem {problem.id} offers no choices"):
            offered(problem)
        with pytest.raises(UserError, match=f"problem {problem.id} offers no choices"):
            list(likeliest([(problem, 0)], Told({}), 8))


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2"])
@pytest.mark.parametrize("kind", [EngineLM, CausalLM, PlainLM])
def test_every_decoder_gives_the_probability_of_the_text(kind: Any, family: str) -> None:
    import torch

    codec = Codec(byte_tokenizer(family))
    model = causal_model(family, codec.tokenizer)
    wanted = []
    for given, said in TEXTS:
        before = [*codec.bos, *codec.tokenizer(given, add_special_tokens=False).input_ids]
        own = codec.text(f" {said}")
        with torch.inference_mode():
            likely = model(input_ids=torch.tensor([before + own])).logits[0].log_softmax(-1)
        wanted.append(sum(likely[len(before) - 1 + i, token].item() for i, token in enumerate(own)))
    found = kind(model, codec, "lm").logprobs(TEXTS)
    assert found == pytest.approx(wanted, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("kind", [EngineLM, CausalLM])
def test_what_is_longer_than_the_model_reads_has_none(kind: Any) -> None:
    codec = Codec(byte_tokenizer("gpt2"))
    lm = kind(causal_model("gpt2", codec.tokenizer, positions=64), codec, "short")
    short, long = ("Question: So?\nAnswer:", "no"), (f"Question: {'so ' * 30}?\nAnswer:", "no")
    found = lm.logprobs([long, short, long])
    assert [logprob is None for logprob in found] == [True, False, True]
    assert lm.logprobs([]) == []


def test_an_engine_short_of_pages_takes_turns() -> None:
    codec = Codec(byte_tokenizer("llama"))
    model = causal_model("llama", codec.tokenizer)
    tight = EngineLM(model, codec, "tight", pages=8)
    assert tight.logprobs(TEXTS) == pytest.approx(EngineLM(model, codec, "wide").logprobs(TEXTS), rel=1e-4)


def test_any_role_is_measured_and_nothing_is_written() -> None:
    lm = Told({"yes": -1.0, "no": -2.0})
    roles: tuple[Role | None, ...] = ("qg", "cot", "verifier", None)
    for role in roles:
        lm.role = role
        [trace] = solved([YES], "likelihood", lm=lm, calculator=True)
        assert (trace.answer, trace.calculator) == ("yes", False)
    solving = Solving(SolveSettings.parse({"solver": "likelihood"}), lm=lm)
    with pytest.raises(UserError, match="chooses an answer and writes none"):
        list(solving.stream(YES))
    assert solving.record()["prompt"] == "Question: …\nAnswer:"


def test_models_that_do_not_say_are_refused() -> None:
    codec = Codec(metaspace_tokenizer())
    plain = ScriptedLM(Codec(byte_tokenizer("qwen2")), lambda transcript, kind: "", "endpoint")
    for lm in (Seq2SeqLM(t5_model(codec.tokenizer), codec, "t5"), plain):
        with pytest.raises(UserError, match=f"{lm.name} does not say how likely a given text is; give a decoder"):
            Solving(SolveSettings.parse({"solver": "likelihood"}), lm=lm)


def test_a_run_is_scored_continued_and_compared(cli: Cli, tmp_path: Path) -> None:
    model, out = save_tiny(tmp_path / "tiny"), tmp_path / "run"
    command = ("evaluate", EVERYDAY, "--solver", "likelihood", "--lm", model, "--out", str(out), "--json")
    done = cli(*command)
    assert done.code == 0, done.err
    metrics = json.loads(done.out)
    assert (metrics["problems"], metrics["unparsed"]) == (8, 0)
    assert metrics["correct"] == metrics["strict"]
    traces = (out / "traces.jsonl").read_text().splitlines(keepends=True)
    (out / "traces.jsonl").write_text("".join(traces[:3]))
    assert json.loads(cli(*command).out)["correct"] == metrics["correct"]
    shown = cli("compare", str(out))
    assert "likelihood" in shown.out
    assert "guessing" in shown.out


def test_problems_without_choices_are_refused_before_anything_is_loaded(cli: Cli, tmp_path: Path) -> None:
    command = ("--solver", "likelihood", "--lm", str(tmp_path / "absent"), "--out", str(tmp_path / "run"))
    refused = cli("evaluate", "stories", "--limit", "2", *command)
    assert (refused.code, "offers no choices (number)" in refused.err) == (2, True)


def test_the_bundled_problems_offer_choices() -> None:
    assert {len(offered(problem)) for problem in load_problems(EVERYDAY, "test")} == {2, 5}
