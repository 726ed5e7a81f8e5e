"""What the commands share: the consoles, the options, and how settings are read and results printed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from glob import escape, glob
from os.path import exists, isdir, isfile  # which say no, not raise, below a folder that may not be read
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from socratic.config import parse_overrides
from socratic.lm.checkpoint import CARD, read_card
from socratic.report import visible
from socratic.store import MANIFEST
from socratic.types import AnswerType, Chain, Problem, Solver, UserError

if TYPE_CHECKING:
    from socratic.lm.base import LM
    from socratic.solving import Solving

Name = TypeVar("Name", bound=str)

out = Console(highlight=False, markup=False, emoji=False)  # :100: of a file's line is no emoji
err = Console(stderr=True, highlight=False, markup=False, emoji=False)


def complete_data(typed: str) -> list[str]:
    """Data sets, and files, that begin with what is typed."""
    from socratic.tasks import TASKS

    return [*(name for name in TASKS if name.startswith(typed)), *_paths(typed)]


def complete_models(typed: str) -> list[str]:
    """Trained students below ``runs/``, and other paths, that begin with what is typed."""
    students = {str(card.parent) for card in Path("runs").glob(f"**/{CARD}") if str(card).startswith(typed)}
    others = {path.rstrip("/") if (Path(path) / CARD).is_file() else path for path in _paths(typed)}
    return sorted(students | others)


def _paths(typed: str) -> list[str]:
    return sorted(f"{path}/" if Path(path).is_dir() else path for path in glob(f"{escape(typed)}*")) if typed else []


DataDir = Annotated[str | None, typer.Option(help="Folder with the authors' files; else $SOCRATIC_DATA, else the Hub.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON in place of a table.")]
Columns = Annotated[list[str] | None, typer.Option("--column", help="field=name of a column in your own file.")]
Scheme = Annotated[str, typer.Option(help="authors, or fine-tune-cot.")]
Split = Annotated[str, typer.Option(help="train, dev, test, or another test split that the data set names.")]
Limit = Annotated[int | None, typer.Option(help="Only the first so many.")]
Calculator = Annotated[Literal["on", "off"] | None, typer.Option(help="Compute <<expr= for the students.")]
SolverOption = Annotated[Solver, typer.Option(help="The loop.")]
QG = Annotated[str | None, typer.Option(autocompletion=complete_models, help="The student that asks: MODEL.")]
QA = Annotated[str | None, typer.Option(autocompletion=complete_models, help="The student that answers: MODEL.")]
Planner = Annotated[
    str | None, typer.Option(autocompletion=complete_models, help="The student that writes a guided QG's plan: MODEL.")
]
Single = Annotated[
    str | None,
    typer.Option("--lm", autocompletion=complete_models, help="The one student of the other solvers: MODEL."),
]
Samples = Annotated[int, typer.Option(min=1, help="Traces of each problem; several are put to a majority vote.")]
Temperature = Annotated[float, typer.Option(help="0 is greedy.")]
Seed = Annotated[int, typer.Option(help="Of sampling.")]
KeptBy = Annotated[
    Literal["all", "answer"], typer.Option(help="answer: keep what ends right, whatever the arithmetic before it.")
]
BatchSize = Annotated[int, typer.Option(min=1, help="Problems under way at once.")]
Dtype = Annotated[str, typer.Option(help="fp32, bf16, or auto: bf16 where the device computes in it.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 …; the first GPU if unset.")]
Engine = Annotated[Literal["local", "ray"], typer.Option(help="ray: over the cluster that RAY_ADDRESS names.")]
PushToHub = Annotated[
    str | None,
    typer.Option(metavar="REPO", help="Push the result to this Hub repository; a new one is private."),
]
Settings = Annotated[list[str] | None, typer.Option("--set", help="A further setting, key=value.")]


def complain(sentence: str) -> None:
    """One sentence to standard error."""
    err.print(f"socratic: {visible(' '.join(sentence.split()))}", soft_wrap=True)


def make_solving(
    solver: Solver,
    qg: str | None,
    qa: str | None,
    lm: str | None,
    calculator: Literal["on", "off"] | None,
    temperature: float,
    seed: int,
    device: str | None,
    dtype: str,
    setting: list[str] | None,
    engine: Literal["local", "ray"],
    planner: str | None = None,
    gold_is_known: bool = False,
) -> Solving:
    """The solver that a command's options name, its models loaded."""
    from socratic.lm.load import default_device, has_bf16
    from socratic.solving import SolveSettings, Solving

    on = None if calculator is None else calculator == "on"
    given = merged_settings(setting, solver=solver, calculator=on, temperature=temperature, seed=seed)
    settings = SolveSettings.parse(given)
    settings.check_models(qg, qa, lm, planner)
    if settings.plan_by == "gold" and not gold_is_known:
        raise UserError("plan_by=gold is for problems whose gold chains are known, with evaluate; give --planner")
    if engine == "ray":
        if device is not None:
            raise UserError(f"--device {device} names one of this machine's; leave it out with --engine ray")
        device = "cpu"  # here the students are only described, and a worker may need the GPU
        if dtype == "auto":
            dtype = "bf16" if has_bf16(default_device()) else "fp32"  # the same on every machine
    places = {place: path for place, path in (("qg", qg), ("qa", qa), ("lm", lm), ("planner", planner)) if path}
    models = load_models(list(places.values()), device, dtype)
    lms = {place: models[path] for place, path in places.items()}
    if engine == "ray":
        from socratic.cluster import RaySolving

        return RaySolving(settings, lms, places, dtype)
    return Solving(settings, **lms)


def chosen(option: str, names: Sequence[str], known: Sequence[Name]) -> list[Name]:
    """Those of ``known`` that an option ``names``, in their own order; raises `UserError` for an unknown one."""
    for name in names:
        if name not in known:
            raise UserError(f"--{option} {name!r} is unknown; give some of {', '.join(known)}")
    return [one for one in known if one in names]


def check_samples(samples: int, temperature: float | None) -> None:
    """Raise `UserError` where greedy decoding would write the same several times."""
    if samples > 1 and temperature == 0:
        raise UserError(f"{samples} samples at --temperature 0 are all alike; give --samples 1, or raise --temperature")


def newest_students(runs: Path) -> dict[str, str]:
    """The newest QG and QA below ``runs`` that stand in one folder, else the newest of each, and the newest CoT, named.

    A unified student takes both places where there is no pair. Folders that are not whole students are passed over.
    Raises `UserError` where there is no pair.
    """
    newest: dict[str, Path] = {}
    pair: dict[str, Path] = {}
    homes: dict[Path, dict[str, Path]] = {}
    for file in sorted(runs.rglob(CARD), key=lambda file: file.stat().st_mtime):
        folder = file.parent
        if not (folder / MANIFEST).is_file():
            continue
        try:
            card = read_card(folder)
        except UserError:
            continue
        role = card.role
        if role == "qg" and card.guidance != "none":  # it would need a planner
            continue
        siblings = homes.setdefault(folder.parent, {})
        newest[role] = siblings[role] = folder
        if role in ("qg", "qa") and {"qg", "qa"} <= siblings.keys():
            pair = {"qg": siblings["qg"], "qa": siblings["qa"]}
    if not pair and "unified" in newest:
        pair = {"qg": newest["unified"], "qa": newest["unified"]}
    chosen = newest | pair
    if not {"qg", "qa"} <= chosen.keys():
        raise UserError(f"there is no pair of students below {runs}/; socratic demo trains one, or give --qg and --qa")
    found: dict[str, str] = {role: str(chosen[role]) for role in ("qg", "qa", "cot") if role in chosen}
    err.print(visible("\n".join(f"{role:>3} {folder}" for role, folder in found.items())), soft_wrap=True)
    return found


def load_models(models: Sequence[str], device: str | None, dtype: str) -> dict[str, LM]:
    """Each of ``models`` loaded once, what is to be known of them said."""
    from socratic.lm.load import hush_transformers, load_lm

    with err.status("loading the models"):
        hush_transformers()
        loaded = {path: load_lm(path, device=device, dtype=dtype) for path in dict.fromkeys(models)}
    for note in filter(None, (model.note for model in loaded.values())):
        err.print(note, soft_wrap=True)
    return loaded


def typed_problem(text: str, answer_type: AnswerType = "number") -> Problem:
    """A problem that a person typed or piped; raises `UserError` for one that is blank or not UTF-8."""
    if not check_utf8(text, "the problem").strip():
        raise UserError("the problem is empty; give its text")
    return Problem("problem", "own", "test", text.strip(), "", answer_type)


def check_utf8(text: str, what: str) -> str:
    """``text``; raises `UserError` where bytes that are no UTF-8 were let through as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{what} is not UTF-8; convert it") from None
    return text


def read_chains(chains: str, data_dir: str | None, *splits: str) -> list[Chain]:
    """The chains of a file, all of them; of a file of problems with steps, or gold:NAME, a data set's, in ``splits``.

    Raises `UserError` where there are none.

    Without dev's, a student trained on what is made of them would have no dev loss.
    """
    from socratic.store import read_jsonl, read_records
    from socratic.tasks import load_chains

    name = chains.removeprefix("gold:")
    lines = name == chains and Path(chains).suffix not in (".csv", ".json")
    if not lines or "problem_id" not in next(read_jsonl(Path(chains)), {"problem_id": ""}):  # problems with steps
        return [chain for split in splits for chain in load_chains(name, split, data_dir)]
    if not (found := list(read_records(Path(chains), Chain))):
        raise UserError(f"{chains} holds no chains; give a file that does, or gold:NAME")
    for number, chain in enumerate(found, start=1):
        choices, context = (chain.metadata.get(key) for key in ("choices", "context"))
        is_list = isinstance(choices, list) and all(isinstance(choice, str) for choice in choices)
        if not (choices is None or is_list) or not isinstance(context, str | None):
            raise UserError(f"{chains}, chain {number}: choices are a list of texts, and context is a text; correct it")
    return found


def check_out(out_file: Path, *inputs: str | Path) -> None:
    """Refuse a file to write that is a folder or a device, would lie in a file, or is one of the files to be read."""
    if exists(out_file) and not isfile(out_file):
        raise UserError(f"{out_file} is no ordinary file; give the name of one")
    check_out_folder(out_file.parent)
    if any(exists(path) and exists(out_file) and out_file.samefile(path) for path in inputs):
        raise UserError(f"{out_file} is the file to be read; choose another to write")


def check_out_folder(folder: Path) -> None:
    """Refuse a folder to write into that is a file, or would lie in one."""
    for place in (folder, *folder.parents):
        if exists(place) and not isdir(place):
            raise UserError(f"{place} is a file, not a folder; choose another place")


def merged_settings(setting: list[str] | None, **options: Any) -> dict[str, Any]:
    """The command's own options and its ``--set`` pairs; raises `UserError` where one is given as both."""
    overrides = parse_overrides(setting or [])
    if doubled := sorted(options.keys() & overrides.keys()):
        name = doubled[0]
        option = "price" if name.endswith("_price") else name.replace("_", "-")
        raise UserError(f"--set {name}={overrides[name]!r}: {name} has an option of its own; give --{option}")
    return options | overrides


def column_names(pairs: list[str] | None) -> dict[str, str] | None:
    """``field=name`` pairs; None without any."""
    if not pairs:
        return None
    names: dict[str, str] = {}
    for pair in pairs:
        field, separator, name = pair.partition("=")
        if not separator or not name:
            raise UserError(f"column {pair!r} is not of the form field=name")
        if field in names:
            raise UserError(f"--column names {field!r} twice, as {names[field]!r} and {name!r}; leave one out")
        names[field] = name
    return names


def columns_table(*columns: str) -> Table:
    """A bare table."""
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def print_pairs(values: dict[str, Any]) -> None:
    """Name and value, a line each."""
    table = columns_table("", "")
    for key, value in values.items():
        table.add_row(key, Text(visible(str(value))))
    table.show_header = False
    out.print(table)


def print_json(value: Any) -> None:
    """One line of JSON, at once and past any progress bar."""
    print(json.dumps(value), file=out.file, flush=True)
