"""Training against TRL's `SFTTrainer`: ``python -m benchmarks.train --student MODEL --data-dir DIR``.

TRL is no dependency of this package: ``pip install --no-deps trl==1.16.0`` beside it. The same student, GSM8K problems,
precision (bf16 over fp32 weights), examples of an update, optimizer and rate; a repeat is one epoch, checkpoints and
evaluation off, compilation and the first epoch apart. ``trl-tuned-N`` has this package's own rows (one sample per
problem, several learned segments), no activation checkpointing, N examples at a time. Both get batches as they come out
of many problems that are grouped by length: evenly spaced ones of the sorted first problems, in the same order.
``trl-as-it-comes`` has one sample for each learned slot, as prompt and completion, and TRL's defaults; it takes so much
longer that it gets fewer problems.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.utils.data import SequentialSampler

from benchmarks.roof import measure
from socratic import load_chains
from socratic.assemble import make_trainer
from socratic.examples import build_examples, causal_example, slot_examples
from socratic.lm.load import hush_transformers, load_pretrained
from socratic.prepare import TrainingRun, TrainSettings, prepare
from socratic.tokens import Codec
from socratic.trainer import Notes, to_row
from socratic.types import Chain, Example, Role

ROLE: Role = "qa"
_RATE = 1e-5
_SPREAD = 12  # one of so many batches is trained on


@dataclass(frozen=True)
class Contestant:
    """A trainer and its epoch: so many problems, ``tokens`` read, and at least so many floating-point operations."""

    trainer: Any
    problems: int
    tokens: int
    operations: float

    def epoch(self) -> tuple[float, float]:
        """Seconds of one epoch and its mean loss."""
        self.trainer.optimizer = self.trainer.lr_scheduler = None  # those of the epoch before
        metrics = self.trainer.train().metrics
        return metrics["train_runtime"], metrics["train_loss"]


def socratic_trainer(student: str, chains: Sequence[Chain], batch: int, folder: Path) -> Contestant:
    """This package's own."""
    run = TrainingRun(ROLE, student, chains, [], "benchmark")
    settings = TrainSettings.parse(
        {"learning_rate": _RATE, "warmup": 0, "epochs": 1, "batch_size": batch, "compile": True, "dev_limit": 0}
        | {"trainer": {"save_strategy": "no"}}
    )
    start = prepare(run, settings, print)
    trainer = make_trainer(run, settings, start, folder, Notes(lambda note: None, None))
    _in_order(trainer)
    return Contestant(trainer, len(chains), *_work(start.student.model, start.examples))


def trl_trainer(student: str, examples: Sequence[Example], problems: int, folder: Path, **settings: Any) -> Contestant:
    """TRL's, over rows with their labels made already."""
    import trl
    from datasets import Dataset

    pretrained = load_pretrained(student, torch.float32)
    rows = [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in map(to_row, examples)]
    config = trl.SFTConfig(
        output_dir=str(folder),
        learning_rate=_RATE,
        num_train_epochs=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        bf16=True,
        **settings,
    )
    trainer = trl.SFTTrainer(
        model=pretrained.model,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=pretrained.tokenizer,
    )
    if not config.gradient_checkpointing:
        _in_order(trainer)
    return Contestant(trainer, problems, *_work(pretrained.model, examples))


def _in_order(trainer: Any) -> None:
    trainer._get_train_sampler = lambda dataset=None: SequentialSampler(trainer.train_dataset)


def _batches_by_length(chains: Sequence[Chain], codec: Codec, count: int, batch: int) -> list[Chain]:
    """``count`` of all ``chains``: evenly spaced batches of those sorted by length."""
    ordered = sorted(chains, key=lambda chain: len(causal_example(chain, ROLE, codec).ids), reverse=True)
    batches = [ordered[start : start + batch] for start in range(0, len(ordered), batch)]
    step = len(chains) // count
    return [chain for chosen in batches[step // 2 :: step] for chain in chosen]


def _work(model: Any, examples: Sequence[Example]) -> tuple[int, float]:
    """Tokens of an epoch and the operations it needs at least: forward, and twice that backward.

    The output layer for learned tokens alone, attention over what precedes.
    """
    config = model.config
    head = config.vocab_size * config.hidden_size
    body = sum(p.numel() for p in model.parameters() if p.ndim == 2) - head  # input and output embeddings are one
    tokens = sum(len(e.ids) for e in examples)
    attended = sum(len(e.ids) * (len(e.ids) + 1) / 2 for e in examples)
    learned = sum(sum(e.learned) for e in examples)
    forward = 2 * body * tokens + 2 * head * learned + 4 * config.num_hidden_layers * config.hidden_size * attended
    return tokens, 3 * forward


def main() -> None:
    """Race, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", required=True)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--problems", type=int, default=64)
    parser.add_argument("--as-it-comes", type=int, default=12, help="problems of the slowest contestant")
    parser.add_argument("--batch-size", type=int, default=16, help="examples of an update")
    parser.add_argument("--trl-batches", default="1,2,4", help="examples of a forward pass that TRL may choose from")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", help="contestants to race, separated by commas; socratic among them")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()

    hush_transformers()
    codec = Codec(load_pretrained(arguments.student, torch.float32).tokenizer)
    first = load_chains("gsm8k", "train", arguments.data_dir, _SPREAD * arguments.problems)
    chains = _batches_by_length(first, codec, arguments.problems, arguments.batch_size)
    joined = build_examples(chains, ROLE, codec)
    apart = [e for chain in first[: arguments.as_it_comes] for e in _joined_slots(chain, codec)]
    with TemporaryDirectory() as folder:
        there = Path(folder)

        def tuned(size: int) -> Contestant:
            return trl_trainer(
                arguments.student,
                joined,
                len(chains),
                there,
                gradient_checkpointing=False,
                per_device_train_batch_size=size,
                gradient_accumulation_steps=arguments.batch_size // size,
            )

        makers: dict[str, Callable[[], Contestant]] = {
            "socratic": lambda: socratic_trainer(arguments.student, chains, arguments.batch_size, there),
            **{f"trl-tuned-{size}": partial(tuned, size) for size in map(int, arguments.trl_batches.split(","))},
            "trl-as-it-comes": lambda: trl_trainer(arguments.student, apart, arguments.as_it_comes, there),
        }
        chosen = arguments.only.split(",") if arguments.only else list(makers)
        contestants = {name: makers[name]() for name in chosen}
        epochs: dict[str, list[tuple[float, float]]] = {name: [] for name in chosen}
        roofs = []
        for repeat in range(arguments.repeats + 1):  # the first warms up
            for name, contestant in contestants.items():
                epochs[name].append(contestant.epoch())
                print(f"{repeat} {name}: {epochs[name][-1][0]:.1f} s, loss {epochs[name][-1][1]:.3f}", flush=True)
            roofs.append(measure(torch.bfloat16).flops)
    flops = statistics.median(roofs)
    rows = [
        _row(name, contestants[name], epochs[name], contestants["socratic"], epochs["socratic"], flops)
        for name in chosen
    ]
    print(
        f"{len(chains)} problems, batch {arguments.batch_size}, {torch.get_num_threads()} threads, "
        f"{flops / 1e9:.0f} GFLOP/s"
    )
    print(f"{'':16} {'tokens/s':>22} {'problems/s':>10} {'of roof':>8} {'ours: tokens/s':>22} {'ours: problems/s':>22}")
    for row in rows:
        print(
            f"{row['name']:16} {_span(row['tokens_per_second']):>22} {row['problems_per_second'][0]:10.2f} "
            f"{row['share_of_roof']:8.0%} {_span(row['token_ratio'], 2):>22} {_span(row['problem_ratio'], 2):>22}"
        )
    if arguments.out:
        arguments.out.write_text(json.dumps({"flops": flops, "rows": rows}, indent=2) + "\n")


def _joined_slots(chain: Chain, codec: Codec) -> list[Example]:
    """Each learned slot as a causal sample of its own, everything before it given."""
    return [
        Example(e.problem_id, e.source + e.ids, (False,) * len(e.source) + e.learned)
        for e in slot_examples(chain, ROLE, codec)
    ]


def _row(
    name: str,
    contestant: Contestant,
    epochs: list[tuple[float, float]],
    ours: Contestant,
    our_epochs: list[tuple[float, float]],
    flops: float,
) -> dict[str, Any]:
    """Median, least and most of each figure; the first epoch is left out."""
    seconds = [epoch[0] for epoch in epochs[1:]]
    ratios = [theirs / own[0] for theirs, own in zip(seconds, our_epochs[1:], strict=True)]
    return {
        "name": name,
        "problems": contestant.problems,
        "tokens": contestant.tokens,
        "losses": [epoch[1] for epoch in epochs],
        "tokens_per_second": _summary([contestant.tokens / s for s in seconds]),
        "problems_per_second": _summary([contestant.problems / s for s in seconds]),
        "share_of_roof": contestant.operations / statistics.median(seconds) / flops,
        "token_ratio": _summary([r * ours.tokens / contestant.tokens for r in ratios]),
        "problem_ratio": _summary([r * ours.problems / contestant.problems for r in ratios]),
    }


def _summary(values: Sequence[float]) -> list[float]:
    return [statistics.median(values), min(values), max(values)]


def _span(values: Sequence[float], digits: int = 0) -> str:
    middle, low, high = (f"{value:.{digits}f}" for value in values)
    return f"{middle} [{low}, {high}]"


if __name__ == "__main__":
    main()
