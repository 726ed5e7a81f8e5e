"""Commands that do everything: recipes, the demo; and the doctor."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from socratic.cli.screen import Screen
from socratic.cli.shared import (
    AsJson,
    DataDir,
    columns_table,
    complain,
    err,
    out,
    print_json,
    print_pairs,
    typed_problem,
)
from socratic.config import parse_overrides
from socratic.report import visible
from socratic.types import UserError


def run(
    recipe: Annotated[Path, typer.Argument(help="A recipe, such as recipes/gsm8k-smollm2.yaml.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value …, such as training.epochs=1.")] = None,
    out_dir: Annotated[Path | None, typer.Option("--out", help="Folder of all stages; runs/NAME if unset.")] = None,
    smoke: Annotated[bool, typer.Option(help="The whole way at the smallest size, on bundled problems.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the stages and what is done; run nothing.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Train, evaluate and compare as a recipe says; what is done already, and has not changed, is not done again."""
    from socratic.pipeline import curves, run_plan
    from socratic.planner import make_plan
    from socratic.recipe_file import read_recipe
    from socratic.report.report import write_plots

    read = read_recipe(recipe, parse_overrides(overrides or []), smoke)
    plan = make_plan(read, out_dir or Path("runs") / f"{recipe.stem}{'-smoke' * smoke}", data_dir)
    if dry_run and as_json:
        print_json([{"stage": s.name, "folder": str(s.folder), "done": s.done} for s in plan.stages])
        return
    for split, overlaps in plan.overlaps.items():
        err.print(f"{split}: {overlaps.sentence()}", soft_wrap=True)
    for name in plan.unused:
        err.print(f"{visible(name)} is not made, since nothing needs it", soft_wrap=True)
    if dry_run:
        table = columns_table("stage", "", f"in {visible(str(plan.out))}")
        for stage in plan.stages:
            folder = str(stage.folder.relative_to(plan.out))
            table.add_row(Text(visible(stage.name)), "done" if stage.done else "to do", Text(visible(folder)))
        out.print(table)
        return
    compared = run_plan(plan, err)
    drawn = curves(plan, compared)
    write_plots(plan.out / "plots", drawn)
    if as_json:
        print_json({name: comparison.to_json() for name, comparison in compared.items()})
        return
    for name, comparison in compared.items():
        out.rule(Text(visible(name)))
        out.print(comparison.table())
    for plot in drawn:
        out.print(plot.table())
    if drawn:
        err.print(f"the plots are in {visible(str(plan.out / 'plots'))}", soft_wrap=True)


def demo(
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Folder of students and runs; runs/demo if unset.")
    ] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Change the recipe, key=value.")] = None,
    real: Annotated[bool, typer.Option("--real", help="Train nothing: the committed SmolLM2 students solve.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="As --real: do they write the committed traces again?")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train five small students on bundled problems and compare them: no key, no download, no GPU, a few minutes.

    With --real, students of SmolLM2-135M, whose weights are fetched once, solve bundled problems, then yours.
    """
    if real or check:
        if overrides:
            raise UserError(f"--set {overrides[0]} changes what is trained, and --real trains nothing; leave it out")
        if out_dir:
            raise UserError(
                f"--out {out_dir} is for students that are trained, and --real trains nothing; leave it out"
            )
        _demo_real(check, as_json)
        return
    from socratic.demo import run_demo

    found = run_demo(out_dir or Path("runs/demo"), parse_overrides(overrides or []), None if as_json else out, err)
    if as_json:
        print_json(found)


def _demo_real(check: bool, as_json: bool) -> None:
    from socratic import demo_real

    problems = demo_real.bundled_problems()
    if check:
        found = demo_real.check(demo_real.open_students(err, "cpu", "fp32"), problems, err)
        if as_json:
            print_json(found)
        else:
            for name, of in found.items():
                out.print(f"{name}: {of['same']} of {len(problems)} traces as committed, {of['right']} right")
        if differ := sorted({id for of in found.values() for id in of["differ"]}):
            some = ", ".join(differ[:5]) + (", …" if len(differ) > 5 else "")
            raise UserError(f"the traces of {some} are not those committed; see docs/students.md for reasons")
        return
    students, shown = demo_real.open_students(err), problems[: demo_real.SHOWN]
    if as_json:
        for solving in students.values():
            for trace in solving.run((problem, 0) for problem in shown):
                print_json(trace.to_json())
        return
    for problem in shown:
        demo_real.show(out, problem, students)
    screen = Screen(as_json=False)
    while screen.is_typed:
        try:
            text = screen.read("Your problem (Enter alone ends): ")
            if not text.strip():
                return
            with suppress(KeyboardInterrupt):  # which stops this one
                demo_real.show(out, typed_problem(text), students)
        except EOFError:
            return
        except UserError as error:
            complain(str(error))


def doctor(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Say what is installed, which device and dtype are used, and which data and keys are found."""
    from socratic.doctor import examine

    findings = examine(data_dir)
    if as_json:
        print_json(findings)
    else:
        print_pairs(findings)
