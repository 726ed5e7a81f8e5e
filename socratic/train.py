"""One teacher-forced trainer for every role, over the transformers `Trainer`.

Roles differ in their examples only: nothing in the training itself asks which one it is. The loss is the sum of -log p
over learned tokens divided by their number in the whole (accumulated) batch, so one example per problem gives the
gradient of one example per slot (Shridhar et al. 2212.00193, eq. 2; teacher forcing: the history is the chain's own).
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from socratic.config import Settings, differences
from socratic.examples import build_examples
from socratic.lm.base import LM
from socratic.lm.checkpoint import Base, Card, is_checkpoint, read_card, save_student
from socratic.lm.load import Pretrained, default_device, has_bf16, hush_transformers, load_pretrained, load_student
from socratic.prompts import learned_text, render_problem
from socratic.store import check_manifest, first_file, hash_json, lock, read_json, write_json
from socratic.tokens import Codec
from socratic.types import Chain, Example, QGSees, Role, UserError
from socratic.versions import commit, package_versions

PLAN = "train.json"
"""What a training run was asked to do; a run in the same folder continues only where this agrees."""
_CHECKPOINTS = "checkpoints"


class TrainSettings(Settings):
    """How a student is trained."""

    learning_rate: float | None = Field(None, gt=0, description="peak rate; by the student's size if unset")
    epochs: float = Field(3.0, gt=0, le=10_000, description="passes over the training examples")
    max_steps: int | None = Field(None, ge=1, description="stop after so many updates, whatever epochs says")
    batch_size: int = Field(16, ge=1, le=65_536, description="examples of one forward pass on one device")
    accumulation: int = Field(1, ge=1, description="forward passes of one update")
    warmup: float = Field(0.05, ge=0, lt=1, description="share of updates over which the rate rises")
    schedule: str = Field("cosine", description="of the rate after warm-up, a transformers scheduler's name")
    optimizer: Literal["adamw", "muon"] = Field("adamw", description="muon learns faster where weights start random")
    weight_decay: float = Field(0.01, ge=0, description="of the optimizer")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    lora_rank: int = Field(0, ge=0, description="rank of LoRA adapters on all linear layers; 0 trains all weights")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="of the forward pass; weights stay in fp32")
    seed: int = Field(0, ge=0, lt=2**32, description="of order, dropout and new weights")
    also: Role | None = Field(None, description="every second chain is learned in this role's form instead")
    limit: int | None = Field(None, ge=1, description="train on the first so many chains only")
    dev_limit: int = Field(256, ge=0, description="dev chains to choose the checkpoint on; 0 keeps the last one")
    evaluations: int = Field(1, ge=1, description="dev evaluations and checkpoints per epoch")
    best_by: Literal["loss", "accuracy"] = Field("loss", description="dev loss, or dev accuracy through solve")
    partner: str | None = Field(None, description="the other student of a QG/QA pair, for best_by accuracy")
    patience: int | None = Field(None, ge=1, description="stop after so many evaluations without improvement")
    max_bad_steps: int = Field(
        10, ge=0, description="updates with a gradient that is not finite, skipped before halting"
    )
    compile: bool | None = Field(None, description="compile the layers; where it pays if unset")
    report_to: str = Field("none", description="a tracker that transformers knows, such as tensorboard")
    trainer: dict[str, Any] = Field(default={}, description="further transformers TrainingArguments, such as optim")


def default_learning_rate(parameters: int, lora: bool) -> float:
    """A peak rate by student size; see ``docs/training.md`` for how it was chosen (on dev, never on test)."""
    full = 1e-3 if parameters < 50e6 else 2.5e-4 if parameters < 400e6 else 1e-4 if parameters < 2e9 else 2e-5
    return full * 4 if lora else full


@dataclass(frozen=True)
class TrainingRun:
    """What is trained on what: the inputs of `train`. ``student`` is a MODEL, one trained before included."""

    role: Role
    student: str
    chains: Sequence[Chain]
    dev_chains: Sequence[Chain]
    source: str
    qg_sees: QGSees = "answers"


@dataclass(frozen=True)
class _Setup:
    """What a training starts from: the student (adapters included), its examples, and the peak rate."""

    student: Pretrained
    codec: Codec
    parameters: int
    examples: list[Example]
    dev_examples: list[Example]
    left_out: int
    rate: float


def starting_point(student: str | None, start_from: Path | None) -> str:
    """The MODEL to start from: ``student``, or the trained student ``start_from``, which may name its base as well."""
    if start_from is None:
        if student is None:
            raise UserError("nothing to start from; give --student MODEL, or --from a trained student")
        return student
    if not is_checkpoint(start_from):
        raise UserError(f"{start_from} is no trained student; give the folder that train wrote")
    base = read_card(start_from).base.location
    if student is not None and base not in (student, str(Path(student).resolve())):
        raise UserError(f"--from {start_from} was trained from {base}, not {student}; leave --student out")
    return str(start_from)


def train(
    run: TrainingRun,
    settings: TrainSettings,
    out: Path,
    on_note: Callable[[str], None] = print,
    on_progress: Callable[[int, int], None] | None = None,
) -> Card:
    """Train one student into the folder ``out`` and return its card.

    A killed run continues from its last whole checkpoint, to the same weights bit for bit on a CPU; a finished one is
    left as it is. ``on_progress`` gets the updates done and their number. Raises `UserError` where ``out`` holds a run
    with other settings, naming each, and where the gradient was not finite more often than ``max_bad_steps``.
    """
    run = replace(run, chains=run.chains[: settings.limit], dev_chains=run.dev_chains[: settings.dev_limit])
    plan = _plan(run, settings)
    with lock(out) if _writes() else nullcontext():
        if (out / PLAN).is_file():
            _check_same(read_json(out / PLAN), plan, out)
            if is_checkpoint(out):
                if (fault := check_manifest(out)) is None:
                    on_note(f"{out} is already trained; give another --out to train again")
                    return read_card(out)
                on_note(f"{out} is no longer whole ({fault}) and is trained again")
        elif _writes() and (foreign := first_file(out)):
            raise UserError(f"{out} holds {foreign} but no training run; give another --out")
        return _train(run, settings, plan, out, on_note, on_progress)


def _writes() -> bool:
    """Whether this is the one of several processes (``accelerate launch``) that writes files."""
    return os.environ.get("RANK", "0") == "0"


def _plan(run: TrainingRun, settings: TrainSettings) -> dict[str, Any]:
    return {
        "role": run.role,
        "qg_sees": run.qg_sees,
        "student": run.student,
        "data": _data_record(run),
        "settings": settings.model_dump(),
    }


def _data_record(run: TrainingRun) -> dict[str, Any]:
    content = hash_json([[chain.to_json() for chain in chains] for chains in (run.chains, run.dev_chains)])
    return {"source": run.source, "chains": len(run.chains), "dev_chains": len(run.dev_chains), "sha256": content}


def _check_same(old: dict[str, Any], new: dict[str, Any], out: Path) -> None:
    if differing := differences(old, new):
        raise UserError(f"{out} holds a run with other settings ({'; '.join(differing)}); give another --out")


def _train(
    run: TrainingRun,
    settings: TrainSettings,
    plan: dict[str, Any],
    out: Path,
    on_note: Callable[[str], None],
    on_progress: Callable[[int, int], None] | None,
) -> Card:
    import transformers

    from socratic.trainer import Notes

    hush_transformers()
    transformers.set_seed(settings.seed)
    setup = _prepare(run, settings, on_note)
    trainer = _trainer(run, settings, setup, out / _CHECKPOINTS, Notes(on_note, on_progress))
    on_note(
        f"{run.role}: {len(setup.examples):,} examples of {len(run.chains):,} chains, "
        f"{_learned(setup.examples):,} learned tokens an epoch, learning rate {setup.rate:g}, {default_device()}"
    )
    if _writes():
        write_json(out / PLAN, plan)  # from here on the folder is a run
    trainer.train(resume_from_checkpoint=_last_whole_checkpoint(out / _CHECKPOINTS, on_note))
    card = Card(
        role=run.role,
        qg_sees=run.qg_sees,
        calculator=setup.codec.exact,
        end_id=setup.codec.end_id,
        end_text=setup.codec.end_text,
        substitutions=setup.codec.substitutions,
        base=setup.student.base,
        adapter=bool(settings.lora_rank),
        parameters=setup.parameters,
        data=plan["data"],
        settings=settings.model_dump(),
        recipe=_recipe(run, settings, setup, plan["data"]["sha256"]),
        metrics=_finite(_metrics(run, setup, trainer)),
        versions=package_versions(),
        commit=commit(),
    )
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)  # gathered, where it is sharded
    if _writes():
        model = trainer.accelerator.unwrap_model(trainer.model)
        log = [_finite(entry) for entry in trainer.state.log_history]
        save_student(out, model, setup.codec.tokenizer, card, log, state, skip=_CHECKPOINTS)
        shutil.rmtree(out / _CHECKPOINTS, ignore_errors=True)
    return card


def _prepare(run: TrainingRun, settings: TrainSettings, on_note: Callable[[str], None]) -> _Setup:
    student = _start(run)
    model, codec = student.model, Codec(student.tokenizer)
    parameters, seq2seq = model.num_parameters(), bool(model.config.is_encoder_decoder)
    limit = getattr(model.config, "max_position_embeddings", None)
    if settings.lora_rank:
        if student.base.location.startswith("scratch:"):
            raise UserError(f"lora_rank={settings.lora_rank} adapts a trained model, which {run.student} is not; use 0")
        student = replace(student, model=_with_lora(model, settings.lora_rank, seq2seq))
    examples, left_out = _fitting(_examples(run, run.chains, settings, codec, seq2seq), limit)
    dev_examples, _ = _fitting(_examples(run, run.dev_chains, settings, codec, seq2seq), limit)
    if not examples:
        raise UserError(f"no training example is left of {len(run.chains)} chains; all exceed {limit} tokens")
    for setting, uses_dev in (("patience", settings.patience), ("best_by", settings.best_by == "accuracy")):
        if uses_dev and not dev_examples:
            value = getattr(settings, setting)
            raise UserError(f"{setting}={value} goes by the dev chains, of which there are none; leave it out")
    if left_out:
        on_note(f"{left_out} examples exceed the student's {limit} positions and are left out")
    rate = settings.learning_rate or default_learning_rate(parameters, bool(settings.lora_rank))
    return _Setup(student, codec, parameters, examples, dev_examples, left_out, rate)


def _compiled(settings: TrainSettings, setup: _Setup) -> bool:
    """Whether to compile the layers: some 25 s of work on two cores; unasked only on a CPU, where it was measured."""
    from socratic.lm.kernels import compiler

    model = setup.student.model
    able = not model.config.is_encoder_decoder and compiler() is not None
    if settings.best_by == "accuracy" and not _runs_in_engine(model, settings):
        able = False  # it is then measured through the same layers
    if settings.compile and not able:
        raise UserError("compile=true is for decoders, on a machine with a C++ compiler; leave it out")
    passes = settings.max_steps or settings.epochs * _updates(settings, setup)
    share = min(1.0, settings.batch_size * settings.accumulation / len(setup.examples))
    operations = 6 * setup.parameters * sum(len(e.ids) for e in setup.examples) * share * passes
    layers = getattr(model, "num_hidden_layers", 0)
    # Rough seconds on two cores, after a few measurements at 0.5, 2 and 135 million parameters.
    saved = 0.4 * (operations / 4e11 + 0.02 * layers * passes)
    pays = default_device() == "cpu" and saved > 6 + 0.65 * layers
    return able and pays if settings.compile is None else settings.compile


def _runs_in_engine(model: Any, settings: TrainSettings) -> bool:
    from socratic.lm.dense import unsupported

    return not settings.lora_rank and unsupported(model) is None


def _updates(settings: TrainSettings, setup: _Setup) -> int:
    """Updates of one epoch."""
    return max(1, -(-len(setup.examples) // (settings.batch_size * settings.accumulation)))


def _trainer(
    run: TrainingRun,
    settings: TrainSettings,
    setup: _Setup,
    checkpoints: Path,
    notes: Any,
) -> Any:
    """The transformers `Trainer` of this run; raises `UserError` for settings that it or its optimizer refuses."""
    import transformers

    from socratic.trainer import Guard, StudentTrainer, collate, compile_layers, to_row

    if settings.optimizer == "muon" and "optim" in settings.trainer:
        raise UserError(f"trainer={{optim: {settings.trainer['optim']}}} is not optimizer=muon; leave one of them out")
    if _compiled(settings, setup):
        compile_layers(setup.student.model)
    accuracy = _dev_accuracy(run, settings, setup) if settings.best_by == "accuracy" else None
    stopping = [] if settings.patience is None else [transformers.EarlyStoppingCallback(settings.patience)]
    try:
        trainer = StudentTrainer(
            model=setup.student.model,
            args=_arguments(settings, setup, checkpoints),
            train_dataset=[to_row(example) for example in setup.examples],
            eval_dataset=[to_row(example) for example in setup.dev_examples] or None,
            data_collator=collate,
            processing_class=setup.codec.tokenizer,
            callbacks=[Guard(settings.max_bad_steps), notes, *stopping],
            accuracy=accuracy,
            muon=settings.optimizer == "muon",
        )
        trainer.create_optimizer_and_scheduler(num_training_steps=1)
        trainer.get_train_dataloader()
    except (TypeError, ValueError, RuntimeError, ImportError, AttributeError) as error:
        raise UserError(f"the trainer refuses these settings: {error}; see docs/training.md") from None
    trainer.optimizer = trainer.lr_scheduler = None  # only tried: the real ones belong to the prepared model
    trainer.remove_callback(transformers.PrinterCallback)  # it writes to standard output, which --json keeps clean
    return trainer


def _recipe(run: TrainingRun, settings: TrainSettings, setup: _Setup, data: str) -> str:
    """The same for trainings that differ in their seed alone, and in that of the students they start from."""
    before = _card_before(run)
    start = before.recipe if before and before.recipe else setup.student.base.model_dump()
    kept = settings.model_dump(exclude={"seed", "partner"})
    return hash_json([run.role, run.qg_sees, data, kept, start])


def _card_before(run: TrainingRun) -> Card | None:
    """The card of the trained student that this training starts from."""
    folder = Path(run.student)
    return read_card(folder) if is_checkpoint(folder) else None


def _metrics(run: TrainingRun, setup: _Setup, trainer: Any) -> dict[str, Any]:
    """What the card says of a finished training.

    ``seconds`` are those of the updates kept, over all its calls; ``trained_tokens`` were read in all epochs, those of
    the student it started from included.
    """
    import torch

    log = trainer.state.log_history
    before = _card_before(run)
    input_tokens = sum(len(e.ids) + len(e.source) for e in setup.examples)
    read_before = int(before.metrics.get("trained_tokens", 0)) if before else 0
    losses = [entry["loss"] for entry in log if "loss" in entry] or [log[-1]["train_loss"]]
    return {
        "train_loss": round(sum(losses) / len(losses), 5),
        "dev_loss": min((entry["eval_loss"] for entry in log if "eval_loss" in entry), default=None),
        "dev_accuracy": max((entry["eval_accuracy"] for entry in log if "eval_accuracy" in entry), default=None),
        "updates": trainer.state.global_step,
        "epochs": round(trainer.state.epoch or 0.0, 3),
        "learned_tokens": _learned(setup.examples),
        "input_tokens": input_tokens,
        "trained_tokens": round(input_tokens * (trainer.state.epoch or 0.0)) + read_before,
        "left_out": setup.left_out,
        "skipped_updates": trainer.guard.bad_steps,
        "seconds": round(trainer.guard.seconds, 1),
        "device": torch.cuda.get_device_name() if trainer.args.device.type == "cuda" else "cpu",
        "precision": "bf16" if trainer.args.bf16 else "fp32",
        "learning_rate": setup.rate,
    }


def _start(run: TrainingRun) -> Pretrained:
    """The weights to start from, in fp32."""
    import torch

    if is_checkpoint(Path(run.student)):
        return load_student(Path(run.student), torch.float32)[0]
    if run.student.startswith("scratch:"):
        from socratic.lm import scratch

        slots = [(c.answer, *(text for step in c.steps for text in (step.question, step.answer))) for c in run.chains]
        problems = (render_problem(chain.problem()) for chain in run.chains)
        tokenizer = scratch.train_tokenizer([*problems, *(learned_text(text) for texts in slots for text in texts)])
        model = scratch.build(run.student.removeprefix("scratch:"), tokenizer)
        return Pretrained(model, tokenizer, Base(location=run.student, sha256=None))
    return load_pretrained(run.student, torch.float32)


def _with_lora(model: Any, rank: int, seq2seq: bool) -> Any:
    import peft

    config = peft.LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules="all-linear",
        task_type="SEQ_2_SEQ_LM" if seq2seq else "CAUSAL_LM",
    )
    return peft.get_peft_model(model, config)


def _examples(
    run: TrainingRun, chains: Sequence[Chain], settings: TrainSettings, codec: Codec, seq2seq: bool
) -> list[Example]:
    if settings.also is None:
        return build_examples(chains, run.role, codec, run.qg_sees, seq2seq)
    halves = ((chains[::2], run.role), (chains[1::2], settings.also))
    return [e for half, role in halves for e in build_examples(half, role, codec, run.qg_sees, seq2seq)]


def _fitting(examples: list[Example], limit: int | None) -> tuple[list[Example], int]:
    """Examples within the student's positions, and how many are not: never cut silently."""
    fitting = [e for e in examples if limit is None or max(len(e.source), len(e.ids)) <= limit]
    return fitting, len(examples) - len(fitting)


def _dev_accuracy(run: TrainingRun, settings: TrainSettings, setup: _Setup) -> Callable[[Any], float]:
    """Model -> share of dev problems solved (strict), greedy, through the loop that the role belongs to."""
    from socratic.answers import score
    from socratic.lm.causal import CausalLM
    from socratic.lm.engine import EngineLM
    from socratic.lm.load import load_lm
    from socratic.lm.seq2seq import Seq2SeqLM
    from socratic.loops import SolveSettings, Solving

    others = {"qg": "qa", "qa": "qg"}
    partner: dict[str, LM] = {}
    if run.role in others:
        if settings.partner is None:
            raise UserError(f"best_by=accuracy of role {run.role!r} needs the other student: set partner=FOLDER")
        partner = {others[run.role]: load_lm(settings.partner)}
    solve_settings = SolveSettings.parse({"solver": "socratic" if partner else run.role})
    problems = {chain.problem_id: chain.problem("dev") for chain in run.dev_chains}

    def accuracy(model: Any) -> float:
        attention = model.config._attn_implementation
        causal: Any = EngineLM if _runs_in_engine(model, settings) else CausalLM
        lm: LM = (Seq2SeqLM if model.config.is_encoder_decoder else causal)(model, setup.codec, "student")
        lm.qg_sees = run.qg_sees
        models: dict[str, LM] = {run.role: lm, **partner} if partner else {"lm": lm}
        solving = Solving(solve_settings, *(models.get(place) for place in ("qg", "qa", "lm")))
        right = 0
        for trace in solving.run((problem, 0) for problem in problems.values()):
            problem = problems[trace.problem_id]
            right += score(trace.raw, problem.answer, problem.answer_type, problem.choices).strict
        model.set_attn_implementation(attention)  # solving has its own, without dropout
        return right / len(problems)

    return accuracy


def _last_whole_checkpoint(folder: Path, on_note: Callable[[str], None]) -> str | None:
    """The newest checkpoint that is whole, as is the best one it names; others are named and removed."""
    from transformers.trainer import TRAINER_STATE_NAME

    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    for path in found:
        fault = check_manifest(path)
        if fault is None and (best := json.loads((path / TRAINER_STATE_NAME).read_bytes())["best_model_checkpoint"]):
            fault = check_manifest(folder / Path(best).name)
        if fault is None:
            on_note(f"continuing from {path}")
            return str(path)
        on_note(f"{path} is not whole ({fault}) and is passed over")
        if _writes():
            shutil.rmtree(path)
    return None


def _arguments(settings: TrainSettings, setup: _Setup, folder: Path) -> Any:
    """Our settings as transformers `TrainingArguments`, and a trial of the trackers they name."""
    import transformers

    integrations: Any = transformers.integrations
    device = default_device()
    every = max(1, _updates(settings, setup) // settings.evaluations)
    selects = bool(setup.dev_examples)
    arguments: dict[str, Any] = {
        "output_dir": str(folder),
        "learning_rate": setup.rate,
        "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps or -1,
        "per_device_train_batch_size": settings.batch_size,
        "per_device_eval_batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.accumulation,
        "warmup_steps": settings.warmup,
        "lr_scheduler_type": settings.schedule,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "bf16": settings.precision == "bf16" or (settings.precision == "auto" and has_bf16(device)),
        "use_cpu": device == "cpu",
        "dataloader_pin_memory": device != "cpu",
        "seed": settings.seed,
        "train_sampling_strategy": "group_by_length",
        "report_to": settings.report_to,
        "metric_for_best_model": settings.best_by,
        "remove_unused_columns": False,
        "label_smoothing_factor": 0.0,
        "use_liger_kernel": False,
        "push_to_hub": False,
    }
    defaults: dict[str, Any] = {
        "logging_steps": max(1, every // 10),
        "eval_strategy": "steps" if selects else "no",
        "eval_steps": every,
        "save_strategy": "steps",
        "save_steps": every,
        "save_total_limit": 2,
        "restore_callback_states_from_checkpoint": True,  # patience and skipped updates go on counting
        "load_best_model_at_end": selects,
        "greater_is_better": settings.best_by == "accuracy",
    }
    if doubled := sorted(arguments.keys() & settings.trainer.keys()):
        raise UserError(f"trainer={{{doubled[0]}: …}} is not free to choose here; see the settings in docs/training.md")
    made = transformers.TrainingArguments(**arguments, **(defaults | settings.trainer))
    for tracker in integrations.get_reporting_integration_callbacks(made.report_to):
        tracker()
    if made.n_gpu > 1:  # several need a launcher, which starts a process for each
        made._n_gpu = 1
    return made


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """Without what was not measured or JSON cannot hold, such as the norm of a gradient that was not finite."""
    return {k: v for k, v in values.items() if v is not None and (not isinstance(v, float) or math.isfinite(v))}


def _learned(examples: Sequence[Example]) -> int:
    return sum(sum(example.learned) for example in examples)
