"""`socratic data`: what data sets there are, their rows, what two of them share, and chains from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from socratic.cli.shared import (
    AsJson,
    Columns,
    DataDir,
    Limit,
    Scheme,
    Split,
    check_out,
    column_names,
    columns_table,
    complete_data,
    out,
    print_json,
)
from socratic.prompts import statement
from socratic.report import visible
from socratic.types import Chain, Problem, UserError

data_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Data sets: what there is, and their rows.")


@data_app.command("list")
def data_list(as_json: AsJson = False) -> None:
    """List the data sets."""
    from socratic.tasks import TASKS

    if as_json:
        print_json([task.describe() for task in TASKS.values()])
        return
    table = columns_table("name", "splits", "answer", "gold chains", "what")
    for task in TASKS.values():
        row = task.describe()
        table.add_row(
            row["name"],
            ", ".join(row["splits"]),
            row["answer_type"],
            "yes" if row["gold_chains"] else "no",
            row["description"],
        )
    out.print(table)


@data_app.command("show")
def data_show(
    name: Annotated[
        str, typer.Argument(autocompletion=complete_data, help="A data set, or a file of your own problems or chains.")
    ],
    split: Split = "train",
    limit: Limit = None,
    chains: Annotated[bool, typer.Option("--chains", help="Gold chains in place of problems.")] = False,
    data_dir: DataDir = None,
    split_scheme: Scheme = "authors",
    column: Columns = None,
    as_json: AsJson = False,
) -> None:
    """Show problems of a data set or of your own .jsonl, .json or .csv file; all with --json, else 5."""
    from socratic.tasks import load_chains, load_problems

    load: Any = load_chains if chains else load_problems
    columns = column_names(column)
    most = limit if as_json or limit is not None else 5
    records = load(name, split, data_dir, most, split_scheme=split_scheme, columns=columns)
    for record in records:
        if as_json:
            print_json(record.to_json())
        else:
            out.print(Text(_describe(record)), soft_wrap=True)


@data_app.command("check")
def data_check(
    train: Annotated[str, typer.Argument(help="What is trained on: NAME[:SPLIT], or a file; the split is train.")],
    test: Annotated[str, typer.Argument(help="What is tested on: NAME[:SPLIT], or a file; the split is test.")],
    data_dir: DataDir = None,
    split_scheme: Scheme = "authors",
    column: Columns = None,
    as_json: AsJson = False,
) -> None:
    """Find test problems that share 13 words in a row with a training problem, numbers masked or not."""
    from socratic.tasks import TASKS, load_problems
    from socratic.tasks.overlap import find_overlaps

    columns = column_names(column)
    if column and {train.partition(":")[0], test.partition(":")[0]} <= TASKS.keys():
        raise UserError(f"--column {column[0]} names a column of a file, and both are data sets; leave it out")

    def load(name: str, default: str) -> list[Problem]:
        source, separator, split = name.rpartition(":")
        if not separator or Path(name).is_file():
            source, split = name, default
        of_file = columns if source not in TASKS else None
        return load_problems(source, split, data_dir, split_scheme=split_scheme, columns=of_file)

    overlaps = find_overlaps(load(train, "train"), load(test, "test"))
    if as_json:
        print_json(overlaps.to_json())
        return
    for found in overlaps.found:
        how = "numbers masked" if found.masked else "as it stands"
        out.print(Text(visible(f"{found.test_id} ~ {found.train_id} ({how}): {found.shared}")), soft_wrap=True)
    out.print(overlaps.sentence(), soft_wrap=True)


@data_app.command("import")
def data_import(
    file: Annotated[Path, typer.Argument(help="Teacher output: Fine-tune-CoT's, GSM8K-AI-SubQ's, RFT's, or chains.")],
    data: Annotated[str, typer.Option(autocompletion=complete_data, help="The data set whose problems it is about.")],
    chains: Annotated[Path, typer.Option("--out", help="File of the chains.")],
    split: Annotated[str, typer.Option(help="train or dev: only chains of its problems are written.")] = "train",
    kind: Annotated[
        str | None, typer.Option(help="reasoning-teacher, subq, rejection or chains; told from the file if unset.")
    ] = None,
    data_dir: DataDir = None,
    split_scheme: Scheme = "authors",
    as_json: AsJson = False,
) -> None:
    """Make chains of stored teacher output, right or wrong; `socratic curate` says which to train on.

    A question of the test split is never imported, nor one that the data set does not have.
    """
    from socratic.store import write_jsonl
    from socratic.teacher.stored import import_stored

    check_out(chains, file)
    done = import_stored(file, data, split, kind, data_dir, split_scheme)
    write_jsonl(chains, (chain.to_json() for chain in done.chains))
    counts = done.counts()
    if as_json:
        print_json({"kind": done.kind, **counts})
        return
    table = columns_table("", "records", "of all")
    for name, count in counts.items():
        if name not in ("records", "problems") and (count or name in ("chains", "test_split")):
            table.add_row(name.replace("_", " "), f"{count:,}", f"{count / max(1, counts['records']):.1%}")
    out.print(table)
    out.print(f"{done.kind}: {counts['chains']:,} chains of {counts['problems']:,} problems ({data}, {split})")
    if counts["test_split"]:
        out.print(f"{counts['test_split']:,} records are about questions of a test split and were refused")


def _describe(record: Problem | Chain) -> str:
    problem = record if isinstance(record, Problem) else record.problem()
    stated = statement(problem.question, problem.context, problem.choices).replace("\n", "\n  ")
    if isinstance(record, Problem):
        return visible(f"{record.id}  [{record.answer_type}]\n  {stated}\n  = {record.answer}\n")
    steps = "".join(f"\n  Q: {step.question}\n  A: {step.answer}" for step in record.steps)
    return visible(f"{record.problem_id}\n  {stated}{steps}\n  = {record.answer}\n")
