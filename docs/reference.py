"""Writes ``commands.md`` and ``settings.md`` from the code: ``python docs/reference.py``.

A test holds that the committed pages are what this writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer

from socratic.chain_sets import MAKERS
from socratic.cli import app
from socratic.config import Settings
from socratic.prepare import TrainSettings
from socratic.recipe import ArmSpec, CurveSpec, Recipe, SamplingSpec, SelectionSpec, SetSpec, StudentSpec
from socratic.solving import SolveSettings
from socratic.teacher.annotate import AskSettings
from socratic.teacher.teach import TeachSettings

DOCS = Path(__file__).parent
NOTE = "<!-- Written by docs/reference.py; change the code, not this file. -->"
TYPES = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path", dict: "mapping"}
BOUNDS = {"ge": "at least {}", "gt": "above {}", "le": "at most {}", "lt": "below {}", "min_length": "{} or more"}

COMMANDS_HEAD = """\
# Commands

Each command with all its arguments and options, as `socratic COMMAND --help` prints them. Exit codes: 0 done, 2 not
possible as called (one sentence on standard error says why, and how to mend it), 130 interrupted (143 by SIGTERM).
What `--set` takes is listed in [settings.md](settings.md).
"""
SETTINGS_HEAD = """\
# Settings

Every setting with its type, its default and what it does. On the command line a setting is given by its own option
where there is one, else by `--set name=value`; the value is read as YAML, so `--set epochs=5`,
`--set learning_rate=3e-4` and `--set 'trainer={optim: adafactor}'` do what they say. An unknown name is refused with
the nearest known one. "Unset" is written `null`. A recipe and Python write `true` and `false` where `--calculator`
takes `on` and `off`.
"""
GROUPS: list[tuple[str, str, str, type[Settings], tuple[str, ...]]] = [
    (
        "Training",
        "`socratic train`, and `training` or a student in a recipe.",
        "training.md",
        TrainSettings,
        ("train",),
    ),
    (
        "Solving",
        "`socratic solve`, `evaluate` and `tutor`, and `solving` or an arm in a recipe.",
        "comparing.md",
        SolveSettings,
        ("solve", "evaluate"),
    ),
    ("Teaching", "`socratic teach`: what decides a reply.", "teaching.md", TeachSettings, ("teach",)),
    (
        "Asking",
        "`socratic teach`: how a teacher is asked; of all this only `form` changes a reply.",
        "teaching.md",
        AskSettings,
        ("teach",),
    ),
    ("Recipe", "The keys of a recipe, for `socratic run` and `socratic demo`.", "recipes.md", Recipe, ()),
    (
        "A student of a recipe",
        "One entry below `students`; all training settings may stand beside these.",
        "recipes.md",
        StudentSpec,
        (),
    ),
    (
        "An arm of a recipe",
        "One entry below `arms`; all solving settings may stand beside these.",
        "recipes.md",
        ArmSpec,
        (),
    ),
    (
        "A sampling of a recipe",
        "One entry below `samplings`; all solving settings may stand beside these.",
        "recipes.md",
        SamplingSpec,
        (),
    ),
    ("A selection of a recipe", "One entry below `selections`.", "recipes.md", SelectionSpec, ()),
    ("A curve of a recipe", "One entry below `curves`.", "recipes.md", CurveSpec, ()),
    (
        "A set of a recipe",
        "One entry below `sets`; beside these stand the settings of what `make` names.",
        "recipes.md",
        SetSpec,
        (),
    ),
    *(
        (f"A set made by {name}", f"Beside `make: {name}`.", "recipes.md", maker.settings, ())
        for name, maker in MAKERS.items()
    ),
]


def kind_of(annotation: Any) -> str:
    """A type in words: ``int | None`` is a whole number, a `Literal` its values."""
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    parts = [part for part in get_args(annotation) if part is not type(None)]
    if get_origin(annotation) in (list, tuple):
        return f"list: {kind_of(parts[0])}"
    if get_origin(annotation) is dict:
        return TYPES[dict]
    return " or ".join(map(kind_of, parts)) if parts else TYPES[annotation]


def shown(value: Any) -> str:
    """A default."""
    if value is None:
        return "unset"
    return f"`{json.dumps(value) if isinstance(value, int | float | list | dict) else value}`"


def row(*cells: str) -> str:
    """A line of a table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def commands() -> Iterator[tuple[str, Any]]:
    """All commands by name, those of groups included."""
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        for inner, below in getattr(command, "commands", {}).items():
            yield f"{name} {inner}", below
        if not hasattr(command, "commands"):
            yield name, command


def commands_page() -> str:
    """``commands.md``."""
    lines = [NOTE, "", COMMANDS_HEAD]
    for name, command in commands():
        arguments = [param for param in command.params if param.param_type_name == "argument"]
        words = [p.name.upper() + (" …" if p.nargs == -1 else "") for p in arguments]
        usage = [word if p.required else f"[{word}]" for word, p in zip(words, arguments, strict=True)]
        lines += [f"## {name}", "", command.help.strip(), ""]
        lines += [f"`{' '.join(['socratic', name, *usage, '[OPTIONS]'])}`", ""]
        lines += [row("", "takes", "default", "what"), "|---|---|---|---|"]
        for param in command.params:
            title = param.name.upper() if param in arguments else " ".join(param.opts)
            takes = "" if getattr(param, "is_flag", False) else kind_of(param.type_descriptor.annotation)
            if takes.startswith("list: "):
                takes = f"{takes.removeprefix('list: ')}, repeatable"
            default = "required" if param.required else shown(param.default) if takes else ""
            lines.append(row(f"`{title}`", takes, default, param.help or ""))
        lines.append("")
    return "\n".join(lines)


def settings_page() -> str:
    """``settings.md``."""
    options = dict(commands())
    lines = [NOTE, "", SETTINGS_HEAD]
    for title, intro, page, settings, takers in GROUPS:
        own = {param.name: param.opts[0] for name in takers for param in options[name].params if param.opts}
        lines += [f"## {title}", "", f"{intro} See [{page}]({page}).", ""]
        lines += [row("setting", "takes", "default", "option", "what"), "|---|---|---|---|---|"]
        for name, field in settings.model_fields.items():
            bounds = [
                words.format(f"{getattr(limit, bound):,}")
                for limit in field.metadata
                for bound, words in BOUNDS.items()
                if hasattr(limit, bound)
            ]
            takes = ", ".join([kind_of(field.annotation), *bounds])
            default = "required" if field.is_required() else shown(field.default)
            option = f"`{own[name]}`" if name in own else ""
            lines.append(row(f"`{name}`", takes, default, option, field.description or ""))
        lines.append("")
    return "\n".join(lines)


PAGES = {"commands.md": commands_page, "settings.md": settings_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
