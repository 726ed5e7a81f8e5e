from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from socratic.examples import causal_example, slot_examples
from socratic.lm import scratch
from socratic.store import check_manifest
from socratic.tokens import Codec
from socratic.trainer import Guard, StudentTrainer, collate, cpu_parts, summed_kl, target_logits, to_row
from socratic.types import Chain, Example, QGSees, Role, Step, UserError

KINDS = ("gpt2", "llama", "t5")


def chain(name: str, question: str, answer: str, *steps: tuple[str, str]) -> Chain:
    return Chain(f"tiny/{name}", "tiny", question, answer, "number", tuple(Step(*step) for step in steps))


CHAINS = [
    chain(
        "clips",
        "Ann has 48 clips and sells half. How many are left?",
        "24",
        ("How many does she sell?", "48/2 = <<48/2=24>>24 clips."),
        ("How many are left?", "48-24 = <<48-24=24>>24 clips."),
    ),
    chain(
        "books",
        "Bo reads 3 books a day. How many in 5 days?",
        "15",
        ("How many books are read in 5 days?", "3*5 = <<3*5=15>>15 books."),
    ),
    chain(
        "pens",
        "A pen costs $2 and a pad $7. What do 4 pens and a pad cost?",
        "15",
        ("What do the pens cost?", "4*2 = $<<4*2=8>>8."),
        ("What is the sum?", "8+7 = $<<8+7=15>>15."),
    ),
]


@lru_cache
def tiny_tokenizer() -> Any:
    """A tokenizer of 300 pieces that knows the texts of `CHAINS`, and by bytes all others."""
    steps = [text for c in CHAINS for step in c.steps for text in (step.question, step.answer)]
    return scratch.train_tokenizer([*(c.question for c in CHAINS), *steps])


def tiny_model(kind: str, seed: int = 0, dropout: float = 0.0, positions: int = 512) -> Any:
    """A model of two layers of width 32 with fresh weights."""
    hf: Any = transformers
    tokenizer = tiny_tokenizer()
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    size = {"vocab_size": len(tokenizer), **ends}
    torch.manual_seed(seed)
    if kind == "gpt2":
        shape: dict[str, Any] = {
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 2,
            "n_positions": positions,
            "bos_token_id": None,
        }
        drops = {"resid_pdrop": dropout, "embd_pdrop": dropout, "attn_pdrop": dropout}
        return hf.GPT2LMHeadModel(hf.GPT2Config(**shape, **drops, **size))
    if kind == "llama":
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2, "bos_token_id": None}
        shape = {"hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": positions}
        return hf.LlamaForCausalLM(hf.LlamaConfig(**shape, **heads, **size))
    shape = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "dropout_rate": dropout}
    return hf.T5ForConditionalGeneration(hf.T5Config(**shape, **size, decoder_start_token_id=tokenizer.pad_token_id))


def save_tiny(folder: Path, kind: str = "gpt2", **shape: Any) -> str:
    """The folder as a MODEL, `tiny_model` and its tokenizer saved in it."""
    tiny_model(kind, **shape).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


def rows_for(kind: str, chains: Iterable[Chain] = CHAINS, role: Role = "unified") -> list[dict[str, Any]]:
    codec = Codec(tiny_tokenizer())
    if kind == "t5":
        return [to_row(example) for c in chains for example in slot_examples(c, role, codec)]
    return [to_row(causal_example(c, role, codec)) for c in chains]


def summed_loss(model: Any, rows: list[dict[str, Any]]) -> tuple[torch.Tensor, int]:
    logits, targets = target_logits(model, collate(rows))
    return cross_entropy(logits, targets, reduction="sum"), len(targets)


@pytest.mark.parametrize("kind", KINDS)
def test_target_logits_are_those_of_the_full_head_at_learned_positions(kind: str) -> None:
    model, batch = tiny_model(kind).eval(), collate(rows_for(kind))
    logits, targets = target_logits(model, batch)
    full = model(**batch)
    if kind == "t5":
        keep = batch["labels"] != -100
        expected, ids = full.logits[keep], batch["labels"][keep]
    else:
        keep = batch["labels"][:, 1:] != -100
        expected, ids = full.logits[:, :-1][keep], batch["labels"][:, 1:][keep]
    assert targets.tolist() == ids.tolist()
    torch.testing.assert_close(logits, expected)
    assert cross_entropy(logits, targets).item() == pytest.approx(full.loss.item(), rel=1e-5)


def test_the_head_reads_learned_positions_only_and_is_whole_again_afterwards() -> None:
    model, batch = tiny_model("gpt2").eval(), collate(rows_for("gpt2"))
    seen: list[int] = []
    hook = model.lm_head.register_forward_hook(lambda module, args, out: seen.append(out[..., 0].numel()))
    _, targets = target_logits(model, batch)
    assert seen == [len(targets)]
    with pytest.raises(IndexError):
        target_logits(model, {**batch, "input_ids": batch["input_ids"] + 10_000})
    hook.remove()
    assert model(input_ids=batch["input_ids"]).logits.shape[:2] == batch["labels"].shape


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_no_logit(kind: str) -> None:
    model, rows = tiny_model(kind).eval(), rows_for(kind)
    short, long = min(rows, key=lambda r: len(r["labels"])), max(rows, key=lambda r: len(r["input_ids"]))
    alone, targets = target_logits(model, collate([short]))
    together, _ = target_logits(model, collate([short, long]))
    torch.testing.assert_close(together[: len(targets)], alone, rtol=1e-4, atol=1e-5)


def test_padding_is_by_length_where_the_end_token_is_also_the_padding() -> None:
    end = 0
    short = Example("a", (5, end, 7, end), (False, False, True, True))
    long = Example("b", (5, 6, end, 7, 8, end), (False, False, False, True, True, True))
    batch = collate([to_row(short), to_row(long)])
    assert set(batch) == {"input_ids", "labels"}
    assert batch["input_ids"].tolist() == [[5, end, 7, end, 0, 0], [5, 6, end, 7, 8, end]]
    assert batch["labels"].tolist() == [[-100, -100, 7, end, -100, -100], [-100, -100, -100, 7, 8, end]]

    slot = Example("a", (7, end), (True, True), source=(5, end))
    other = Example("b", (8, 9, end), (True, True, True), source=(5, 6, end, 4))
    encoded = collate([to_row(slot), to_row(other)])
    assert encoded["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert encoded["input_ids"].tolist() == [[5, end, 0, 0], [5, 6, end, 4]]
    assert encoded["labels"].tolist() == [[7, end, -100], [8, 9, end]]


TEXT = st.text("abc 0123=+<>$\nZé", min_size=1, max_size=12).filter(lambda text: bool(text.strip()))
DRAWN = st.builds(
    Chain,
    problem_id=st.just("drawn"),
    dataset=st.just("tiny"),
    question=TEXT,
    answer=TEXT,
    answer_type=st.just("text"),
    steps=st.lists(st.builds(Step, TEXT, TEXT), min_size=1, max_size=3).map(tuple),
)
ROLES: list[tuple[Role, QGSees]] = [
    ("qg", "answers"),
    ("qg", "questions"),
    ("qa", "answers"),
    ("unified", "answers"),
    ("cot", "answers"),
    ("answer", "answers"),
]


def gradient(model: Any, rows: list[dict[str, Any]]) -> tuple[torch.Tensor, int]:
    model.zero_grad()
    summed, count = summed_loss(model, rows)
    mean: Any = summed / count
    mean.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]), count


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@given(chains=st.lists(DRAWN, min_size=1, max_size=3), role=st.sampled_from(ROLES))
@settings(max_examples=25)
def test_one_sample_a_problem_has_the_gradient_of_one_sample_a_slot(
    kind: str, chains: list[Chain], role: tuple[Role, QGSees]
) -> None:
    model, codec = tiny_model(kind), Codec(tiny_tokenizer())
    whole = [to_row(causal_example(c, role[0], codec, role[1])) for c in chains]
    slots = [
        to_row(Example(e.problem_id, e.source + e.ids, (False,) * len(e.source) + e.learned))
        for c in chains
        for e in slot_examples(c, role[0], codec, role[1])
    ]
    first, count = gradient(model, whole)
    second, same_count = gradient(model, slots)
    assert count == same_count
    assert ((first - second).norm() / first.norm()).item() <= 1e-5


def trainer(
    model: Any,
    rows: Sequence[Any],
    out: Path,
    guard: Guard | None = None,
    dev: Sequence[Any] | None = None,
    **arguments: Any,
) -> StudentTrainer:
    plain = {"optim": "sgd", "learning_rate": 0.1, "lr_scheduler_type": "constant", "max_grad_norm": 0.0}
    common = {"use_cpu": True, "report_to": "none", "remove_unused_columns": False, "save_strategy": "no"}
    settings: dict[str, Any] = {**common, **plain, "disable_tqdm": True, **arguments}
    made = StudentTrainer(
        model=model,
        args=transformers.TrainingArguments(output_dir=str(out), **settings),
        train_dataset=rows,
        eval_dataset=dev,
        data_collator=collate,
        callbacks=[guard] if guard else [],
        accuracy=None,
    )
    made.remove_callback(transformers.PrinterCallback)
    return made


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_accumulated_batches_make_the_step_of_one_big_batch(kind: str, tmp_path: Path) -> None:
    rows = rows_for(kind, CHAINS * 2)[:4]
    assert len({sum(label != -100 for label in row["labels"]) for row in rows}) > 1
    model = tiny_model(kind)
    expected, _ = gradient(model, rows)
    expected *= -0.1
    for size in (4, 2, 1):
        model = tiny_model(kind)
        before = torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        shape: dict[str, Any] = {
            "per_device_train_batch_size": size,
            "gradient_accumulation_steps": 4 // size,
            "max_steps": 1,
        }
        trainer(model, rows, tmp_path, **shape).train()
        change = torch.nn.utils.parameters_to_vector(model.parameters()).detach() - before
        assert ((change - expected).norm() / expected.norm()).item() < 1e-3


WEIGHTS = (0.5, 2.0, 1.0, 0.25)


def weighted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row if weight == 1 else {**row, "weight": weight} for row, weight in zip(rows, WEIGHTS, strict=True)]


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_a_token_counts_by_its_weight_in_the_whole_accumulated_batch(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_for(kind, CHAINS * 2)[:4]
    model = tiny_model(kind)
    parts = [summed_loss(model, [row]) for row in rows]
    summed = torch.stack([w * loss for w, (loss, _) in zip(WEIGHTS, parts, strict=True)]).sum()
    mean: Any = summed / sum(w * count for w, (_, count) in zip(WEIGHTS, parts, strict=True))
    mean.backward()
    expected = -0.1 * torch.cat([p.grad.flatten() for p in model.parameters()])
    for size, tokens in ((4, 10_000), (2, 10_000), (4, 100)):  # whole, accumulated, and in a processor's parts
        monkeypatch.setattr("socratic.trainer.cpu_parts", lambda batch, most=tokens: cpu_parts(batch, most))
        model = tiny_model(kind)
        before = torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        shape: dict[str, Any] = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 4 // size}
        made = trainer(model, weighted(rows), tmp_path, dev=weighted(rows), max_steps=1, **shape)
        assert made.evaluate()["eval_loss"] == pytest.approx(mean.item(), abs=2e-5)
        made.train()
        change = torch.nn.utils.parameters_to_vector(model.parameters()).detach() - before
        assert ((change - expected).norm() / expected.norm()).item() < 1e-3


SOFT = Example(
    "soft",
    (5, 6, 7, 8, 9),
    (False, False, True, True, True),
    weight=0.5,
    targets=((), (), ((7, 0.75), (11, 0.25)), ((12, 1.0),), ()),
)


def test_soft_targets_are_learned_by_their_divergence(tmp_path: Path) -> None:
    hard = rows_for("gpt2", CHAINS[:1])
    model = tiny_model("gpt2").eval()
    with torch.no_grad():
        log_p = model(input_ids=torch.tensor([SOFT.ids])).logits[0].log_softmax(-1)
        nll, count = summed_loss(model, hard)
    wanted = 0.75 * (math.log(0.75) - log_p[1, 7]) + 0.25 * (math.log(0.25) - log_p[1, 11]) - log_p[2, 12] - log_p[3, 9]
    rows = [*hard, to_row(SOFT, soft=True)]
    made = trainer(model, rows, tmp_path, dev=rows, per_device_eval_batch_size=2)
    mean = (nll + 0.5 * wanted) / (count + 0.5 * 3)
    assert made.evaluate()["eval_loss"] == pytest.approx(mean.item(), abs=2e-5)
    batch = collate(rows)
    assert made.compute_loss(model, batch, num_items_in_batch=count + 0.5 * 3).item() == pytest.approx(
        mean.item(), rel=1e-5
    )
    assert sum(part["candidates"].shape[0] for part in cpu_parts(batch, 60)) == 2
    assert "targets" not in to_row(SOFT)


def test_a_divergence_from_the_label_alone_is_its_nll() -> None:
    logits, labels = torch.randn(7, 30), torch.arange(7)
    alone = summed_kl(logits, labels[:, None], torch.ones(7, 1))
    padded = summed_kl(logits, torch.stack([labels, labels + 3], 1), torch.tensor([[1.0, 0.0]] * 7))
    assert alone.item() == pytest.approx(cross_entropy(logits, labels, reduction="sum").item(), rel=1e-6)
    assert padded.item() == pytest.approx(alone.item(), rel=1e-6)


def test_weights_of_one_leave_no_trace() -> None:
    rows = rows_for("gpt2")
    assert all("weight" not in row for row in rows)
    assert set(collate(rows)) == {"input_ids", "labels"}
    assert to_row(Example("a", (5, 6), (False, True), weight=1.0)) == to_row(Example("a", (5, 6), (False, True)))


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_dev_loss_is_the_mean_over_all_learned_tokens(kind: str, tmp_path: Path) -> None:
    model, rows = tiny_model(kind), rows_for(kind)
    with torch.no_grad():
        parts = [summed_loss(model.eval(), [row]) for row in rows]
        predicted = [target_logits(model, collate([row])) for row in rows]
    total, count = sum(loss.item() for loss, _ in parts), sum(n for _, n in parts)
    right = sum(int((logits.argmax(-1) == ids).sum()) for logits, ids in predicted)
    of_means = sum(loss.item() / n for loss, n in parts) / len(parts)
    assert abs(total / count - of_means) > 1e-4
    for size in (1, 2, 8):
        metrics = trainer(model, rows, tmp_path, dev=rows, per_device_eval_batch_size=size).evaluate()
        assert metrics["eval_loss"] == pytest.approx(total / count, abs=2e-5)
        assert metrics["eval_token_accuracy"] == pytest.approx(right / count, abs=2e-5)


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make the loss of the named updates ``value``, and so their gradient."""
    original = StudentTrainer.compute_loss

    def plant(*updates: int, value: float = math.nan) -> None:
        def poisoned(self: StudentTrainer, *args: Any, **kwargs: Any) -> torch.Tensor:
            loss = original(self, *args, **kwargs)
            return loss * value if self.state.global_step in updates else loss

        monkeypatch.setattr(StudentTrainer, "compute_loss", poisoned)

    return plant


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_update_with_a_gradient_that_is_not_finite_is_skipped(
    tmp_path: Path, poison: Callable[..., None], value: float
) -> None:
    rows = rows_for("gpt2", CHAINS[:1])
    clean = tiny_model("gpt2")
    adam: dict[str, Any] = {"optim": "adamw_torch", "weight_decay": 0.1, "learning_rate": 1e-2, "max_grad_norm": 1.0}
    trainer(clean, rows, tmp_path, max_steps=2, **adam).train()
    poison(1, value=value)
    model, guard = tiny_model("gpt2"), Guard(max_bad_steps=1)
    trainer(model, rows, tmp_path, guard, max_steps=3, **adam).train()
    assert guard.bad_steps == 1
    assert same(weights(model), weights(clean))


def test_bad_updates_alone_leave_the_weights_as_they_were(tmp_path: Path, poison: Callable[..., None]) -> None:
    poison(0, 1, 2)
    model, guard = tiny_model("gpt2"), Guard(max_bad_steps=3)
    before = weights(model)
    trainer(model, rows_for("gpt2"), tmp_path, guard, max_steps=3, optim="adamw_torch", weight_decay=0.1).train()
    assert guard.bad_steps == 3
    assert same(weights(model), before)


def test_one_bad_micro_batch_spoils_only_its_own_update(tmp_path: Path, poison: Callable[..., None]) -> None:
    poison(1)
    rows, guard = rows_for("gpt2", CHAINS[:2]), Guard(max_bad_steps=1)
    model = tiny_model("gpt2")
    accumulating: dict[str, Any] = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}
    trainer(model, rows, tmp_path, guard, max_steps=3, **accumulating).train()
    assert guard.bad_steps == 1
    assert all(bool(value.isfinite().all()) for value in weights(model).values())


def test_too_many_bad_updates_halt_and_every_checkpoint_is_good(tmp_path: Path, poison: Callable[..., None]) -> None:
    rows = rows_for("gpt2", CHAINS[:1])
    saving: dict[str, Any] = {"save_strategy": "steps", "save_steps": 1, "max_steps": 9}
    good = tiny_model("gpt2")
    trainer(good, rows, tmp_path / "clean", max_steps=2).train()
    poison(*range(2, 9))
    with pytest.raises(UserError, match=r"not finite in 3 updates, the last at update 4; lower learning_rate=0\.1 or"):
        trainer(tiny_model("gpt2"), rows, tmp_path / "run", Guard(max_bad_steps=2), **saving).train()
    saved = sorted((tmp_path / "run").glob("checkpoint-*"))
    assert [path.name for path in saved] == ["checkpoint-1", "checkpoint-2", "checkpoint-3", "checkpoint-4"]
    assert [check_manifest(path) for path in saved] == [None] * 4
    auto: Any = transformers.AutoModelForCausalLM
    for path in saved[1:]:
        assert same(weights(auto.from_pretrained(path)), weights(good))


def test_a_checkpoint_is_whole_only_with_its_manifest(tmp_path: Path) -> None:
    saving: dict[str, Any] = {"save_strategy": "steps", "save_steps": 1, "max_steps": 1}
    trainer(tiny_model("gpt2"), rows_for("gpt2"), tmp_path, Guard(0), **saving).train()
    folder = tmp_path / "checkpoint-1"
    assert check_manifest(folder) is None
    (folder / "manifest.json").unlink()
    assert "manifest.json" in str(check_manifest(folder))


@pytest.mark.parametrize("tokens", [1, 120, 10_000])
def test_parts_of_a_batch_have_its_loss_and_no_more_tokens_than_asked_for(tokens: int) -> None:
    model = tiny_model("llama").eval()
    whole = collate(rows_for("llama", CHAINS * 2, "qg"))
    parts = cpu_parts(whole, tokens)
    assert sum(len(part["labels"]) for part in parts) == len(whole["labels"])
    assert all(part["labels"].numel() <= max(tokens, part["labels"].shape[1]) for part in parts)
    assert sum(part["labels"].numel() for part in parts) < whole["labels"].numel() or tokens == 10_000

    def nll(batch: dict[str, torch.Tensor]) -> float:
        return cross_entropy(*target_logits(model, batch), reduction="sum").item()

    assert sum(map(nll, parts)) == pytest.approx(nll(whole), rel=1e-5)
    encoded = collate(rows_for("t5"))
    assert cpu_parts(encoded, tokens) == [encoded]
