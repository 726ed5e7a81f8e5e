"""Commands that make training data: teach, curate and augment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from socratic.cli.shared import (
    AsJson,
    Columns,
    DataDir,
    Device,
    Dtype,
    KeptBy,
    Limit,
    PushToHub,
    Scheme,
    Settings,
    Split,
    check_out,
    check_samples,
    chosen,
    column_names,
    columns_table,
    complain,
    complete_data,
    err,
    load_models,
    merged_settings,
    out,
    print_json,
    read_chains,
)
from socratic.report import visible
from socratic.types import UserError

if TYPE_CHECKING:
    from socratic.teacher.annotate import Annotation, AskSettings
    from socratic.teacher.teach import Job, Lesson


def teach(
    data: Annotated[
        str, typer.Argument(autocompletion=complete_data, help="A data set, or a file of your own problems.")
    ],
    out_file: Annotated[Path, typer.Option("--out", help="File of the chains.")],
    model: Annotated[str | None, typer.Option(help="The teacher's name at its endpoint.")] = None,
    base_url: Annotated[str | None, typer.Option(help="Of the endpoint; else OPENAI_BASE_URL, else OpenAI's.")] = None,
    lm: Annotated[str | None, typer.Option("--lm", help="A teacher that runs here: MODEL.")] = None,
    split: Split = "train",
    limit: Limit = None,
    only_failed_by: Annotated[Path | None, typer.Option(help="Only problems that this run got wrong.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Chains of each problem.")] = 1,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy; 0.7 if unset.")] = None,
    style: Annotated[
        Literal["socratic", "cot", "answers", "questions", "zero-shot-cot"],
        typer.Option(help="What is written: both, a chain of thought, or what is missing of given steps."),
    ] = "socratic",
    hint_answer: Annotated[bool, typer.Option("--hint-answer", help="Give the right answer as a hint.")] = False,
    hint_failed: Annotated[
        bool, typer.Option("--hint-failed", help="Ask once more with that hint where the chain would be rejected.")
    ] = False,
    prompt: Annotated[Path | None, typer.Option(help="Folder of your own prompt.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Requests under way at most; 64 if unset.")] = None,
    batch: Annotated[bool, typer.Option("--batch", help="By the endpoint's Batch API.")] = False,
    price: Annotated[str | None, typer.Option(help="Dollars a million prompt and reply tokens: 0.15,0.6.")] = None,
    max_cost: Annotated[float | None, typer.Option(help="Dollars to spend at most.")] = None,
    resume: Annotated[
        Literal["if-possible", "always", "never"], typer.Option(help="What to do with what was begun before.")
    ] = "if-possible",
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Ask again what was refused, or was in a batch that is lost.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Estimate tokens and cost; ask nothing.")] = False,
    device: Device = None,
    dtype: Dtype = "auto",
    setting: Settings = None,
    data_dir: DataDir = None,
    split_scheme: Scheme = "authors",
    column: Columns = None,
    as_json: AsJson = False,
) -> None:
    """Have a teacher write chains, few-shot; the same command continues what was interrupted."""
    from socratic.config import nearest
    from socratic.progress import annotate_with_bar
    from socratic.prompts import load_prompt
    from socratic.teacher.annotate import AskSettings
    from socratic.teacher.teach import Lesson, TeachSettings

    if bool(model) == bool(lm):
        raise UserError("give either --model, the teacher's name at an endpoint, or --lm, a teacher that runs here")
    if model and (device or dtype != "auto"):
        raise UserError(f"--{f'device {device}' if device else f'dtype {dtype}'} is for --lm; leave it out")
    given = {"temperature": temperature, "concurrency": concurrency, "base_url": base_url, "max_cost": max_cost}
    options = merged_settings(
        setting,
        model=model or lm,
        style=style,
        hint_answer=hint_answer,
        hint_failed=hint_failed,
        resume=resume,
        retry_failed=retry_failed,
        batch=batch,
        **_prices(price),
        **{name: value for name, value in given.items() if value is not None},
    )
    known = TeachSettings.model_fields
    every = [*known, *AskSettings.model_fields]
    if unknown := [name for name in options if name not in every]:
        raise UserError(f"unknown setting {unknown[0]!r}; did you mean {nearest(unknown[0], every)!r}?")
    settings = TeachSettings.parse({name: value for name, value in options.items() if name in known})
    how = AskSettings.parse({name: value for name, value in options.items() if name not in known})
    if lm and (how.base_url or how.batch):
        raise UserError(f"--lm {lm} runs here; leave {'--base-url' if how.base_url else '--batch'} out")
    if lm and settings.extra:
        raise UserError(f"extra={settings.extra} is for an endpoint, not for --lm; leave it out")
    check_samples(samples, settings.temperature)
    jobs = _jobs(data, split, limit, only_failed_by, samples, style, data_dir, split_scheme, column_names(column))
    if prompt and style == "zero-shot-cot":
        raise UserError(f"--style zero-shot-cot shows no prompt; leave --prompt {prompt} out")
    if how.form not in (None, "text") and style == "zero-shot-cot":
        raise UserError(f"--style zero-shot-cot takes replies as text; leave form={how.form} out")
    shown = None if style == "zero-shot-cot" else load_prompt(style, jobs[0].problem.dataset, prompt)
    if dry_run:
        _estimate(jobs, Lesson(settings, shown, how.form or "json_schema"), how, as_json)
        return
    check_out(out_file, data)
    loaded = load_models([lm], device, dtype)[lm] if lm else None
    done = annotate_with_bar(data, jobs, settings, shown, out_file, how, lm=loaded, console=err)
    _report(done, how, len(jobs), out_file, as_json)


def _prices(price: str | None) -> dict[str, float]:
    if price is None:
        return {}
    try:
        first, second = map(float, price.split(","))
    except ValueError:
        raise UserError(f"--price {price!r} is not two numbers with a comma between; give such as 0.15,0.6") from None
    return {"prompt_price": first, "completion_price": second}


def _jobs(
    data: str,
    split: str,
    limit: int | None,
    only_failed_by: Path | None,
    samples: int,
    style: str,
    data_dir: str | None,
    split_scheme: str,
    columns: dict[str, str] | None,
) -> list[Job]:
    from socratic.evaluate import load_run
    from socratic.tasks import load_chains, load_problems
    from socratic.teacher.jobs import jobs_of

    how: dict[str, Any] = {"split_scheme": split_scheme, "columns": columns}
    if limit is not None and limit < 1:
        raise UserError(f"--limit {limit} leaves no problem to ask for; give 1 or more")
    problems = load_problems(data, split, data_dir, None if only_failed_by else limit, **how)
    if only_failed_by:
        run = load_run(only_failed_by, data_dir)
        if not run.scores:
            raise UserError(f"{only_failed_by} is not complete, so nobody knows what failed; finish it first")
        wrong = {score.problem_id for score in run.scores if not score.correct}
        failed = {(problem.id, problem.question) for problem in run.problems if problem.id in wrong}
        problems = [problem for problem in problems if (problem.id, problem.question) in failed][:limit]
    jobs = jobs_of(problems, samples, style, lambda: load_chains(data, split, data_dir, **how))
    if not jobs:
        raise UserError(f"no problem of {data} is left to ask for; choose another --split, --limit or --style")
    return jobs


def _estimate(jobs: list[Job], lesson: Lesson, how: AskSettings, as_json: bool) -> None:
    from socratic.teacher.estimate import estimate

    prompt_tokens, completion_tokens = estimate(jobs, lesson)
    cost = how.cost((prompt_tokens, completion_tokens))
    if as_json:
        print_json(
            {"jobs": len(jobs), "prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "cost": cost}
        )
        return
    out.print(f"{len(jobs):,} requests, about {prompt_tokens:,} tokens of prompts and {completion_tokens:,} of replies")
    if cost:
        out.print(f"about {cost:,.2f} dollars")


def _report(done: Annotation, how: AskSettings, jobs: int, out_file: Path, as_json: bool) -> None:
    cost = how.cost(done.tokens)
    if as_json:
        print_json({**vars(done), "faults": dict(done.faults), "jobs": jobs, "cost": cost, "out": str(out_file)})
    else:
        table = columns_table("", "")
        table.show_header = False
        table.add_row("chains", f"{done.chains:,} of {jobs:,}")
        for reason, count in done.faults.most_common():
            table.add_row(visible(reason.replace("_", " ")), f"{count:,}")
        if done.unasked:
            table.add_row("not asked for yet", f"{done.unasked:,}")
        if done.unknown:
            table.add_row("sent before a kill, reply lost", f"{done.unknown:,}")
        table.add_row("tokens", f"{done.tokens[0]:,} of prompts, {done.tokens[1]:,} of replies")
        if cost:
            table.add_row("cost", f"{cost:,.4f} dollars")
        out.print(table)
    if done.signal:
        complain("interrupted; the same command continues")
        raise SystemExit(128 + done.signal)
    if done.why_stopped:
        raise UserError(done.why_stopped)


def curate(
    chains: Annotated[str, typer.Argument(help="A file of chains, or gold:NAME for a data set's own.")],
    kept_file: Annotated[Path | None, typer.Option("--out", help="File of the chains kept.")] = None,
    rejects: Annotated[Path | None, typer.Option(help="File of the others, each with its reason.")] = None,
    by: KeptBy = "all",
    data_dir: DataDir = None,
    push_to_hub: PushToHub = None,
    as_json: AsJson = False,
) -> None:
    """Keep the chains that are good to train on: right answer, right arithmetic, questions that ask; no two the same.

    A rejected chain says why in its metadata. Without --out only the table of yields is printed.
    """
    from socratic.curate import curate as sift
    from socratic.publish import push_chains
    from socratic.store import write_jsonl

    for written, others in ((kept_file, [chains]), (rejects, [chains, *filter(None, [kept_file])])):
        if written:
            check_out(written, *others)
    if push_to_hub and not kept_file:
        raise UserError(f"--push-to-hub {push_to_hub} pushes the file of the chains kept; name it with --out")
    if kept_file and rejects and kept_file.resolve() == rejects.resolve():
        raise UserError(f"--out and --rejects are both {rejects}; give two files")
    given = read_chains(chains, data_dir, "train", "dev")
    done = sift(given, by)
    if kept_file:
        write_jsonl(kept_file, (chain.to_json() for chain in done.kept))
    if rejects:
        marked = (replace(chain, metadata={**chain.metadata, "rejected": why}) for chain, why in done.rejected)
        write_jsonl(rejects, (chain.to_json() for chain in marked))
    yields = done.yields()
    problems = [len({chain.problem_id for chain in part}) for part in (given, done.kept)]
    if as_json:
        print_json({"chains": len(given), "problems": problems[0], "problems_kept": problems[1], **yields})
    else:
        table = columns_table("", "chains", "of all")
        for reason, count in yields.items():
            table.add_row(reason.replace("_", " "), f"{count:,}", f"{count / max(1, len(given)):.1%}")
        out.print(table)
        out.print(f"{len(given):,} chains of {problems[0]:,} problems; {problems[1]:,} problems keep one or more")
    if push_to_hub and kept_file:
        err.print(f"pushed to {push_chains(kept_file, done.kept, yields, push_to_hub)}", soft_wrap=True)


def augment(
    chains: Annotated[str, typer.Argument(help="gold:NAME for a data set's own chains, or a file as train takes it.")],
    out_file: Annotated[Path, typer.Option("--out", help="File of all chains, those given first.")],
    kinds: Annotated[
        list[str],
        typer.Option(
            "--kind", help="prefix or vary: new problems; marks or bare: the same ones rewritten. Repeatable."
        ),
    ],
    copies: Annotated[int, typer.Option(min=1, help="Variations of each problem.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the numbers drawn.")] = 0,
    against: Annotated[
        list[str] | None,
        typer.Option(help="A data set whose problems beside train's must not come in, as the chains' own do not."),
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """More chains from chains, without a teacher: problems that end earlier, other numbers, calculator's marks."""
    from socratic.augment.make import Kind, kept_out
    from socratic.augment.make import augment as make
    from socratic.store import write_jsonl
    from socratic.tasks import Reading, load_chains

    wanted = chosen("kind", kinds, get_args(Kind))
    check_out(out_file, chains)
    data = chains.removeprefix("gold:")
    given = [chain for split in ("train", "dev") for chain in load_chains(data, split, data_dir)]
    others = kept_out(given, against or [], Reading(data_dir=data_dir, split_scheme="authors"))
    if not others:
        err.print("no data set's dev and test problems are kept out; --against names one to keep out", soft_wrap=True)
    with err.status("making chains"):
        done = make(given, wanted, others, copies, seed)
    write_jsonl(out_file, (chain.to_json() for chain in done.chains))
    if as_json:
        print_json({"given": len(given), "chains": len(done.chains), **done.counts})
        return
    table = columns_table("", "chains")
    for kind, counts in done.counts.items():
        for reason, count in counts.most_common():
            table.add_row(f"{kind}: {reason.replace('_', ' ')}", f"{count:,}")
    out.print(table)
    out.print(f"{len(given):,} chains given, {len(done.chains):,} in {visible(str(out_file))}", soft_wrap=True)
