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
    err,
    load_models,
    make_solving,
    typed_problem,
)
from socratic.config import parse_overrides
from socratic.report import visible
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
        if not {"qg", "qa"} <= found.keys():
            raise UserError("there is no pair of students below runs/; socratic demo trains one, or give --qg and --qa")
        qg, qa, cot = found["qg"], found["qa"], cot or found.get("cot")
        chosen = {"QG": qg, "QA": qa, "CoT": cot}
        err.print(visible("\n".join(f"{role:>3} {model}" for role, model in chosen.items() if model)), soft_wrap=True)
    solving = make_solving("socratic", qg, qa, None, calculator, 0.0, seed, device, dtype, setting, "local")
    desk = Desk(solving, lambda: load_models([cot], device, dtype)[cot] if cot else None, data_dir, as_json)
    desk.learning = learn
    if problem is not None:
        desk.begin(problem, gold)
    desk.run()


def newest_students(runs: Path) -> dict[str, str]:
    """The newest QG and QA below ``runs`` that stand in one folder, else the newest of each, and the newest CoT.

    A unified student takes both places where there is no pair. Folders that are not whole students are passed over.
    """
    from socratic.lm.checkpoint import CARD, read_card
    from socratic.store import MANIFEST

    newest: dict[str, Path] = {}
    pair: dict[str, Path] = {}
    homes: dict[Path, dict[str, Path]] = {}
    for card in sorted(runs.rglob(CARD), key=lambda card: card.stat().st_mtime):
        folder = card.parent
        if not (folder / MANIFEST).is_file():
            continue
        try:
            role = read_card(folder).role
        except UserError:
            continue
        siblings = homes.setdefault(folder.parent, {})
        newest[role] = siblings[role] = folder
        if {"qg", "qa"} <= siblings.keys():
            pair = siblings
    if not pair and "unified" in newest:
        pair = {"qg": newest["unified"], "qa": newest["unified"]}
    chosen = newest | pair
    return {role: str(chosen[role]) for role in ("qg", "qa", "cot") if role in chosen}
