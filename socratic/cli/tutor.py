"""The command `tutor`: a problem solved step by step, by students and whoever sits before them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from socratic.cli.shared import (
    QA,
    QG,
    AsJson,
    Calculator,
    DataDir,
    Device,
    Dtype,
    Seed,
    Settings,
    load_models,
    make_solving,
    newest_students,
    typed_problem,
)
from socratic.config import parse_overrides
from socratic.types import UserError


def tutor(
    text: Annotated[str | None, typer.Argument(help="The problem; asked for if left out.")] = None,
    data: Annotated[
        str | None, typer.Option(help="A random problem of this data set, or the one with this id.")
    ] = None,
    qg: QG = None,
    qa: QA = None,
    cot: Annotated[str | None, typer.Option(help="The chain-of-thought student for /cot: MODEL.")] = None,
    calculator: Calculator = None,
    learn: Annotated[bool, typer.Option("--learn", help="You answer QG's questions.")] = False,
    seed: Seed = 0,
    device: Device = None,
    dtype: Dtype = "auto",
    setting: Settings = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Solve a problem step by step together with the students; /help lists what can be typed."""
    from socratic.cli.desk import Desk
    from socratic.lm.checkpoint import is_checkpoint, read_card
    from socratic.tasks import draw_problem

    if text is not None and data is not None:
        raise UserError("give a problem's text or --data, and not both")
    if (qg is None) != (qa is None):
        raise UserError("give both --qg and --qa, or neither for the newest ones below runs/")
    for name in sorted({"solver", "temperature"} & parse_overrides(setting or []).keys()):
        raise UserError(
            f"--set {name} is not for the tutor, which asks and answers greedily but at /again; leave it out"
        )
    problem, gold = draw_problem(data, data_dir) if data else (typed_problem(text) if text is not None else None, None)
    if qg is None or qa is None:
        found = newest_students(Path("runs"))
        qg, qa, cot = found["qg"], found["qa"], cot or found.get("cot")
    if is_checkpoint(Path(qg)) and (guidance := read_card(Path(qg)).guidance) != "none":
        raise UserError(f"--qg {qg} reads a plan ({guidance}), which the tutor has no way to give; take a QG without")
    solving = make_solving("socratic", qg, qa, None, calculator, 0.0, seed, device, dtype, setting, "local")
    desk = Desk(solving, lambda: load_models([cot], device, dtype)[cot] if cot else None, data_dir, as_json)
    desk.learning = learn
    if problem is not None:
        desk.begin(problem, gold)
    desk.run()
