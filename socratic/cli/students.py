"""Commands that train students and solve with them."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.text import Text

from socratic.cli.runs import print_run
from socratic.cli.shared import (
    QA,
    QG,
    AsJson,
    BatchSize,
    Calculator,
    Columns,
    DataDir,
    Device,
    Dtype,
    Engine,
    Limit,
    Planner,
    PushToHub,
    Samples,
    Scheme,
    Seed,
    Settings,
    Single,
    SolverOption,
    Split,
    Temperature,
    check_out,
    check_out_folder,
    check_samples,
    check_utf8,
    chosen,
    column_names,
    complain,
    complete_data,
    complete_models,
    err,
    make_solving,
    merged_settings,
    newest_students,
    out,
    print_json,
    print_pairs,
    typed_problem,
)
from socratic.report import visible
from socratic.report.paint import paint_solution
from socratic.types import AnswerType, Guidance, Problem, QGSees, Role, Trace, UserError

if TYPE_CHECKING:
    from socratic.solving import Solving


def train(
    role: Annotated[Role, typer.Argument(help="What the student learns.")],
    chains: Annotated[
        str, typer.Option(help="A file of chains, gold:NAME for a data set's own, or answers:NAME for answers alone.")
    ],
    out_dir: Annotated[Path, typer.Option("--out", help="Folder of the trained student.")],
    student: Annotated[
        str | None,
        typer.Option(autocompletion=complete_models, help="MODEL: Hub id, folder, .gguf file, or scratch:NAME."),
    ] = None,
    start_from: Annotated[
        Path | None,
        typer.Option(
            "--from", autocompletion=complete_models, help="Start from this trained student in place of MODEL."
        ),
    ] = None,
    qg_sees: Annotated[
        QGSees, typer.Option(help="What QG reads: answers (iterative) or questions (plan).")
    ] = "answers",
    guidance: Annotated[
        Guidance, typer.Option(help="What a planner writes, and a guided QG reads, behind the problem.")
    ] = "none",
    seed: Annotated[int, typer.Option(help="Of order, dropout and new weights.")] = 0,
    setting: Settings = None,
    data_dir: DataDir = None,
    split_scheme: Scheme = "authors",
    column: Columns = None,
    push_to_hub: PushToHub = None,
    as_json: AsJson = False,
) -> None:
    """Train one student; the same command continues a run that was interrupted."""
    from socratic.prepare import TrainingRun, TrainSettings
    from socratic.store import is_main_process
    from socratic.tasks.sets import check_learned, load_named
    from socratic.train import starting_point
    from socratic.train import train as train_student

    settings = TrainSettings.parse(merged_settings(setting, seed=seed, guidance=guidance))
    student = starting_point(student, start_from)
    check_learned("--chains", [chains], role, settings.also)
    how = {"data_dir": data_dir, "split_scheme": split_scheme, "columns": column_names(column)}
    kept, dev = (load_named(chains, split, **how) for split in ("train", "dev"))
    run = TrainingRun(
        role=role,
        student=student,
        chains=kept,
        dev_chains=dev,
        source=chains,
        qg_sees=qg_sees,
        columns=column_names(column),
    )
    card = train_student(run, settings, out_dir, on_note=lambda note: err.print(note, soft_wrap=True))
    if not is_main_process():
        return
    if as_json:
        print_json({"out": str(out_dir), **card.metrics})
    else:
        print_pairs(card.metrics)
    if push_to_hub:
        _push(out_dir, push_to_hub)


def merge(
    adapter: Annotated[Path, typer.Argument(autocompletion=complete_models, help="A student trained with lora_rank.")],
    out_dir: Annotated[Path, typer.Option("--out", help="Folder of the full model.")],
    push_to_hub: PushToHub = None,
) -> None:
    """Write a LoRA student as a full model folder."""
    from socratic.lm.load import merge as merge_adapter

    check_out_folder(out_dir)
    merge_adapter(adapter, out_dir)
    if push_to_hub:
        _push(out_dir, push_to_hub)


def average(
    students: Annotated[
        list[Path], typer.Argument(autocompletion=complete_models, help="Students of one role, trained from one base.")
    ],
    out_dir: Annotated[Path, typer.Option("--out", help="Folder of the full model.")],
) -> None:
    """Write the student whose weights are the mean of several students'; adapters are merged into their base first."""
    from socratic.lm.average import average as mean
    from socratic.lm.load import hush_transformers

    check_out_folder(out_dir)
    hush_transformers()
    mean(students, out_dir)


def export(
    student: Annotated[Path, typer.Argument(autocompletion=complete_models, help="Folder of a trained student.")],
    out_file: Annotated[Path, typer.Option("--out", help="The file, such as student.gguf, or an adapter's folder.")],
    dtype: Annotated[str | None, typer.Option(help="Of a file: f16 (if unset), bf16 or f32.")] = None,
    base_model: Annotated[str | None, typer.Option(help="Of a folder: Hub id of the model that the base is.")] = None,
) -> None:
    """Write a trained student as a GGUF file, which llama.cpp and `socratic` itself load, or an adapter to be shared.

    The adapter's folder holds bf16 weights, and no path of this machine.
    """
    from socratic.lm.export import export_gguf
    from socratic.lm.load import hush_transformers
    from socratic.publish import share_adapter

    if out_file.suffix != ".gguf" and dtype is None:
        check_out_folder(out_file)
        share_adapter(student, out_file, base_model)
        return
    if base_model is not None:
        raise UserError(f"--base-model {base_model} is for an adapter's folder, and {out_file} is a file; leave it out")
    check_out(out_file)
    hush_transformers()
    export_gguf(student, out_file, dtype or "f16")


def solve(
    text: Annotated[str | None, typer.Argument(help="The problem; - reads it from standard input.")] = None,
    answer_type: Annotated[AnswerType, typer.Option(help="Of problems given as text.")] = "number",
    file: Annotated[
        str | None,
        typer.Option(help="Problems, as .jsonl, .json or .csv; - reads JSON or plain lines from standard input."),
    ] = None,
    solver: SolverOption = "socratic",
    qg: QG = None,
    qa: QA = None,
    lm: Single = None,
    planner: Planner = None,
    calculator: Calculator = None,
    samples: Samples = 1,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    batch_size: BatchSize = 64,
    device: Device = None,
    dtype: Dtype = "auto",
    engine: Engine = "local",
    setting: Settings = None,
    column: Columns = None,
    as_json: AsJson = False,
) -> None:
    """Solve one problem, streamed, or a file of them, in its order; --json prints traces.

    Without a problem or --file, standard input is the problem; without students, the newest pair below runs/ solves it.
    """
    check_samples(samples, temperature)
    if text is None and file is None and sys.stdin is not None and not sys.stdin.isatty():
        text = "-"
    if text is None and file is None:
        raise UserError("there is no problem to solve; give its text, --file, or a pipe")
    if text is not None and file is not None:
        raise UserError("give either the problem's text or --file, and not both")
    if column and file is None:
        raise UserError(f"--column {column[0]} names a column of --file, and there is none; leave it out")
    if engine == "ray" and file is None:
        raise UserError("--engine ray is for the problems of a --file; leave it out")
    if file is not None:
        from socratic.tasks import read_lines, read_questions

        columns = column_names(column)
        if file != "-" and answer_type != "number":
            raise UserError(f"--answer-type {answer_type} is for typed problems; leave it out with --file {file}")
        problems = read_lines(_read_stdin(), answer_type, columns) if file == "-" else read_questions(file, columns)
    else:
        problems = [typed_problem(_read_stdin() if text == "-" else str(text), answer_type)]
    if solver == "socratic" and not (qg or qa or lm):
        newest = newest_students(Path("runs"))
        qg, qa = newest["qg"], newest["qa"]
    solving = make_solving(solver, qg, qa, lm, calculator, temperature, seed, device, dtype, setting, engine, planner)
    if as_json or file is not None or samples > 1:
        _solve_all(solving, problems, samples, batch_size, as_json)
        return
    try:
        paint_solution(out, problems[0], solving.stream(problems[0]))
    except KeyboardInterrupt:
        out.print()
        complain("interrupted before the problem was solved")
        raise SystemExit(130) from None


def evaluate(
    name: Annotated[
        str,
        typer.Argument(autocompletion=complete_data, help="A data set, or your own .jsonl, .json or .csv file."),
    ],
    out_dir: Annotated[Path, typer.Option("--out", help="The run folder; the same command continues there.")],
    split: Split = "test",
    limit: Limit = None,
    solver: SolverOption = "socratic",
    qg: QG = None,
    qa: QA = None,
    lm: Single = None,
    planner: Planner = None,
    calculator: Calculator = None,
    samples: Samples = 1,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    batch_size: BatchSize = 64,
    device: Device = None,
    dtype: Dtype = "auto",
    engine: Engine = "local",
    setting: Settings = None,
    fold: Annotated[
        str | None, typer.Option(help="Only the problems of this fold, as 2/4: the second of four.")
    ] = None,
    swap: Annotated[
        list[str] | None, typer.Option(help="Gold in a student's place: questions, answers, history, or all.")
    ] = None,
    intervene: Annotated[
        list[str] | None, typer.Option(help="Other questions for QA: shuffle, foreign, generic, or all.")
    ] = None,
    resume: Annotated[
        Literal["if-possible", "always", "never"], typer.Option(help="What to do with a run in --out.")
    ] = "if-possible",
    data_dir: DataDir = None,
    split_scheme: Scheme = "authors",
    column: Columns = None,
    as_json: AsJson = False,
) -> None:
    """Solve a data set's problems, score them, and keep traces, scores and metrics in a run folder.

    With --swap or --intervene, several runs in folders below --out, and a table of where the errors came from.
    """
    from socratic.guidance import with_plans
    from socratic.interventions import REPLACEMENTS, SWAPS
    from socratic.likelihood import offered
    from socratic.progress import evaluate_with_bar
    from socratic.report.interventions import effects_table, investigate
    from socratic.tasks import load_chains, load_problems

    check_samples(samples, temperature)
    data: dict[str, Any] = {"split_scheme": split_scheme, "columns": column_names(column)}
    problems = load_problems(name, split, data_dir, limit, **data, fold=fold)
    if solver == "likelihood":
        for problem in problems:
            offered(problem)  # refused before anything is loaded
    kinds = [*_chosen("swap", swap or (), SWAPS), *_chosen("intervene", intervene or (), REPLACEMENTS)]
    how = (calculator, temperature, seed, device, dtype, setting, engine, planner)
    solving = make_solving(solver, qg, qa, lm, *how, gold_is_known=True)
    with_gold_plans = solving.settings.plan_by == "gold"
    chains = load_chains(name, split, data_dir, **data) if kinds or with_gold_plans else []
    if with_gold_plans:
        problems = with_plans(problems, chains, solving.guidance)
    kept = {"fold": fold, "columns": data["columns"]}
    record = {"data": name, "split": split, "split_scheme": split_scheme}
    record |= {key: value for key, value in kept.items() if value}

    def run(solving: Solving, folder: Path) -> dict[str, Any]:
        what = f"{name} {split}" if folder == out_dir else folder.name
        return evaluate_with_bar(
            what,
            problems,
            solving,
            folder,
            record=record,
            samples=samples,
            resume=resume,
            batch_size=batch_size,
            console=err,
        )

    if not kinds:
        print_run(out_dir, run(solving, out_dir), as_json)
        return
    found = investigate(kinds, solving, problems, chains, seed, out_dir, run)
    if as_json:
        print_json([asdict(effect) for effect in found])
    else:
        out.print(effects_table(found))


def _push(folder: Path, repo: str) -> None:
    from socratic.publish import push_student

    err.print(f"pushed to {push_student(folder, repo)}", soft_wrap=True)


def _chosen(option: str, values: Sequence[str], known: Sequence[str]) -> list[str]:
    """The kinds that an option names, ``all`` of them or one by one."""
    found = chosen(option, values, (*known, "all"))
    return [*known] if "all" in found else found


def _read_stdin() -> str:
    if sys.stdin is None:
        raise UserError("standard input is closed; give the problem's text or --file")
    try:
        return check_utf8(sys.stdin.read(), "standard input").removeprefix("\ufeff")
    except UnicodeDecodeError:
        raise UserError("standard input is not UTF-8; convert it") from None


def _solve_all(solving: Solving, problems: list[Problem], samples: int, batch_size: int, as_json: bool) -> None:
    """All problems in their order, each shown once it and those before it are solved; Ctrl-C shows what is done."""
    from socratic.progress import solve_with_bar

    found: dict[str, list[Trace]] = {problem.id: [] for problem in problems}
    waiting = deque(problems)

    def take(trace: Trace) -> None:
        found[trace.problem_id].append(trace)
        while waiting and len(found[waiting[0].id]) == samples:
            problem = waiting.popleft()
            _print_answers(problem, found[problem.id], as_json)

    # Where answers go to the terminal too, the bar is of the same console, so that they pass above it; JSON does not.
    console = err if not out.is_terminal else None if as_json else out
    try:
        solve_with_bar(problems, samples, solving, batch_size, take, console)
    except KeyboardInterrupt:
        for problem in waiting:
            if len(found[problem.id]) == samples:
                _print_answers(problem, found[problem.id], as_json)
        solved = sum(len(traces) == samples for traces in found.values())
        complain(f"interrupted; {solved} of {len(problems)} problems are solved and shown")
        raise SystemExit(130) from None


def _print_answers(problem: Problem, traces: list[Trace], as_json: bool) -> None:
    """The answer, or where there are several samples the majority's and how many gave it; or the traces."""
    if as_json:
        for trace in sorted(traces, key=lambda trace: trace.sample):
            print_json(trace.to_json())
        return
    from socratic.answers import extract
    from socratic.prompts import scored_text
    from socratic.stats import majority

    read = [extract(scored_text(trace), problem.answer_type, problem.choices).predicted for trace in traces]
    answer = majority(read)
    votes = f"  ({read.count(answer)} of {len(traces)})" if len(traces) > 1 and answer is not None else ""
    out.print(Text(visible(f"{problem.id}: {answer or 'no answer'}{votes}")), soft_wrap=True)
