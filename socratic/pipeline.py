"""A plan carried out: chains are made, students trained, arms evaluated, runs compared; what is done stays done."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from functools import cache

import yaml
from rich.console import Console

from socratic import store
from socratic.config import error_of
from socratic.evaluate import load_run
from socratic.lm.base import LM
from socratic.lm.load import ENDPOINT, endpoint, hush_transformers, is_encoder_decoder, load_lm
from socratic.planner import Plan
from socratic.progress import train_with_bars
from socratic.recipe import place_of
from socratic.report.compare import Comparison, compare
from socratic.report.plots import Plot, curve_plot
from socratic.stages import EvaluateStage, SelectStage, SetStage, Stage, TrainStage
from socratic.tasks.sets import load_set
from socratic.teacher.client import Endpoint
from socratic.types import Chain, UserError


def run_plan(plan: Plan, console: Console) -> dict[str, Comparison]:
    """Do whatever is not done yet, and compare the arms: a comparison for each split and calculator setting.

    Each stage continues where it was interrupted. The resolved recipe and the comparisons stay in the plan's folder.
    """
    with store.lock(plan.out):
        for stage in plan.stages:
            stage.check_link()
        waiting = [stage for stage in plan.stages if not stage.done]
        _check_endpoints(waiting)
        _check_calculators(plan, waiting)
        recipe = yaml.safe_dump(plan.recipe.model_dump(), sort_keys=False)
        store.atomic_write(plan.out / "recipe.yaml", recipe.encode())
        store.write_json(plan.out / "overlap.json", {split: found.to_json() for split, found in plan.overlaps.items()})
        hush_transformers()
        _do(plan, waiting, console)
        compared = {
            f"{place_of(split)}, calculator {'on' if on else 'off'}": compare(
                [load_run(run) for run in plan.runs(split, on)]
            )
            for split in plan.recipe.splits
            for on in plan.recipe.calculator
        }
        store.write_json(plan.out / "comparison.json", {name: one.to_json() for name, one in compared.items()})
        return compared


def _check_endpoints(waiting: Sequence[Stage]) -> None:
    """Raise `UserError` for an endpoint that a stage will ask and that has no key or no address."""
    for stage in waiting:
        if not isinstance(stage, SetStage | EvaluateStage):
            continue
        for model in (stage.students if isinstance(stage, SetStage) else stage.models).values():
            if model.startswith(ENDPOINT):
                with error_of(stage.name):
                    Endpoint(endpoint(model)[1], concurrency=1, timeout=1)


def _check_calculators(plan: Plan, waiting: Sequence[Stage]) -> None:
    """Raise `UserError` for an arm with the calculator on whose model comes from an encoder-decoder, which has none."""
    starts = {str(stage.folder): stage.student for stage in plan.stages if isinstance(stage, TrainStage)}
    for stage in waiting:
        if not isinstance(stage, EvaluateStage) or not stage.settings.calculator:
            continue
        for model in stage.models.values():
            while model in starts:
                model = starts[model]
            if is_encoder_decoder(model):
                raise UserError(f"{stage.name}: the calculator cannot interrupt {model}; set calculator=[false]")


def curves(plan: Plan, compared: Mapping[str, Comparison]) -> list[Plot]:
    """The recipe's curves, one of each comparison that has any of its arms, of those that it has."""
    plots = []
    for name, curve in plan.recipe.curves.items():
        for where, comparison in compared.items():
            rows = {row.name: row for row in comparison.rows}
            found = {
                line: [(x, rows[arm]) for x, arm in sorted(arms.items()) if arm in rows]
                for line, arms in curve.lines.items()
            }
            if lines := {line: points for line, points in found.items() if points}:
                plots.append(curve_plot(f"{name}, {where}", curve.x, lines))
    return plots


def _do(plan: Plan, waiting: list[Stage], console: Console) -> None:
    """The stages ``waiting``, in order; students whose chains are there are trained together."""

    @cache
    def load(source: str, split: str) -> list[Chain]:
        return load_set(source, split, plan.reading)

    numbers: dict[Stage, str] = {
        stage: f"{place}/{len(plan.stages)}" for place, stage in enumerate(plan.stages, start=1)
    }
    loaded = dict[str, LM]()
    for stage in plan.stages:
        if stage not in waiting:
            stage.point()
    while waiting:
        together: list[TrainStage] = []
        for stage in waiting:
            behind = [need for need in stage.needs if need in waiting and need not in together]
            if isinstance(stage, TrainStage) and not behind:
                together.append(stage)
        if together:
            trainings = [stage.training(numbers[stage], load) for stage in together]
            train_with_bars(trainings, plan.recipe.jobs, console)
        else:
            stage = waiting[0]  # those it needs stood before it
            if isinstance(stage, SetStage):
                stage.run(numbers[stage], console, plan.recipe.batch_size)
            elif isinstance(stage, EvaluateStage):
                asked = {*stage.models.values()}
                if done_with := loaded.keys() - asked:
                    loaded = {model: loaded[model] for model in loaded.keys() - done_with}
                    gc.collect()  # they leave memory before more come
                loaded |= {model: load_lm(model) for model in asked - loaded.keys()}
                stage.run(numbers[stage], console, loaded, plan.recipe.batch_size)
            elif isinstance(stage, SelectStage):
                console.print(f"{numbers[stage]} {stage.name}", soft_wrap=True)
                stage.run(plan.recipe.batch_size)
        for stage in together or waiting[:1]:
            stage.point()
            waiting.remove(stage)
