"""Commands that make training data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from socratic.cli.shared import AsJson, DataDir, columns_table, out, print_json


def curate(
    chains: Annotated[str, typer.Argument(help="A file of chains, or gold:NAME for a data set's own.")],
    kept_file: Annotated[Path | None, typer.Option("--out", help="File of the chains kept.")] = None,
    rejects: Annotated[Path | None, typer.Option(help="File of the others, each with its reason.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Keep the chains that are good to train on: right answer, right arithmetic, questions that ask; no two the same.

    A rejected chain says why in its metadata. Without --out only the table of yields is printed.
    """
    from socratic.curate import curate as sift
    from socratic.store import read_records, write_jsonl
    from socratic.tasks import load_chains
    from socratic.types import Chain

    name = chains.removeprefix("gold:")
    given = load_chains(name, "train", data_dir) if name != chains else list(read_records(Path(chains), Chain))
    done = sift(given)
    if kept_file:
        write_jsonl(kept_file, (chain.to_json() for chain in done.kept))
    if rejects:
        marked = (replace(chain, metadata={**chain.metadata, "rejected": why}) for chain, why in done.rejected)
        write_jsonl(rejects, (chain.to_json() for chain in marked))
    yields = done.yields()
    problems = [len({chain.problem_id for chain in part}) for part in (given, done.kept)]
    if as_json:
        print_json({"chains": len(given), "problems": problems[0], "problems_kept": problems[1], **yields})
        return
    table = columns_table("", "chains", "of all")
    for reason, count in yields.items():
        table.add_row(reason.replace("_", " "), f"{count:,}", f"{count / max(1, len(given)):.1%}")
    out.print(table)
    out.print(f"{len(given):,} chains of {problems[0]:,} problems; {problems[1]:,} problems keep one or more")
