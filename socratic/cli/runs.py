"""Commands over finished runs; none of them runs a model."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from socratic.cli.screen import Screen
from socratic.cli.shared import (
    AsJson,
    DataDir,
    Seed,
    check_out,
    check_out_folder,
    check_utf8,
    complain,
    err,
    out,
    print_json,
)
from socratic.prompts import render_problem
from socratic.report import visible
from socratic.report.paint import paint_solved
from socratic.types import Chain, UserError

if TYPE_CHECKING:
    from rich.table import Table

    from socratic.evaluate import Run


def score(run: Annotated[Path, typer.Argument(help="A run folder.")], as_json: AsJson = False) -> None:
    """Score a run again from its stored traces; runs no model."""
    from socratic.evaluate import rescore

    print_run(run, rescore(run), as_json)


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; the first is the baseline.")],
    common: Annotated[bool, typer.Option("--common", help="Compare over the problems that all runs share.")] = False,
    steps: Annotated[bool, typer.Option("--steps", help="Judge sub-questions and steps too.")] = False,
    errors: Annotated[
        bool, typer.Option("--errors", help="Say what went wrong first, and what gold does not ask.")
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Write a page with plots and every problem into this file.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Write the plots into this folder, as PNG files.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Compare runs: intervals, paired tests, cost. Runs that differ in their seeds alone are one arm.

    --steps, --errors, --html and --plots read the gold chains of the runs' data set for what is set against gold.
    """
    from socratic.evaluate import load_run
    from socratic.report.compare import compare as compare_runs
    from socratic.report.html import write_page
    from socratic.report.report import make_report, write_plots

    if html:
        check_out(html, *(file for run in runs for file in run.glob("*") if file.suffix != ".html"))
    if plots:
        check_out_folder(plots)
    loaded = [load_run(run, data_dir) for run in distinct(runs)]
    for run in loaded if errors else []:
        if all(problem.answer_type != "number" for problem in run.problems):
            raise UserError(f"--errors reads calculations, and no answer in {run.path} is a number; leave it out")
    comparison = compare_runs(loaded, common)
    with_gold = loaded if steps or errors else loaded[:1] if html or plots else []
    chains = [gold_chains(run, data_dir) for run in with_gold]
    tables, as_values = _judged(loaded, chains, steps, errors) if steps or errors else ([], {})
    if html or plots:
        report = make_report(loaded, comparison, chains[0], tables[0] if steps else None)
        if html:
            write_page(html, report)
            err.print(f"the page is {visible(str(html))}", soft_wrap=True)
        if plots:
            write_plots(plots, report.plots)
            err.print(f"the plots are in {visible(str(plots))}", soft_wrap=True)
    if as_json:
        print_json({**comparison.to_json(), **as_values})
    else:
        out.print(comparison.table())
        for table in tables:
            out.print(table)


def _judged(
    runs: list[Run], chains: list[dict[str, Chain]], steps: bool, errors: bool
) -> tuple[list[Table], dict[str, Any]]:
    """What --steps and --errors add to a comparison, as tables (that of the steps first) and as plain values.

    Of the problems that all ``runs`` share.
    """
    from socratic.report.compare import restricted, run_names, shared_ids
    from socratic.report.steps import by_length, judge, lengths_table, right_by_length, steps_table
    from socratic.report.taxonomy import asked, asked_tables, errors_table, first_errors, shares

    tables: list[Table] = []
    values: dict[str, Any] = {}
    ids = shared_ids(runs, common=True)
    runs = [restricted(run, ids) for run in runs]
    if steps:
        reports = {str(run.path): judge(run, gold) for run, gold in zip(runs, chains, strict=True)}
        tables.append(steps_table(dict(zip(run_names(runs), reports.values(), strict=True))))
        values["steps"] = {name: report.to_json() for name, report in reports.items()}
        if gold := {id: chain for id, chain in chains[0].items() if id in ids}:
            groups = by_length(gold)
            rates = [right_by_length([run], groups) for run in runs]
            tables.append(lengths_table(dict(zip(run_names(runs), rates, strict=True)), groups))
            values["right_by_steps"] = {
                str(run.path): dict(zip(groups, found, strict=True)) for run, found in zip(runs, rates, strict=True)
            }
    if errors:
        named = list(zip(run_names(runs), runs, chains, strict=True))
        found = {name: first_errors(run, gold) for name, run, gold in named}
        questions = {name: asked(run, gold) for name, run, gold in named}
        tables += [errors_table(found), *asked_tables(questions)]
        values["errors"] = {name: shares(of_run) for name, of_run in found.items()}
        values["asked"] = {name: asdict(one) for name, one in questions.items()}
    return tables, values


def show(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    problem_id: Annotated[str, typer.Argument(help="Such as gsm8k/test/00007.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show one problem of a run: each sample's steps, answer, stop reason and score."""
    from socratic.evaluate import load_run
    from socratic.report.problem import find_problem

    problem, traces = find_problem(load_run(run, data_dir), problem_id)
    if as_json:
        for trace, score in traces:
            print_json({**trace.to_json(), "score": score and score.to_json()})
    else:
        paint_solved(out, problem, traces)


def rate(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; with --report, files of ratings.")],
    rater: Annotated[str | None, typer.Option(help="Your name, or any other.")] = None,
    out_file: Annotated[Path | None, typer.Option("--out", help="The file of ratings, added to.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Problems to rate.")] = 20,
    seed: Seed = 0,
    report: Annotated[bool, typer.Option("--report", help="Show the means and how far raters agree.")] = False,
    data_dir: DataDir = None,
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
    if as_json:
        raise UserError("--json is for --report; ratings are typed")
    if not rater or not rater.strip() or out_file is None:
        raise UserError("a rating needs --rater NAME and --out FILE; or give --report and files of ratings")
    check_utf8(rater, "--rater")
    items = rating.items([(os.path.abspath(run), load_run(run, data_dir)) for run in runs], limit, seed)

    def explain() -> None:
        for criterion, meaning in rating.CRITERIA.items():
            out.print(f"{criterion}: {meaning}")
        out.print("Type four digits, 0 no, 1 partly, 2 yes, such as 2 2 1 2; s skips, q stops.")

    def ask(item: rating.Item, left: int) -> str:
        asked = "\n".join(f"  {number}. {question}" for number, question in enumerate(item.questions, start=1))
        out.print(Text(visible(f"\n{item.problem}\n{asked or '  (no sub-questions)'}")), soft_wrap=True)
        return _line(screen, f"{' '.join(rating.CRITERIA)} ({left} left): ")

    screen = Screen(as_json=False)
    given = rating.rate(items, rater, out_file, ask, explain)
    out.print(f"{given} ratings added to {out_file}")


def label(
    runs: Annotated[list[Path], typer.Argument(help="Run folders with wrong numeric answers.")],
    out_file: Annotated[Path, typer.Option("--out", help="The file of labels, added to.")],
    rater: Annotated[str | None, typer.Option(help="Your name, or any other.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Wrong answers to label.")] = 50,
    seed: Seed = 0,
    report: Annotated[bool, typer.Option("--report", help="Show how far the rule of compare --errors agrees.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Say what went wrong first in wrong answers, one key each; the same command goes on where you stopped."""
    from socratic.evaluate import load_run
    from socratic.report import labels
    from socratic.report.compare import run_names

    loaded = [load_run(run, data_dir) for run in runs]
    chains = [gold_chains(run, data_dir) for run in loaded]
    found = labels.failures(list(zip(run_names(loaded), loaded, chains, strict=True)))
    if report:
        agreed = labels.agreement(labels.read_labels([out_file]), found)
        if as_json:
            print_json(agreed)
        else:
            for table in labels.agreement_tables(agreed):
                out.print(table)
        return
    if as_json:
        raise UserError("--json is for --report; labels are typed")
    if not rater or not rater.strip():
        raise UserError("a label needs --rater NAME; or give --report and a file of labels")
    check_utf8(rater, "--rater")

    def explain() -> None:
        for key, name in labels.KEYS.items():
            out.print(f"{key}  {name.replace('_', ' ')}: {labels.MEANINGS[name]}")
        out.print("Type the key of what went wrong first; s skips, q stops.")

    def ask(failure: labels.Failure, left: int) -> str:
        out.print(Text(visible(f"\n{render_problem(failure.problem)}")), soft_wrap=True)
        out.print(labels.side_by_side(failure))
        return _line(screen, f"{''.join(labels.KEYS)} ({left} left): ")

    screen = Screen(as_json=False)
    given = labels.label(labels.draw(found, limit, seed), rater, out_file, ask, explain)
    out.print(f"{given} labels added to {out_file}")


def _line(screen: Screen, prompt: str) -> str:
    """What is typed, ``""`` where that cannot be read, or that the rater wants to stop."""
    try:
        return screen.read(prompt)
    except EOFError:
        return "q"
    except UserError as error:
        complain(str(error))
        return ""


def distinct(runs: Iterable[Path]) -> list[Path]:
    """Every folder once, as it was named first: a recipe's links and folders may both have been named."""
    found: dict[Path, Path] = {}
    for run in runs:
        found.setdefault(run.resolve(), run)
    return [*found.values()]


def gold_chains(run: Run, data_dir: str | None) -> dict[str, Chain]:
    """The gold chains of the run's problems, by id; a word about it where the data have none, or have changed since."""
    from socratic.evaluate import stated_content
    from socratic.tasks import load_chains

    config = run.config
    try:
        how = {"split_scheme": config["split_scheme"], "columns": config.get("columns")}
        chains = load_chains(config.get("data", ""), config["split"], data_dir, **how)
    except (UserError, KeyError) as error:
        err.print(Text(visible(f"{run.path} is judged without gold steps: {error}")), soft_wrap=True)
        return {}
    asked = {problem.id: stated_content(problem) for problem in run.problems}
    found = {chain.problem_id: chain for chain in chains if chain.steps and chain.problem_id in asked}
    changed = [id for id, chain in found.items() if stated_content(chain.problem()) != asked[id]]
    for id in changed:
        del found[id]
    if changed:
        said = f"{run.path}: {len(changed)} of its problems read otherwise in the data now ({changed[0]} first)"
        err.print(Text(visible(f"{said} and are judged without gold steps")), soft_wrap=True)
    return found


def print_run(run: Path, metrics: dict[str, Any], as_json: bool) -> None:
    """A finished run as a table, or its metrics."""
    from socratic.evaluate import load_run
    from socratic.report.compare import compare as compare_runs

    if as_json:
        print_json(metrics)
    else:
        out.print(compare_runs([load_run(run)]).table())
