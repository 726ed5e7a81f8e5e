"""The `StudentTrainer` of a training: its arguments, what is compiled, how dev is measured, where it continues.

This module imports torch and transformers at its top; `socratic.train` imports it when a training begins.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers
from transformers.trainer import TRAINER_STATE_NAME

from socratic.answers import score
from socratic.guidance import with_plans
from socratic.lm.base import LM
from socratic.lm.dense import unsupported
from socratic.lm.engine import EngineLM
from socratic.lm.kernels import compiler
from socratic.lm.load import default_device, has_bf16, load_lm
from socratic.lm.plain import layers_lm
from socratic.lm.seq2seq import Seq2SeqLM
from socratic.prepare import Start, TrainingRun, TrainSettings
from socratic.prompts import FORMATS, format_name, scored_text
from socratic.solving import SolveSettings, Solving
from socratic.store import check_manifest, process_count
from socratic.tokens import Codec
from socratic.trainer import Guard, Notes, StudentTrainer, collate, compile_layers, to_row
from socratic.types import UserError

_LARGE_VOCABULARY = 8192
"""From here on compiling the loss saves more than it takes: a twentieth of SmolLM2's training, 49,152 tokens."""


def make_trainer(
    run: TrainingRun,
    settings: TrainSettings,
    start: Start,
    checkpoints: Path,
    notes: Notes,
) -> StudentTrainer:
    """The transformers `Trainer` of this run; raises `UserError` for settings that it or its optimizer refuses."""
    if settings.optimizer == "muon" and "optim" in settings.trainer:
        raise UserError(f"trainer={{optim: {settings.trainer['optim']}}} is not optimizer=muon; leave one of them out")
    compiled = _compiled(settings, start)
    if compiled:
        compile_layers(start.student.model)
    accuracy = _dev_accuracy(run, settings, start) if settings.best_by == "accuracy" else None
    stopping = [] if settings.patience is None else [transformers.EarlyStoppingCallback(settings.patience)]
    try:
        trainer = StudentTrainer(
            model=start.student.model,
            args=_arguments(settings, start, checkpoints),
            train_dataset=[to_row(example, settings.loss == "kl") for example in start.examples],
            eval_dataset=[to_row(example, settings.loss == "kl") for example in start.dev_examples] or None,
            data_collator=collate,
            processing_class=start.codec.tokenizer,
            callbacks=[Guard(settings.max_bad_steps), notes, *stopping],
            accuracy=accuracy,
            muon=settings.optimizer == "muon",
            compiled=compiled and start.student.model.config.vocab_size >= _LARGE_VOCABULARY,
        )
        trainer.create_optimizer_and_scheduler(num_training_steps=1)
        trainer.get_train_dataloader()
    except (TypeError, ValueError, RuntimeError, ImportError, AttributeError) as error:
        raise UserError(f"the trainer refuses these settings: {error}; see docs/training.md") from None
    trainer.optimizer = trainer.lr_scheduler = None  # only tried: the real ones belong to the prepared model
    trainer.remove_callback(transformers.PrinterCallback)  # it writes to standard output, which --json keeps clean
    return trainer


def last_whole_checkpoint(folder: Path, on_note: Callable[[str], None]) -> tuple[str | None, list[Path]]:
    """The newest checkpoint that is whole, as is the best one it names, and newer ones that are not.

    One where training had ended within an epoch is passed over as well: transformers would make another update.
    """
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    torn: list[Path] = []
    for path in found:
        fault = check_manifest(path)
        state = {} if fault else json.loads((path / TRAINER_STATE_NAME).read_bytes())
        if best := state.get("best_model_checkpoint"):
            fault = check_manifest(folder / Path(best).name)
        stopped = fault is None and state["stateful_callbacks"]["TrainerControl"]["args"]["should_training_stop"]
        if stopped and state["epoch"] < state["num_train_epochs"]:
            on_note(f"{path} is where training had ended; the end is done again from the one before it")
            continue
        if fault is None:
            on_note(f"continuing from {path}")
            return str(path), torn
        on_note(f"{path} is not whole ({fault}) and is passed over")
        torn.append(path)
    return None, torn


def _compiled(settings: TrainSettings, start: Start) -> bool:
    """Whether to compile the layers: some 25 s of work on two cores; unasked only on a CPU, where it was measured."""
    model = start.student.model
    able = not model.config.is_encoder_decoder and compiler() is not None
    if settings.best_by == "accuracy" and not _runs_in_engine(model, settings):
        able = False  # it is then measured through the same layers
    if settings.compile and not able:
        raise UserError("compile=true is for decoders, on a machine with a C++ compiler; leave it out")
    if settings.compile is not None or not able:
        return bool(settings.compile)
    updates = settings.max_steps or settings.epochs * _updates(settings, start)
    epochs = updates / _updates(settings, start) / process_count()
    operations = 6 * start.parameters * sum(len(e.ids) for e in start.examples) * epochs
    layers = getattr(model.config.get_text_config(), "num_hidden_layers", 0)
    # Rough seconds on two cores, after a few measurements at 0.5, 2 and 135 million parameters.
    saved = 0.4 * (operations / 4e11 + 0.02 * layers * updates)
    return default_device() == "cpu" and saved > 6 + 0.65 * layers


def _runs_in_engine(model: Any, settings: TrainSettings) -> bool:
    return not settings.lora_rank and unsupported(model) is None


def _updates(settings: TrainSettings, start: Start) -> int:
    """Updates of one epoch."""
    together = settings.batch_size * settings.accumulation * process_count()
    return max(1, -(-len(start.examples) // together))


def _dev_accuracy(run: TrainingRun, settings: TrainSettings, start: Start) -> Callable[[Any], float]:
    """Model -> share of dev problems solved (strict), greedy, through the loop that the role belongs to."""
    others = {"qg": "qa", "qa": "qg"}
    partner: dict[str, LM] = {}
    if run.role in others:
        if settings.partner is None:
            raise UserError(f"best_by=accuracy of role {run.role!r} needs the other student: set partner=FOLDER")
        partner = {others[run.role]: load_lm(settings.partner)}
    own = settings.guidance if run.role == "qg" else "none"
    guidance = partner["qg"].guidance if "qg" in partner else own
    gold = {"plan_by": "gold"} if guidance != "none" else {}
    solve_settings = SolveSettings.parse({"solver": "socratic" if partner else run.role, **gold})
    problems = {chain.problem_id: chain.problem("dev") for chain in run.dev_chains}
    if gold:
        problems = {p.id: p for p in with_plans(problems.values(), run.dev_chains, guidance)}

    def accuracy(model: Any) -> float:
        attention = model.config._attn_implementation
        lm = _solver(model, settings, start.codec)
        lm.qg_sees = run.qg_sees
        lm.guidance = own
        lm.format = FORMATS[format_name(settings.format, model.config.is_encoder_decoder)]
        models: dict[str, LM] = {run.role: lm, **partner} if partner else {"lm": lm}
        solving = Solving(solve_settings, **models)
        right = 0
        for trace in solving.run((problem, 0) for problem in problems.values()):
            problem = problems[trace.problem_id]
            right += score(scored_text(trace), problem.answer, problem.answer_type, problem.choices).strict
        model.set_attn_implementation(attention)  # solving has its own, without dropout
        return right / len(problems)

    return accuracy


def _solver(model: Any, settings: TrainSettings, codec: Codec) -> LM:
    if model.config.is_encoder_decoder:
        return Seq2SeqLM(model, codec, "student")
    if _runs_in_engine(model, settings):
        return EngineLM(model, codec, "student")
    return layers_lm(model, codec, "student")


def _arguments(settings: TrainSettings, start: Start, folder: Path) -> Any:
    """Our settings as transformers `TrainingArguments`, and a trial of the trackers they name."""
    integrations: Any = transformers.integrations
    device = default_device()
    every = max(1, _updates(settings, start) // settings.evaluations)
    selects = bool(start.dev_examples)
    arguments: dict[str, Any] = {
        "output_dir": str(folder),
        "learning_rate": start.rate,
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
        "fp16": False,
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
