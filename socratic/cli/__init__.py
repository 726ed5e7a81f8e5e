"""The command line: every command parses, calls one function, and prints a table or JSON."""

from __future__ import annotations

import io
import os
import sys

import typer

from socratic.cli import choosing, data, recipes, refining, runs, selfimprove, students, teaching
from socratic.cli.serve import serve
from socratic.cli.shared import complain, err
from socratic.cli.tutor import tutor
from socratic.store import NO_ACCESS, NO_ROOM
from socratic.types import UserError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Socratic chain of thought.",
)
app.add_typer(data.data_app, name="data")
for command in (
    teaching.teach,
    teaching.curate,
    teaching.augment,
    selfimprove.harvest,
    selfimprove.corrupt,
    refining.reward,
    refining.soften,
    refining.mix,
    students.train,
    students.merge,
    students.average,
    students.export,
    students.solve,
    serve,
    tutor,
    students.evaluate,
    runs.score,
    runs.compare,
    runs.show,
    runs.rate,
    runs.label,
    choosing.verdicts,
    choosing.select,
    recipes.run,
    recipes.demo,
    recipes.doctor,
):
    app.command()(command)


def main() -> None:
    """Entry point: 0 done, 2 the user's mistake, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show a character is no failure
    try:
        code = app(standalone_mode=False, prog_name="socratic")  # 130 where Ctrl-C was pressed
    except UserError as error:
        complain(str(error))
        code = 2
    except typer.TyperException as error:
        message = error.format_message()
        if message.startswith("Usage:"):  # a group without a command
            err.print(message, soft_wrap=True)
        else:
            complain(message)
        code = 2
    except OSError as error:
        if error.errno in NO_ROOM:
            complain(f"the disk has no room for {error.filename or 'what is written'}; free some and run that again")
        elif error.errno in NO_ACCESS:
            complain(f"{error.filename or 'a path'} cannot be used ({error.strerror}); give another")
        else:
            raise
        code = 2
    except KeyboardInterrupt:
        code = 130
    except SystemExit as leaving:  # how typer and rich take a reader that went away, as in ``| head``
        if not isinstance(leaving.__context__, BrokenPipeError):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still buffered
        code = 0
    if code == 130:
        complain(
            "interrupted; the same command continues what train, evaluate, run, demo, teach, soften, reward, label or "
            "rate had begun"
        )
    sys.exit(code)
