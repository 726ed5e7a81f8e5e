"""One teacher-forced trainer for every role, over the transformers `Trainer`.

Roles differ in their examples only: nothing in the training itself asks which one it is. The loss is the sum of -log p
over learned tokens divided by their number in the whole (accumulated) batch, each token counted by its chain's weight,
so one example per problem gives the gradient of one example per slot (Shridhar et al. 2212.00193, eq. 2; teacher
forcing: the history is the chain's own).
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from socratic.config import differences
from socratic.lm.base import LM
from socratic.lm.checkpoint import Card, check_is_student, is_checkpoint, read_card, save_student
from socratic.lm.load import default_device, hash_weights, hush_transformers, load_lm
from socratic.prepare import Start, TrainingRun, TrainSettings, check_sees, prepare
from socratic.prompts import format_name
from socratic.store import (
    MANIFEST,
    check_manifest,
    first_file,
    hash_json,
    is_main_process,
    lock,
    read_json,
    write_json,
)
from socratic.tasks.base import outside_fold
from socratic.types import Chain, Example, QGSees, Role, UserError
from socratic.versions import commit, package_versions

PLAN = "train.json"
"""What a training run was asked to do; a run in the same folder continues only where this agrees."""
_CHECKPOINTS = "checkpoints"
_NOT_RECORDED = {"report_to", "partner"}
"""Settings that change nothing, or whose value is a path."""


def starting_point(student: str | None, start_from: Path | None) -> str:
    """The MODEL to start from: ``student``, or the trained student ``start_from``, which may name its base as well."""
    if start_from is None:
        if student is None:
            raise UserError("nothing to start from; give --student MODEL, or --from a trained student")
        return student
    check_is_student(start_from)
    base = read_card(start_from).base.location
    if student is not None and base not in (student, str(Path(student).resolve())):
        raise UserError(f"--from {start_from} was trained from {base}, not {student}; leave --student out")
    return str(start_from)


def train(
    run: TrainingRun,
    settings: TrainSettings,
    out: Path,
    on_note: Callable[[str], None] = print,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> Card:
    """Train one student into the folder ``out`` and return its card.

    A killed run continues from its last whole checkpoint, to the same weights bit for bit on a CPU; a finished one is
    left as it is. ``on_progress``, where given, gets the updates done, their number and what was last measured; lines
    about that then do not go to ``on_note``. Raises `UserError` where ``out`` holds a run with other settings, naming
    each, and where the gradient was not finite more often than ``max_bad_steps`` or in most updates.
    """
    check_sees(run.role, run.qg_sees, settings)
    chains, dev_chains = used_chains(run.chains, run.dev_chains, settings.model_dump())
    run = replace(run, chains=chains, dev_chains=dev_chains)
    plan = _plan(run, settings)
    with lock(out) if is_main_process() else nullcontext():
        if (out / PLAN).is_file():
            _check_same(read_json(out / PLAN), plan, out)
            if is_checkpoint(out):
                if (fault := check_manifest(out)) is None:
                    on_note(f"{out} is already trained; give another --out to train again")
                    shutil.rmtree(out / _CHECKPOINTS, ignore_errors=True)  # of one killed at its very end
                    return read_card(out)
                on_note(f"{out} is no longer whole ({fault}) and is trained again")
        elif is_main_process() and (foreign := first_file(out)):
            raise UserError(f"{out} holds {foreign} but no training run; give another --out")
        return _train(run, settings, plan, out, on_note, on_progress)


def fit(
    role: Role,
    chains: Sequence[Chain],
    student: str | Path,
    out: str | Path,
    *,
    dev_chains: Sequence[Chain] = (),
    qg_sees: QGSees = "answers",
    on_note: Callable[[str], None] = print,
    **settings: object,
) -> LM:
    """`train` with the fields of `TrainSettings` by name; returns the student in ``out``, loaded.

    ``student`` is a MODEL or the folder of one trained before. Raises `UserError` as `train`, and for unknown settings.
    """
    hush_transformers()
    run = TrainingRun(role, str(student), chains, dev_chains, "given", qg_sees)
    train(run, TrainSettings.parse(settings), Path(out), on_note)
    return load_lm(str(out))


def used_chains(
    chains: Sequence[Chain], dev_chains: Sequence[Chain], settings: Mapping[str, Any]
) -> tuple[Sequence[Chain], Sequence[Chain]]:
    """Those that a training with these ``settings`` reads: outside its fold, of its samples, up to its limits.

    Raises `UserError` as `outside_fold`.
    """
    most = settings.get("samples") or math.inf  # as if only so many of each problem had been asked for
    parts = outside_fold(chains, settings.get("fold")), dev_chains
    kept, dev = ([chain for chain in part if chain.sample < most] for part in parts)
    return kept[: settings.get("limit")], dev[: settings.get("dev_limit")]


def _plan(run: TrainingRun, settings: TrainSettings) -> dict[str, Any]:
    return {
        "role": run.role,
        "qg_sees": run.qg_sees,
        "student": _identity(run.student),
        "data": _data_record(run),
        "settings": settings.model_dump(exclude=_NOT_RECORDED),
        "partner": _identity(settings.partner),
    }


def _identity(model: str | None) -> str | None:
    """MODEL, or of a trained student its name and weights, wherever it lies and whenever it was trained."""
    if model is None or not (Path(model) / MANIFEST).is_file():
        return model
    return f"{Path(model).name} {hash_weights(Path(model))[:16]}"


def _data_record(run: TrainingRun) -> dict[str, Any]:
    content = chains_hash(run.chains, run.dev_chains)
    return {"source": run.source, "chains": len(run.chains), "dev_chains": len(run.dev_chains), "sha256": content}


def chains_hash(chains: Sequence[Chain], dev_chains: Sequence[Chain]) -> str:
    """What a card says of the chains that its student was trained on and chosen by."""
    return hash_json([[chain.to_json() for chain in part] for part in (chains, dev_chains)])


def _check_same(old: dict[str, Any], new: dict[str, Any], out: Path) -> None:
    defaults = TrainSettings.parse({}).model_dump(exclude=_NOT_RECORDED)  # a newer setting is at its own
    old = {**old, "settings": {**defaults, **old.get("settings", {})}}
    old, new = ({**plan, "data": {**plan.get("data", {}), "source": None}} for plan in (old, new))  # content decides
    if differing := differences(old, new):
        raise UserError(f"{out} holds a run with other settings ({'; '.join(differing)}); give another --out")


def _train(
    run: TrainingRun,
    settings: TrainSettings,
    plan: dict[str, Any],
    out: Path,
    on_note: Callable[[str], None],
    on_progress: Callable[[int, int, str], None] | None,
) -> Card:
    import transformers

    from socratic.assemble import last_whole_checkpoint, make_trainer
    from socratic.trainer import Notes

    hush_transformers()
    transformers.set_seed(settings.seed)
    start = prepare(run, settings, on_note)
    trainer = make_trainer(run, settings, start, out / _CHECKPOINTS, Notes(on_note, on_progress))
    on_note(
        f"{run.role}: {len(start.examples):,} examples of {len(run.chains):,} chains, "
        f"{_learned(start.examples):,} learned tokens an epoch, learning rate {start.rate:g}, {default_device()}"
    )
    if is_main_process():
        if not start.dev_examples and settings.dev_limit != 0:
            on_note("there is no dev chain to choose by, so the last update is kept, whatever its loss")
        write_json(out / PLAN, plan)  # from here on the folder is a run
    checkpoint, torn = last_whole_checkpoint(out / _CHECKPOINTS, on_note)
    trainer.accelerator.wait_for_everyone()  # some may still be reading those that are not whole
    for path in torn if is_main_process() else ():
        shutil.rmtree(path)
    trainer.train(resume_from_checkpoint=checkpoint)
    if (skipped := trainer.guard.bad_steps) > (updates := trainer.state.global_step) / 2:
        raise UserError(
            f"the gradient was not finite in {skipped} of {updates} updates, so little was learned; "
            f"lower learning_rate={start.rate:g} or set precision=fp32, in another --out"
        )
    recipe = _recipe(run, settings, start, run.chains_recipe or plan["data"]["sha256"])
    metrics = _metrics(start, trainer)
    card = Card(
        role=run.role,
        qg_sees=run.qg_sees,
        guidance=settings.guidance if run.role in ("qg", "planner") else "none",
        format=format_name(settings.format, start.student.model.config.is_encoder_decoder),
        calculator=start.codec.exact,
        end_id=start.codec.end_id,
        end_text=start.codec.end_text,
        substitutions=start.codec.substitutions,
        base=start.student.base,
        adapter=bool(settings.lora_rank),
        parameters=start.parameters,
        data={
            **plan["data"],
            "written_by": sorted({chain.source for chain in run.chains}),
            **({"columns": dict(run.columns)} if run.columns else {}),
        },
        settings=settings.model_dump(),
        recipe=recipe,
        fold=settings.fold if start.before is None or start.before.fold == settings.fold else None,
        lineage={
            **(start.before.lineage if start.before else {}),
            hash_json([recipe, settings.seed])[:16]: metrics["trained_tokens"],
        },
        metrics=_finite(metrics),
        versions=package_versions(),
        commit=commit(),
    )
    if settings.fold and not card.fold:
        on_note(f"{run.student} was not trained without fold {settings.fold}, so this student may know its problems")
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)  # gathered, where it is sharded
    trainer.accelerator.wait_for_everyone()  # some may still be reading the best checkpoint
    if is_main_process():
        model = trainer.accelerator.unwrap_model(trainer.model)
        log = [_finite(entry) for entry in trainer.state.log_history]
        save_student(out, model, start.codec.tokenizer, card, log, state, skip=_CHECKPOINTS)
        shutil.rmtree(out / _CHECKPOINTS, ignore_errors=True)
    return card


def _recipe(run: TrainingRun, settings: TrainSettings, start: Start, data: str) -> str:
    """The same for trainings that differ in their seed alone, in that of the students they start from, or in places."""
    base = start.student.base
    origin = (start.before and start.before.recipe) or base.content
    partner = settings.partner
    if partner and is_checkpoint(Path(partner)):
        partner = read_card(Path(partner)).recipe
    kept = settings.model_dump(exclude={"seed", *_NOT_RECORDED}, exclude_defaults=True)
    return hash_json([run.role, run.qg_sees, data, kept, origin, partner])


def _metrics(start: Start, trainer: Any) -> dict[str, Any]:
    """What the card says of a finished training.

    ``seconds`` are those of the updates kept, over all its calls; ``trained_tokens`` were read in all epochs, also in
    those after ``kept_update``, whose weights the student has.
    """
    import torch

    log = trainer.state.log_history
    dev_losses = {entry["step"]: entry["eval_loss"] for entry in log if "eval_loss" in entry}
    best = trainer.state.best_global_step if trainer.args.load_best_model_at_end else None
    kept = best or trainer.state.global_step
    input_tokens = sum(len(e.ids) + len(e.source) for e in start.examples)
    losses = [entry["loss"] for entry in log if "loss" in entry] or [log[-1]["train_loss"]]
    return {
        "train_loss": round(sum(losses) / len(losses), 5),
        "dev_loss": dev_losses.get(kept, min(dev_losses.values(), default=None)),
        "dev_accuracy": max((entry["eval_accuracy"] for entry in log if "eval_accuracy" in entry), default=None),
        "updates": trainer.state.global_step,
        "kept_update": kept,
        "epochs": round(trainer.state.epoch or 0.0, 3),
        "learned_tokens": _learned(start.examples),
        "input_tokens": input_tokens,
        "trained_tokens": round(input_tokens * (trainer.state.epoch or 0.0)),
        "left_out": start.left_out,
        "skipped_updates": trainer.guard.bad_steps,
        "seconds": round(trainer.guard.seconds, 1),
        "device": torch.cuda.get_device_name() if trainer.args.device.type == "cuda" else "cpu",
        "precision": "bf16" if trainer.args.bf16 else "fp32",
        "learning_rate": start.rate,
    }


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """Without what was not measured or JSON cannot hold, such as the norm of a gradient that was not finite."""
    return {k: v for k, v in values.items() if v is not None and (not isinstance(v, float) or math.isfinite(v))}


def _learned(examples: Sequence[Example]) -> int:
    return sum(sum(example.learned) for example in examples)
