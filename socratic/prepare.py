"""What a training is asked to do, and what it starts from: the student, its examples, and the peak rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from pydantic import Field, ValidationInfo, field_validator

from socratic.config import Settings, nearest
from socratic.examples import build_examples
from socratic.lm.checkpoint import Base, Card, is_checkpoint
from socratic.lm.load import Pretrained, load_pretrained, load_student, local_folder
from socratic.prompts import FORMATS, CompletionFormat, format_name, learned_text, render_problem
from socratic.tasks.base import parse_fold
from socratic.tokens import Codec
from socratic.types import Chain, Example, Guidance, QGSees, Role, UserError


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
    loss: Literal["nll", "kl"] = Field(
        "nll", description="kl: divergence from a teacher's token probabilities, where the chains have them"
    )
    guidance: Guidance = Field("none", description="what a planner writes and a guided QG reads behind the problem")
    also: Role | None = Field(None, description="every second chain is learned in this role's form instead")
    fold: str | None = Field(None, description="leave out the problems of this fold, as 2/4: the second of four")
    format: CompletionFormat = Field("transcript", description="how chains are written down; for roles cot and answer")
    samples: int | None = Field(None, ge=1, description="of a teacher's samples of each problem only the first so many")
    limit: int | None = Field(None, ge=1, description="train on the first so many chains only")
    dev_limit: int = Field(256, ge=0, description="dev chains to choose the checkpoint on; 0 keeps the last one")
    evaluations: int = Field(1, ge=1, description="dev evaluations and checkpoints per epoch, or a few more")
    best_by: Literal["loss", "accuracy"] = Field("loss", description="dev loss, or dev accuracy through solve")
    partner: str | None = Field(None, description="the other student of a QG/QA pair, for best_by accuracy")
    patience: int | None = Field(None, ge=1, description="stop after so many evaluations without improvement")
    max_bad_steps: int = Field(
        10, ge=0, description="updates with a gradient that is not finite, skipped before halting"
    )
    compile: bool | None = Field(None, description="compile the layers; where it pays if unset")
    report_to: str = Field("none", description="a tracker that transformers knows, such as tensorboard")
    trainer: dict[str, Any] = Field(default={}, description="further transformers TrainingArguments, such as optim")

    @field_validator("partner")
    @classmethod
    def _is_asked(cls, partner: str | None, info: ValidationInfo) -> str | None:
        if partner and info.data.get("best_by") != "accuracy":
            raise ValueError("only best_by=accuracy asks it; set that, or leave it out")
        return partner

    @field_validator("fold")
    @classmethod
    def _is_fold(cls, fold: str | None) -> str | None:
        if fold is not None:
            parse_fold(fold)
        return fold


@dataclass(frozen=True)
class TrainingRun:
    """What is trained on what: the inputs of `train`. ``student`` is a MODEL, one trained before included.

    ``chains_recipe`` hashes how the chains are made, the same for all seeds; None where the chains themselves are.
    ``columns`` are those by which ``source`` was read.
    """

    role: Role
    student: str
    chains: Sequence[Chain]
    dev_chains: Sequence[Chain]
    source: str
    qg_sees: QGSees = "answers"
    chains_recipe: str | None = None
    columns: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Start:
    """The student (adapters included), its examples, and the peak rate.

    ``before`` is the card of a student that was trained before; ``left_out`` examples were too long for this one.
    """

    student: Pretrained
    before: Card | None
    codec: Codec
    parameters: int
    examples: list[Example]
    dev_examples: list[Example]
    left_out: int
    rate: float


def default_learning_rate(parameters: int, lora: bool) -> float:
    """A peak rate by student size; see ``docs/training.md`` for how it was chosen (on dev, never on test)."""
    full = 1e-3 if parameters < 50e6 else 2.5e-4 if parameters < 400e6 else 1e-4 if parameters < 2e9 else 2e-5
    return full * 4 if lora else full


def check_sees(role: Role, qg_sees: QGSees, settings: TrainSettings) -> None:
    """Raise `UserError` for an unknown role, and where it is said what QG reads, and no QG is trained."""
    for name, value, known in (("role", role, get_args(Role)), ("qg_sees", qg_sees, get_args(QGSees))):
        if value not in known:
            raise UserError(f"unknown {name} {value!r}; did you mean {nearest(value, known)!r}?")
    if qg_sees == "questions" and "qg" not in (role, settings.also):
        raise UserError(f"qg_sees=questions is for the role qg, not {role!r}; leave it out")


def prepare(run: TrainingRun, settings: TrainSettings, on_note: Callable[[str], None]) -> Start:
    """Load or build the student and make its examples; raises `UserError` where settings and student do not fit."""
    _check_guidance(run.role, settings)
    if settings.format != "transcript" and {run.role, settings.also or run.role} - {"cot", "answer"}:
        raise UserError(f"format={settings.format} is for the roles cot and answer, not {run.role!r}; leave it out")
    if settings.format != "transcript" and settings.loss == "kl":
        raise UserError(f"loss=kl learns a teacher's steps slot by slot, which format={settings.format} joins; use nll")
    student, before = _student(run)
    model, codec = student.model, Codec(student.tokenizer)
    parameters, seq2seq = model.num_parameters(), bool(model.config.is_encoder_decoder)
    limit = getattr(model.config, "max_position_embeddings", None)
    joint = FORMATS[format_name(settings.format, seq2seq)].joint
    if joint and not codec.returns(joint):
        raise UserError(f"the tokenizer of {run.student} does not give back the text {joint!r}; use format=transcript")
    if settings.lora_rank:
        if student.base.location.startswith("scratch:"):
            raise UserError(f"lora_rank={settings.lora_rank} adapts a trained model, which {run.student} is not; use 0")
        student = replace(student, model=_with_lora(model, settings.lora_rank, seq2seq))
    examples, left_out = _fitting(_examples(run, run.chains, settings, codec, seq2seq), limit)
    dev_examples, _ = _fitting(_examples(run, run.dev_chains, settings, codec, seq2seq), limit)
    if not examples:
        raise UserError(
            f"no training example is left of {len(run.chains)} chains; all exceed {limit} tokens or have weight 0"
        )
    if settings.loss == "kl":
        known = sum(bool(candidates) for example in examples for candidates in example.targets)
        if not known:
            raise UserError(
                "loss=kl needs chains with a teacher's token probabilities, and none has; see socratic soften"
            )
        share = known / sum(sum(example.learned) for example in examples)
        on_note(f"a teacher's probabilities are known at {share:.1%} of the learned tokens; elsewhere loss=kl is nll")
    for setting, uses_dev in (("patience", settings.patience), ("best_by", settings.best_by == "accuracy")):
        if uses_dev and not dev_examples:
            value = getattr(settings, setting)
            raise UserError(f"{setting}={value} goes by the dev chains, of which there are none; leave it out")
    if left_out:
        on_note(f"{left_out} examples exceed the student's {limit} positions and are left out")
    rate = settings.learning_rate or default_learning_rate(parameters, bool(settings.lora_rank))
    return Start(student, before, codec, parameters, examples, dev_examples, left_out, rate)


def _check_guidance(role: Role, settings: TrainSettings) -> None:
    roles, guidance = {role, settings.also}, settings.guidance
    if "planner" in roles and guidance == "none":
        raise UserError("a planner needs to know what to write; give --guidance count, operators or equations")
    if "planner" in roles and settings.best_by == "accuracy":
        raise UserError("best_by=accuracy solves problems, which a planner cannot; leave it out")
    if guidance != "none" and not roles & {"qg", "planner"}:
        raise UserError(f"guidance={guidance} is for the roles qg and planner, not {role}; leave it out")


def _student(run: TrainingRun) -> tuple[Pretrained, Card | None]:
    """The weights to start from, in fp32, and their card where they were trained before."""
    import torch

    if is_checkpoint(folder := local_folder(run.student)):
        return load_student(folder, torch.float32)
    if run.student.startswith("scratch:"):
        from socratic.lm import scratch

        slots = [(c.answer, *(text for step in c.steps for text in (step.question, step.answer))) for c in run.chains]
        problems = (render_problem(chain.problem()) for chain in run.chains)
        tokenizer = scratch.train_tokenizer([*problems, *(learned_text(text) for texts in slots for text in texts)])
        model = scratch.build(run.student.removeprefix("scratch:"), tokenizer)
        return Pretrained(model, tokenizer, Base(location=run.student, sha256=None)), None
    pretrained = load_pretrained(run.student, torch.float32)
    return pretrained, pretrained.card  # of one that was exported


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
    """The examples of ``chains`` that count."""
    chains = [chain for chain in chains if chain.metadata.get("weight") != 0]
    format = FORMATS[format_name(settings.format, seq2seq)]
    if settings.also is None:
        return build_examples(chains, run.role, codec, run.qg_sees, seq2seq, settings.guidance, format)
    halves = ((chains[::2], run.role), (chains[1::2], settings.also))
    how = (codec, run.qg_sees, seq2seq, settings.guidance, format)
    return [e for half, role in halves for e in build_examples(half, role, *how)]


def _fitting(examples: list[Example], limit: int | None) -> tuple[list[Example], int]:
    """Examples within the student's positions, and how many are not: never cut silently."""
    fitting = [e for e in examples if limit is None or max(len(e.source), len(e.ids)) <= limit]
    return fitting, len(examples) - len(fitting)
