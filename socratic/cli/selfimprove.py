"""Commands that make training data out of runs, and spoil it: harvest and corrupt."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

from socratic.cli.runs import gold_chains
from socratic.cli.shared import AsJson, DataDir, KeptBy, check_out, chosen, columns_table, err, out, print_json
from socratic.report import visible
from socratic.types import UserError

_PASSED = {
    "held_out": "on problems that no student was trained on",
    "trained_on": "on problems that one may have been trained on",
}


def harvest(
    run: Annotated[list[Path], typer.Argument(help="Run folders: training problems, best with several samples.")],
    out_file: Annotated[Path, typer.Option("--out", help="File of the chains.")],
    most: Annotated[int | None, typer.Option(min=1, help="Chains of a problem at most, the most different.")] = None,
    wanted: Annotated[
        Literal["any", "qg"], typer.Option("--for", help="qg: each way of asking once, if it led to right answers.")
    ] = "any",
    share: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="With --for qg: of the samples that asked so, how many were right; 0.5 if unset."
        ),
    ] = None,
    history: Annotated[
        Literal["own", "predicted"],
        typer.Option(help="predicted: gold steps behind a student's own first ones, which are not learned."),
    ] = "own",
    trained_on: Annotated[
        Literal["refuse", "allow"], typer.Option(help="Traces on problems that a student was trained on.")
    ] = "refuse",
    by: KeptBy = "all",
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Keep what students solved rightly in runs over training problems, as chains to train on."""
    from socratic.evaluate import load_run
    from socratic.harvest import harvest as gather
    from socratic.harvest import histories
    from socratic.store import write_jsonl

    if wanted == "qg" and history == "predicted":
        raise UserError(
            "--for qg keeps whole question sequences, --history predicted parts of them; give one of the two"
        )
    if share is not None and wanted != "qg":
        raise UserError(f"--share {share:g} is of question sequences; give --for qg too, or leave it out")
    if by == "answer" and history == "predicted":
        raise UserError("--history predicted keeps steps that come to gold's values; leave --by answer out")
    check_out(out_file)
    if len({path.resolve() for path in run}) < len(run):
        raise UserError(f"{', '.join(map(str, run))} has a run twice, whose traces would count double; name each once")
    if within := [path for path in run if path.resolve() in out_file.resolve().parents]:
        raise UserError(f"{out_file} is inside the run {within[0]}, which is to be read; choose another place to write")
    runs = [load_run(path, data_dir) for path in run]
    gold = [chain for one in runs for chain in gold_chains(one, data_dir).values()]
    if history == "predicted":
        done = histories(runs, gold, most=most, trained_on=trained_on)
    else:
        asked = (0.5 if share is None else share) if wanted == "qg" else None
        done = gather(runs, gold, most=most, trained_on=trained_on, share=asked, by=by)
    write_jsonl(out_file, (chain.to_json() for chain in done.chains))
    traces, problems = sum(done.counts.values()), len({chain.problem_id for chain in done.chains})
    if as_json:
        counts = {"traces": traces, "problems_kept": problems, **done.counts}
        print_json({**counts, "pass_at_1": done.pass_at_1})
        return
    table = columns_table("", "traces", "of all")
    for reason, count in done.counts.most_common():
        table.add_row(reason.replace("_", " "), f"{count:,}", f"{count / traces:.1%}")
    out.print(table)
    for name, rate in done.pass_at_1.items():
        interval = f"{rate['rate']:.1%} [{rate['low']:.1%}, {rate['high']:.1%}]"
        out.print(f"pass@1 {_PASSED[name]}: {interval} of {rate['problems']:,} problems", soft_wrap=True)
    out.print(f"{problems:,} problems keep one or more chains, in {visible(str(out_file))}", soft_wrap=True)


def corrupt(
    chains: Annotated[str, typer.Argument(help="gold:NAME for a data set's own chains, or a file as train takes it.")],
    share: Annotated[float, typer.Option(min=0, max=1, help="Of the training chains, how many are spoiled.")],
    out_file: Annotated[Path, typer.Option("--out", help="File of all chains, those of dev as they were.")],
    kinds: Annotated[
        str, typer.Option(help="Some of wrong_step, reordered, missing, verbose, with commas between.")
    ] = "wrong_step,reordered,missing,verbose",
    seed: Annotated[int, typer.Option(help="Of which chains, and how.")] = 0,
    keep_answer: Annotated[
        bool, typer.Option("--keep-answer", help="A wrong step leaves the final answer right.")
    ] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Spoil an exact share of chains, to see how good data must be; the same ones are among those of a larger share."""
    from socratic.corrupt import Kind
    from socratic.corrupt import corrupt as spoil
    from socratic.store import write_jsonl
    from socratic.tasks import load_chains

    wanted = chosen("kinds", kinds.split(","), get_args(Kind))
    check_out(out_file, chains)
    given = [c for split in ("train", "dev") for c in load_chains(chains.removeprefix("gold:"), split, data_dir)]
    with err.status("spoiling chains"):
        done = spoil(given, share, wanted, seed, keep_answer)
    write_jsonl(out_file, (chain.to_json() for chain in done.chains))
    if as_json:
        print_json({"chains": len(done.chains), **done.counts})
        return
    table = columns_table("", "chains")
    for kind, count in done.counts.most_common():
        table.add_row(kind.replace("_", " "), f"{count:,}")
    out.print(table)
    spoilt = done.counts.total()
    out.print(f"{spoilt:,} of {len(given):,} chains spoiled, in {visible(str(out_file))}", soft_wrap=True)
