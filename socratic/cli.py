"""The command line: every command parses, calls one function, and prints a table or JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from socratic.config import parse_overrides
from socratic.report import visible
from socratic.types import AnswerType, Chain, Problem, QGSees, Role, Solver, Trace, UserError

if TYPE_CHECKING:
    from socratic.loops import Solving

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Socratic chain of thought.",
)
data_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Data sets: what there is, and their rows.")
app.add_typer(data_app, name="data")

out = Console(highlight=False, markup=False)
err = Console(stderr=True, highlight=False, markup=False)

DataDir = Annotated[str | None, typer.Option(help="Folder with the authors' files; else $SOCRATIC_DATA, else the Hub.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON in place of a table.")]
Columns = Annotated[list[str] | None, typer.Option("--column", help="field=name of a column in your own file.")]
Scheme = Annotated[str, typer.Option(help="authors, or fine-tune-cot.")]
Limit = Annotated[int | None, typer.Option(help="Only the first so many.")]
Calculator = Annotated[Literal["on", "off"] | None, typer.Option(help="Compute <<expr= for the students.")]
SolverOption = Annotated[Solver, typer.Option(help="The loop.")]
QG = Annotated[str | None, typer.Option(help="The student that asks: MODEL.")]
QA = Annotated[str | None, typer.Option(help="The student that answers: MODEL.")]
Single = Annotated[str | None, typer.Option("--lm", help="The one student of the other solvers: MODEL.")]
Samples = Annotated[int, typer.Option(min=1, help="Traces of each problem; several are put to a majority vote.")]
Temperature = Annotated[float, typer.Option(help="0 is greedy.")]
Seed = Annotated[int, typer.Option(help="Of sampling.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Problems under way at once.")]
Dtype = Annotated[str, typer.Option(help="fp32, bf16, or auto: bf16 where the device computes in it.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 …; the first GPU if unset.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="A further setting, key=value.")]


def main() -> None:
    """Entry point: 0 done, 2 the user's mistake, 130 interrupted."""
    try:
        code = app(standalone_mode=False, prog_name="socratic")  # 130 where Ctrl-C was pressed
    except UserError as error:
        _complain(str(error))
        code = 2
    except typer.TyperException as error:
        message = error.format_message()
        if message.startswith("Usage:"):  # a group without a command
            err.print(message, soft_wrap=True)
        else:
            _complain(message)
        code = 2
    except KeyboardInterrupt:
        code = 130
    except SystemExit as leaving:  # how typer and rich take a reader that went away, as in ``| head``
        if not isinstance(leaving.__context__, BrokenPipeError):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still buffered
        code = 0
    if code == 130:
        _complain("interrupted; the same command continues a training or an evaluation where it stopped")
    sys.exit(code)


def _complain(sentence: str) -> None:
    err.print(f"socratic: {visible(' '.join(sentence.split()))}", soft_wrap=True)


@data_app.command("list")
def data_list(as_json: AsJson = False) -> None:
    """List the data sets."""
    from socratic.tasks import TASKS

    if as_json:
        _print_json([task.describe() for task in TASKS.values()])
        return
    table = _table("name", "splits", "answer", "gold chains", "what")
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
    name: str,
    split: str = "train",
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
    columns = _pairs(column)
    most = limit if as_json or limit is not None else 5
    records = load(name, split, data_dir, most, split_scheme=split_scheme, columns=columns)
    for record in records:
        if as_json:
            _print_json(record.to_json())
        else:
            out.print(Text(_describe(record)), soft_wrap=True)


@app.command()
def train(
    role: Annotated[Role, typer.Argument(help="What the student learns.")],
    chains: Annotated[str, typer.Option(help="A file of chains, or gold:NAME for a data set's own.")],
    out_dir: Annotated[Path, typer.Option("--out", help="Folder of the trained student.")],
    student: Annotated[str | None, typer.Option(help="MODEL: Hub id, folder, .gguf file, or scratch:NAME.")] = None,
    start_from: Annotated[
        Path | None, typer.Option("--from", help="Start from this trained student in place of MODEL.")
    ] = None,
    qg_sees: Annotated[
        QGSees, typer.Option(help="What QG reads: answers (iterative) or questions (plan).")
    ] = "answers",
    seed: Annotated[int, typer.Option(help="Of order, dropout and new weights.")] = 0,
    setting: Settings = None,
    data_dir: DataDir = None,
    split_scheme: Scheme = "authors",
    column: Columns = None,
    as_json: AsJson = False,
) -> None:
    """Train one student; the same command continues a run that was interrupted."""
    from socratic.tasks import load_chains
    from socratic.train import TrainingRun, TrainSettings, starting_point
    from socratic.train import train as fit

    settings = TrainSettings.parse(_settings(setting, seed=seed))
    student = starting_point(student, start_from)
    name = chains.removeprefix("gold:")
    columns = _pairs(column)
    kept, dev = (load_chains(name, s, data_dir, split_scheme=split_scheme, columns=columns) for s in ("train", "dev"))
    run = TrainingRun(
        role=role,
        student=student,
        chains=kept,
        dev_chains=dev,
        source=chains,
        qg_sees=qg_sees,
    )
    card = fit(run, settings, out_dir, on_note=lambda note: err.print(note, soft_wrap=True))
    if as_json:
        _print_json({"out": str(out_dir), **card.metrics})
    else:
        _print_pairs(card.metrics)


@app.command()
def merge(
    adapter: Annotated[Path, typer.Argument(help="A student trained with lora_rank.")],
    out_dir: Annotated[Path, typer.Option("--out", help="Folder of the full model.")],
) -> None:
    """Write a LoRA student as a full model folder."""
    from socratic.lm.load import merge as merge_adapter

    merge_adapter(adapter, out_dir)


@app.command()
def solve(
    text: Annotated[str | None, typer.Argument(help="The problem; - reads it from standard input.")] = None,
    answer_type: Annotated[AnswerType, typer.Option(help="Of the problem given as text.")] = "number",
    file: Annotated[str | None, typer.Option(help="Problems, as .jsonl, .json or .csv.")] = None,
    solver: SolverOption = "socratic",
    qg: QG = None,
    qa: QA = None,
    lm: Single = None,
    calculator: Calculator = None,
    samples: Samples = 1,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    batch_size: BatchSize = 64,
    device: Device = None,
    dtype: Dtype = "auto",
    setting: Settings = None,
    column: Columns = None,
    as_json: AsJson = False,
) -> None:
    """Solve one problem, streamed, or a file of them; --json prints traces."""
    if (text is None) == (file is None):
        raise UserError("give either the problem's text or --file, and not both")
    if column and file is None:
        raise UserError(f"--column {column[0]} names a column of --file, and there is none; leave it out")
    if file is not None:
        from socratic.tasks import read_questions

        problems = read_questions(file, _pairs(column))
    else:
        words = _read_stdin() if text == "-" else str(text)
        if not words.strip():
            raise UserError("the problem is empty; give its text")
        problems = [Problem("problem", "own", "test", words.strip(), "", answer_type)]
    solving = _solving(solver, qg, qa, lm, calculator, temperature, seed, device, dtype, setting)
    if not as_json and file is None and samples == 1:
        _stream(solving, problems[0])
        return
    named = {problem.id: problem for problem in problems}
    found: dict[str, list[Trace]] = {}
    for trace in solving.run(((p, k) for p in problems for k in range(samples)), batch_size):
        if as_json:
            _print_json(trace.to_json())
        else:
            found.setdefault(trace.problem_id, []).append(trace)
            if len(found[trace.problem_id]) == samples:
                _print_answers(named[trace.problem_id], found[trace.problem_id])


@app.command()
def evaluate(
    name: Annotated[str, typer.Argument(help="A data set, or your own .jsonl, .json or .csv file.")],
    out_dir: Annotated[Path, typer.Option("--out", help="The run folder; the same command continues there.")],
    split: str = "test",
    limit: Limit = None,
    solver: SolverOption = "socratic",
    qg: QG = None,
    qa: QA = None,
    lm: Single = None,
    calculator: Calculator = None,
    samples: Samples = 1,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    batch_size: BatchSize = 64,
    device: Device = None,
    dtype: Dtype = "auto",
    setting: Settings = None,
    resume: Annotated[
        Literal["if-possible", "always", "never"], typer.Option(help="What to do with a run in --out.")
    ] = "if-possible",
    data_dir: DataDir = None,
    split_scheme: Scheme = "authors",
    column: Columns = None,
    as_json: AsJson = False,
) -> None:
    """Solve a data set's problems, score them, and keep traces, scores and metrics in a run folder."""
    from rich.progress import Progress, TextColumn, TimeRemainingColumn

    from socratic.evaluate import evaluate as run_evaluation
    from socratic.tasks import load_problems

    problems = load_problems(name, split, data_dir, limit, split_scheme=split_scheme, columns=_pairs(column))
    solving = _solving(solver, qg, qa, lm, calculator, temperature, seed, device, dtype, setting)
    right = done = 0
    columns = (*Progress.get_default_columns()[:-1], TimeRemainingColumn(), TextColumn("{task.fields[right]}"))
    bar = Progress(*columns, console=err)
    task = bar.add_task(f"{name} {split}", total=len(problems) * samples, right="")

    def begin(jobs: Sequence[tuple[Problem, int]]) -> Iterator[Trace]:
        with bar:
            bar.update(task, completed=len(problems) * samples - len(jobs))
            yield from solving.run(jobs, batch_size)

    def on_trace(trace: Trace, score: Any) -> None:
        nonlocal right, done
        right, done = right + score.strict, done + 1
        bar.update(task, advance=1, right=f"{right}/{done} right")

    record = {"data": name, "split": split, "split_scheme": split_scheme, **solving.record()}
    metrics = run_evaluation(problems, begin, out_dir, record, samples, resume, on_trace)
    _print_run(out_dir, metrics, as_json)


@app.command()
def score(run: Annotated[Path, typer.Argument(help="A run folder.")], as_json: AsJson = False) -> None:
    """Score a run again from its stored traces; runs no model."""
    from socratic.evaluate import rescore

    _print_run(run, rescore(run), as_json)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; the first is the baseline.")],
    common: Annotated[bool, typer.Option("--common", help="Compare over the problems that all runs share.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare runs: accuracy with Wilson intervals, differences with paired bootstrap, exact McNemar."""
    from socratic.evaluate import load_run
    from socratic.report.compare import compare as compare_runs

    comparison = compare_runs([load_run(run) for run in runs], common)
    if as_json:
        _print_json(comparison.to_json())
    else:
        out.print(comparison.table())


@app.command()
def show(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    problem_id: Annotated[str, typer.Argument(help="Such as gsm8k/test/00007.")],
    as_json: AsJson = False,
) -> None:
    """Show one problem of a run: each sample's steps, answer, stop reason and score."""
    from socratic.evaluate import load_run
    from socratic.report.compare import show_problem

    loaded = load_run(run)
    text = show_problem(loaded, problem_id)
    if as_json:
        for trace in loaded.traces:
            if trace.problem_id == problem_id:
                _print_json(trace.to_json())
    else:
        out.print(Text(text), soft_wrap=True)


@app.command()
def doctor(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Say what is installed, which device and dtype are used, and which data and keys are found."""
    from socratic.doctor import examine

    findings = examine(data_dir)
    if as_json:
        _print_json(findings)
    else:
        _print_pairs(findings)


def _solving(
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
) -> Solving:
    from socratic.lm.load import hush_transformers, load_lm
    from socratic.loops import SolveSettings, Solving

    on = None if calculator is None else calculator == "on"
    given = _settings(setting, solver=solver, calculator=on, temperature=temperature, seed=seed)
    settings = SolveSettings.parse(given)
    settings.check_models(qg, qa, lm)
    with err.status("loading the students"):
        hush_transformers()
        models = {path: load_lm(path, device=device, dtype=dtype) for path in dict.fromkeys((qg, qa, lm)) if path}
    for note in filter(None, (model.note for model in models.values())):
        err.print(note, soft_wrap=True)
    return Solving(settings, *(models[path] if path else None for path in (qg, qa, lm)))


def _settings(setting: list[str] | None, **options: Any) -> dict[str, Any]:
    """The command's own options and its ``--set`` pairs; raises `UserError` where one is given as both."""
    overrides = parse_overrides(setting or [])
    if doubled := sorted(options.keys() & overrides.keys()):
        name = doubled[0]
        raise UserError(f"--set {name}={overrides[name]!r}: {name} has an option of its own; give --{name}")
    return options | overrides


def _read_stdin() -> str:
    try:
        words = sys.stdin.read()
        words.encode()  # what was no UTF-8 may have been let through as lone surrogates
    except UnicodeError:
        raise UserError("standard input is not UTF-8; convert the problem's text") from None
    return words


def _stream(solving: Solving, problem: Problem) -> None:
    """One problem in the terminal, as it is written."""
    labels = {"question": "Q: ", "answer": "A: ", "final": "#### "}
    begun = False
    for event in solving.stream(problem):
        if event.trace is not None:
            out.print(f"({event.trace.stop_reason}, {event.trace.tokens} tokens, {event.trace.seconds:.1f} s)")
            break
        if not begun and not event.text.strip() and event.fault is None:
            continue  # white space before a text, or QG's stop
        text = event.text if begun else labels[event.kind] + event.text.lstrip()
        begun = True
        out.print(Text(visible(text)), end="", soft_wrap=True)
        if event.done:
            out.print(f"  [dropped: {event.fault}]" if event.fault else "")
            begun = False


def _print_answers(problem: Problem, traces: list[Trace]) -> None:
    """The answer, or where there are several samples the majority's and how many gave it."""
    from socratic.answers import extract
    from socratic.stats import majority

    read = [extract(trace.raw, problem.answer_type, problem.choices).predicted for trace in traces]
    answer = majority(read)
    votes = f"  ({read.count(answer)} of {len(traces)})" if len(traces) > 1 and answer is not None else ""
    out.print(Text(visible(f"{problem.id}: {answer or 'no answer'}{votes}")), soft_wrap=True)


def _print_run(run: Path, metrics: dict[str, Any], as_json: bool) -> None:
    from socratic.evaluate import load_run
    from socratic.report.compare import compare as compare_runs

    if as_json:
        _print_json(metrics)
    else:
        out.print(compare_runs([load_run(run)]).table())


def _describe(record: Problem | Chain) -> str:
    if isinstance(record, Problem):
        return visible(f"{record.id}  [{record.answer_type}]\n  {record.question}\n  = {record.answer}\n")
    steps = "".join(f"\n  Q: {step.question}\n  A: {step.answer}" for step in record.steps)
    return visible(f"{record.problem_id}\n  {record.question}{steps}\n  = {record.answer}\n")


def _pairs(pairs: list[str] | None) -> dict[str, str] | None:
    if not pairs:
        return None
    names = {}
    for pair in pairs:
        field, separator, name = pair.partition("=")
        if not separator or not name:
            raise UserError(f"column {pair!r} is not of the form field=name")
        names[field] = name
    return names


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _print_pairs(values: dict[str, Any]) -> None:
    table = _table("", "")
    for key, value in values.items():
        table.add_row(key, Text(visible(str(value))))
    table.show_header = False
    out.print(table)


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")


if __name__ == "__main__":
    main()
