"""What is ours about training: which logits are computed, the loss, the dev evaluation, and the guards.

This module imports torch and transformers at its top; `socratic.train` imports it when a training begins.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch._inductor.config
import transformers
from torch.nn.functional import cross_entropy
from transformers.trainer_callback import ExportableState
from transformers.trainer_pt_utils import LengthGroupedSampler

from socratic.lm.seq2seq import pad
from socratic.optimizer import MuonAdamW
from socratic.store import write_manifest
from socratic.types import Candidates, Example, UserError

_IGNORED = -100
_CPU_TOKENS = 2560
_SAVE_SECONDS = 300


def target_logits(model: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and ids of the learned tokens alone: [targets, vocabulary] and [targets].

    ``batch`` has ``input_ids`` and ``labels`` [rows, length] (labels -100 where not learned, padding included, by
    position). The head runs on the hidden states that predict a learned token and on no others. Causal rows are padded
    on the right, where causal attention never looks, so no mask is passed.
    """
    labels = batch["labels"]
    inner = getattr(model, "module", model)  # inside DistributedDataParallel
    if "attention_mask" in batch:  # an encoder-decoder
        keep = labels != _IGNORED
        decoder_inputs = inner.prepare_decoder_input_ids_from_labels(labels=labels)
        inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        return model(**inputs, decoder_input_ids=decoder_inputs, use_cache=False).logits[keep], labels[keep]
    keep = labels.roll(-1, dims=1) != _IGNORED
    keep[:, -1] = False
    hook = inner.get_output_embeddings().register_forward_pre_hook(lambda module, args: (args[0][keep],))
    try:
        logits = model(input_ids=batch["input_ids"], use_cache=False).logits
    finally:
        hook.remove()
    return logits, labels[:, 1:][keep[:, :-1]]


def at_targets(batch: dict[str, torch.Tensor], name: str) -> torch.Tensor | None:
    """What ``batch`` holds as ``name`` [rows, length, …] at the learned tokens, as `target_logits` orders them."""
    if name not in batch:
        return None
    first = 0 if "attention_mask" in batch else 1  # a decoder's first token has nothing that predicts it
    return batch[name][:, first:][batch["labels"][:, first:] != _IGNORED]


def compile_layers(model: Any) -> None:
    """Compile the blocks of a decoder, in place and for any length.

    On a CPU attention becomes plain products and a softmax, which the compiler fuses: with torch's own fused attention
    a training step of 16 problems was slower up to 320 tokens, and no faster at 400.
    """
    if model.device.type == "cpu":
        inductor: Any = torch._inductor
        inductor.config.cpp.threads = torch.get_num_threads()  # else code cached for another number is taken up
        model.set_attn_implementation("eager")
    count = model.config.num_hidden_layers
    blocks = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == count)
    for block in blocks:
        block.compile(dynamic=True)


@contextmanager
def _freed_memory_kept() -> Iterator[None]:
    """Keep what is freed for what comes next, where the C library is glibc.

    A step's activations are gigabytes, which it would else give back and have mapped anew each time: 4 % of a step of
    SmolLM2 on two cores. At each checkpoint (`Guard`) it is given back once, since it scatters and grows.
    """
    adjust: Any = getattr(ctypes.CDLL(None), "mallopt", None)
    trim, most_maps = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX
    if adjust:
        adjust(trim, -1)  # never; as a number of bytes it is 2 GB at most, and a step frees more
        adjust(most_maps, 0)
    try:
        yield
    finally:
        if adjust:
            adjust(trim, 128 * 1024)  # glibc's own
            adjust(most_maps, 65536)
        _give_memory_back()


def _give_memory_back() -> None:
    """Return what is freed to the system, where the C library is glibc."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def summed_nll(logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Sum of -log p in fp32 of ``targets`` [n] under ``logits`` [n, vocabulary], each times its weight [n] if given."""
    if weights is None:
        return cross_entropy(logits.float(), targets, reduction="sum")
    return cross_entropy(logits.float(), targets, reduction="none").dot(weights)


def summed_kl(
    logits: torch.Tensor, candidates: torch.Tensor, chances: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Sum of the Kullback-Leibler divergences, in fp32, of ``logits`` [n, vocabulary] from the ``candidates`` [n, k].

    These are tokens, and their ``chances`` [n, k] add up to 1; of a single one it is -log p. ``weights`` [n] as above.
    """
    log_p = logits.float().log_softmax(-1).gather(-1, candidates)
    divergences = (torch.xlogy(chances, chances) - chances * log_p).sum(-1)
    return divergences.sum() if weights is None else divergences.dot(weights)


def to_row(example: Example, soft: bool = False) -> dict[str, Any]:
    """An example as `collate` takes it: ids, labels, whether an encoder reads the ids, and a weight that is not 1.

    ``soft`` keeps the targets that are more than the ids themselves.
    """
    said = example.labels or example.ids
    labels = [i if learned else _IGNORED for i, learned in zip(said, example.learned, strict=True)]
    row = {"input_ids": list(example.source or example.ids), "labels": labels, "encoded": bool(example.source)}
    if example.weight != 1:
        row["weight"] = example.weight
    if soft and example.targets:
        row["targets"] = example.targets
    return row


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Pad on the right: ids with 0, labels with -100; an attention mask by length where an encoder reads the ids.

    Only where a row has them there are ``weights`` [rows, length], and ``candidates`` and ``chances`` [rows, length,
    k], which without a teacher's are the label alone.
    """
    ids, mask = pad([row["input_ids"] for row in rows])
    longest = max(len(row["labels"]) for row in rows)
    labels = torch.tensor([row["labels"] + [_IGNORED] * (longest - len(row["labels"])) for row in rows])
    batch = {"input_ids": ids, "labels": labels}
    if any("weight" in row for row in rows):
        batch["weights"] = torch.tensor([[row.get("weight", 1.0)] * longest for row in rows])
    if any("targets" in row for row in rows):
        batch["candidates"], batch["chances"] = _soft_targets([row.get("targets", ()) for row in rows], labels)
    return batch | {"attention_mask": mask} if rows[0]["encoded"] else batch


def _soft_targets(rows: Sequence[Sequence[Candidates]], labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    most = max(len(found) for row in rows for found in row)
    candidates = labels.clamp(min=0)[:, :, None].repeat(1, 1, most)
    chances = torch.zeros(*labels.shape, most)
    chances[:, :, 0] = 1.0
    for b, row in enumerate(rows):
        for place, found in enumerate(row):
            if found:
                candidates[b, place, : len(found)] = torch.tensor([token for token, _ in found])
                chances[b, place] = torch.tensor([p for _, p in found] + [0.0] * (most - len(found)))
    return candidates, chances


def cpu_parts(batch: dict[str, torch.Tensor], tokens: int = _CPU_TOKENS) -> list[dict[str, torch.Tensor]]:
    """The rows of a causal ``batch`` that has more padded tokens than ``tokens``, by length, in parts that have not.

    Each part ends with its longest row's last learned token: what comes behind changes no loss. With several processes
    the number of parts may differ between them, so there, and for encoder-decoders, the batch stays whole.
    """
    labels = batch["labels"]
    if labels.numel() <= tokens or "attention_mask" in batch or torch.distributed.is_initialized():
        return [batch]
    lengths = ((labels != _IGNORED) * torch.arange(1, labels.shape[1] + 1)).amax(1)
    order = lengths.argsort(descending=True).tolist()
    parts = []
    while order:
        longest = int(lengths[order[0]])
        count = max(1, tokens // longest)
        rows, order = order[:count], order[count:]
        parts.append({name: value[rows, :longest] for name, value in batch.items()})
    return parts


class StudentTrainer(transformers.Trainer):
    """A transformers `Trainer` with the loss over learned tokens and a dev evaluation that is exact over tokens.

    ``accuracy`` also measures dev accuracy through the solving loop, where given; ``muon`` takes the place of AdamW;
    ``compiled`` compiles the loss.
    """

    def __init__(
        self,
        *args: Any,
        accuracy: Callable[[Any], float] | None = None,
        muon: bool = False,
        compiled: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.accuracy, self.muon = accuracy, muon
        rows: Any = self.train_dataset
        self.weighted = any("weight" in row for row in rows)
        self.nll = torch.compile(summed_nll, dynamic=True) if compiled else summed_nll
        self.kl = torch.compile(summed_kl, dynamic=True) if compiled else summed_kl
        self.model_accepts_loss_kwargs = True  # so that `num_items_in_batch` counts the whole accumulated batch

    def train(self, *args: Any, **kwargs: Any) -> Any:
        with _freed_memory_kept():
            return super().train(*args, **kwargs)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.muon and self.optimizer is None:
            betas = (self.args.adam_beta1, self.args.adam_beta2)
            trained: Any = model or self.model
            self.optimizer = MuonAdamW(trained, self.args.learning_rate, self.args.weight_decay, betas)
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        return optimizer

    @property
    def guard(self) -> Guard:
        """The one that counts; a resumed training has another than it was made with."""
        return next(c for c in self.callback_handler.callbacks if isinstance(c, Guard))

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        sampler = super()._get_train_sampler(train_dataset)
        if not isinstance(sampler, LengthGroupedSampler):
            return sampler
        sampler.batch_size *= self.accelerator.num_processes  # the same batches for any number of processes
        return _EpochOrder(sampler, self)

    def summed(self, batch: dict[str, torch.Tensor], logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The weighted sum of the loss of ``batch`` under what `target_logits` gives for it."""
        weights, candidates, chances = (at_targets(batch, name) for name in ("weights", "candidates", "chances"))
        if candidates is None or chances is None:
            return self.nll(logits, targets, weights)
        return self.kl(logits, candidates, chances, weights)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        """The learned tokens of the whole accumulated batch of all devices, each counted by its weight."""
        if not self.weighted:
            return super()._get_num_items_in_batch(batch_samples, device)
        total = torch.stack([_total_weight(batch) for batch in batch_samples]).sum()
        return self.accelerator.reduce(total.to(device), "sum")

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward of one batch; on a CPU in parts of some thousand tokens, whose gradients add up.

        More at once is no faster there, and its activations take many gigabytes, which have to be mapped each time.
        """
        parts = cpu_parts(inputs) if self.args.device.type == "cpu" else [inputs]
        losses = [super(StudentTrainer, self).training_step(model, part, num_items_in_batch) for part in parts]
        return torch.stack(losses).sum()

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Weighted sum of the loss over learned tokens, divided by their weight in the whole batch of all devices."""
        summed = self.summed(inputs, *target_logits(model, inputs))
        mean: torch.Tensor = summed / num_items_in_batch * self.accelerator.num_processes
        return mean

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Dev loss, as in training, and accuracy per learned token, and accuracy per problem if asked for."""
        given: Any = eval_dataset or self.eval_dataset
        rows: Any = list(given)
        if (processes := self.accelerator.num_processes) > 1:  # else examples would be repeated to fill batches
            nothing = {**rows[0], "labels": [_IGNORED] * len(rows[0]["labels"])}
            rows += [nothing] * (-len(rows) % (self.args.per_device_eval_batch_size * processes))
        totals = torch.zeros(4, dtype=torch.float64)
        model: Any = self.model
        model.eval()
        with torch.no_grad():
            for batch in self.get_eval_dataloader(rows):
                inputs = self._prepare_inputs(batch)
                logits, targets = target_logits(self.model_wrapped, inputs)
                loss = self.summed(inputs, logits, targets).item()
                right = (logits.argmax(-1) == targets).sum().item()
                totals += torch.tensor([loss, _total_weight(inputs).item(), right, len(targets)])
        loss, weight, right, count = self.accelerator.reduce(totals.to(self.args.device), "sum").tolist()
        metrics = {"eval_loss": round(loss / weight, 5), "eval_token_accuracy": round(right / count, 5)}
        if self.accuracy is not None:
            metrics["eval_accuracy"] = self.accuracy(model)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def _total_weight(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The number of learned tokens, each counted by its weight."""
    weights = at_targets(batch, "weights")
    return (batch["labels"] != _IGNORED).sum().float() if weights is None else weights.sum()


class _EpochOrder(torch.utils.data.Sampler[int]):
    """Draws each epoch's order from seed and epoch alone: torch's global state is another where a run is resumed."""

    def __init__(self, sampler: LengthGroupedSampler, trainer: transformers.Trainer) -> None:
        self.sampler, self.trainer = sampler, trainer

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[int]:
        epoch = int(self.trainer.state.epoch or 0)
        self.sampler.generator = torch.Generator().manual_seed(1_000_003 * self.trainer.args.seed + epoch)
        return iter(self.sampler)


class Notes(transformers.TrainerCallback):
    """Says how far a training is, the time left and what was measured, a line each time the trainer logs.

    ``on_progress``, where given, gets it in place of the lines: updates done, their number, and what was measured last.
    """

    def __init__(self, on_note: Callable[[str], None], on_progress: Callable[[int, int, str], None] | None) -> None:
        self.on_note, self.on_progress = on_note, on_progress
        self.began = (0, 0.0)
        self.measured = ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.began = (state.global_step, time.monotonic())

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.on_progress is not None:
            self.on_progress(state.global_step, state.max_steps, self.measured)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        measured = ", ".join(f"{key} {value:.4g}" for key, value in logs.items() if key.startswith(("loss", "eval_")))
        self.measured = measured.partition(",")[0] or self.measured
        if measured and self.on_progress is None and state.is_world_process_zero:
            step, started = self.began
            pace = (time.monotonic() - started) / max(1, state.global_step - step)
            left = timedelta(seconds=round(pace * (state.max_steps - state.global_step)))
            self.on_note(f"update {state.global_step:,} of {state.max_steps:,}, {left} left: {measured}")


class Guard(transformers.TrainerCallback, ExportableState):
    """Skips updates whose gradient is not finite, within a budget, and writes each checkpoint's manifest last.

    It also keeps the seconds of training, asks for a checkpoint where the last one is minutes old, and has freed memory
    given back at each. Both counts are stored in checkpoints and go on where a run is resumed.
    """

    def __init__(self, max_bad_steps: int) -> None:
        self.max_bad_steps = max_bad_steps
        self.bad_steps = 0
        self._seconds_before = 0.0
        self._began = self._saved = time.perf_counter()

    @property
    def seconds(self) -> float:
        return self._seconds_before + time.perf_counter() - self._began

    def state(self) -> dict[str, Any]:
        attributes = {"bad_steps": self.bad_steps, "_seconds_before": self.seconds}
        return {"args": {"max_bad_steps": self.max_bad_steps}, "attributes": attributes}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        gradients = [p.grad for p in kwargs["model"].parameters() if p.grad is not None]
        if torch.nn.utils.get_total_norm(gradients).isfinite():
            return
        self.bad_steps += 1
        kwargs["model"].zero_grad(set_to_none=True)  # an optimizer passes over parameters without a gradient
        if self.bad_steps > self.max_bad_steps:
            raise UserError(
                f"the gradient was not finite in {self.bad_steps} updates, the last at update {state.global_step}; "
                f"lower learning_rate={args.learning_rate:g} or set precision=fp32; {args.output_dir} keeps checkpoints"
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        alone = args.world_size == 1  # several would not decide it at the same update, and saving waits for all
        if alone and time.perf_counter() - self._saved > _SAVE_SECONDS and args.save_strategy != "no":
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            write_manifest(Path(args.output_dir) / f"checkpoint-{state.global_step}")
        _give_memory_back()
        self._saved = time.perf_counter()
