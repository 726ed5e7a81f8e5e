"""Commands over finished runs; none of them runs a model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from socratic.cli.shared import AsJson, DataDir, Seed, check_out, check_out_folder, err, out, print_json
from socratic.report import visible
from socratic.report.paint import paint_solved
from socratic.types import Chain, UserError

if TYPE_CHECKING:
    from socratic.evaluate import Run


def score(run: Annotated[Path, typer.Argument(help="A run folder.")], as_json: AsJson = False) -> None:
    """Score a run again from its stored traces; runs no model."""
    from socratic.evaluate import rescore

    print_run(run, rescore(run), as_json)


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; the first is the baseline.")],
    common: Annotated[bool, typer.Option("--common", help="Compare over the problems that all runs share.")] = False,
    steps: Annotated[bool, typer.Option("--steps", help="Judge sub-questions and steps too.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a page with plots and every problem into this file.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Write the plots into this folder, as PNG files.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Compare runs: intervals, paired tests, cost. Runs that differ in their seeds alone are one arm.

    --steps, --html and --plots read the gold chains of the runs' data set for what is set against gold.
    """
    from socratic.evaluate import load_run
    from socratic.report.compare import compare as compare_runs
    from socratic.report.html import write_page
    from socratic.report.report import make_report, write_plots
    from socratic.report.steps import judge, steps_table

    if html:
        check_out(html, *(file for run in runs for file in run.glob("*") if file.suffix != ".html"))
    if plots:
        check_out_folder(plots)
    once = {run.resolve(): run for run in reversed(runs)}  # a recipe's links and folders may both have been named
    loaded = [load_run(run) for run in reversed(once.values())]
    comparison = compare_runs(loaded, common)
    with_gold = loaded if steps else loaded[:1] if html or plots else []
    chains = [gold_chains(run, data_dir) for run in with_gold]
    reports = {str(run.path): judge(run, gold) for run, gold in zip(loaded, chains, strict=True)} if steps else {}
    judged = steps_table(reports) if steps else None
    if html or plots:
        report = make_report(loaded, comparison, chains[0], judged)
        if html:
            write_page(html, report)
            err.print(f"the page is {visible(str(html))}", soft_wrap=True)
        if plots:
            write_plots(plots, report)
            err.print(f"the plots are in {visible(str(plots))}", soft_wrap=True)
    if as_json:
        as_values = {"steps": {name: report.to_json() for name, report in reports.items()}} if steps else {}
        print_json({**comparison.to_json(), **as_values})
    else:
        out.print(comparison.table())
        if judged:
            out.print(judged)


def show(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    problem_id: Annotated[str, typer.Argument(help="Such as gsm8k/test/00007.")],
    as_json: AsJson = False,
) -> None:
    """Show one problem of a run: each sample's steps, answer, stop reason and score."""
    from socratic.evaluate import load_run
    from socratic.report.problem import find_problem

    problem, traces = find_problem(load_run(run), problem_id)
    if as_json:
        for trace, _ in traces:
            print_json(trace.to_json())
    else:
        paint_solved(out, problem, traces)


def rate(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; with --report, files of ratings.")],
    rater: Annotated[str | None, typer.Option(help="Your name, or any other.")] = None,
    out_file: Annotated[Path | None, typer.Option("--out", help="The file of ratings, added to.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Problems to rate.")] = 20,
    seed: Seed = 0,
    report: Annotated[bool, typer.Option("--report", help="Show the means and how far raters agree.")] = False,
    as_json: AsJson = False,
) -> None:
    """Rate sub-questions without seeing whose they are; the same command goes on where you stopped."""
    from socratic.evaluate import load_run
    from socratic.report import rating

    if report:
        found = rating.agreement(rating.read_ratings(runs))
        if as_json:
            print_json(found)
        else:
            out.print(rating.agreement_table(found))
        return
    if not rater or not rater.strip() or out_file is None:
        raise UserError("a rating needs --rater NAME and --out FILE; or give --report and files of ratings")
    items = rating.items([(os.path.abspath(run), load_run(run)) for run in runs], limit, seed)
    for criterion, meaning in rating.CRITERIA.items():
        out.print(f"{criterion}: {meaning}")
    out.print("Type four digits, 0 no, 1 partly, 2 yes, such as 2 2 1 2; s skips, q stops.")

    def ask(item: rating.Item, left: int) -> str:
        asked = "\n".join(f"  {number}. {question}" for number, question in enumerate(item.questions, start=1))
        out.print(Text(visible(f"\n{item.problem}\n{asked or '  (no sub-questions)'}")), soft_wrap=True)
        try:
            return input(f"{' '.join(rating.CRITERIA)} ({left} left): ")
        except EOFError:
            return "q"

    given = rating.rate(items, rater, out_file, ask, out.print)
    out.print(f"{given} ratings added to {out_file}")


def gold_chains(run: Run, data_dir: str | None) -> dict[str, Chain]:
    """The gold chains of the run's data set, by problem id; none, and a word about it, where it is not to be had."""
    from socratic.tasks import load_chains

    config = run.config
    try:
        chains = load_chains(config.get("data", ""), config["split"], data_dir, split_scheme=config["split_scheme"])
    except (UserError, KeyError) as error:
        err.print(Text(visible(f"{run.path} is judged without gold steps: {error}")), soft_wrap=True)
        return {}
    return {chain.problem_id: chain for chain in chains}


def print_run(run: Path, metrics: dict[str, Any], as_json: bool) -> None:
    """A finished run as a table, or its metrics."""
    from socratic.evaluate import load_run
    from socratic.report.compare import compare as compare_runs

    if as_json:
        print_json(metrics)
    else:
        out.print(compare_runs([load_run(run)]).table())
