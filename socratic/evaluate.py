"""Solver x problems -> traces, scores, metrics, in a run folder that can be killed and continued at any point.

A run folder holds ``config.yaml`` (the resolved settings), ``env.json``, ``problems.jsonl``, ``traces.jsonl`` (in order
of completion), and once complete ``scores.jsonl`` (in order of the problems) and ``metrics.json``. Of a run kept as in
``results/``, ``config.yaml`` and ``traces.jsonl.gz`` are enough: the data set's problems are read and scored again.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from socratic import answers, stats, store, versions
from socratic.config import differences
from socratic.guidance import PLAN
from socratic.prompts import scored_text
from socratic.tasks import load_problems
from socratic.types import ANSWER_ONLY, Problem, Score, ScoreReason, StopReason, Trace, UserError

Resume = Literal["never", "if-possible", "always"]
Metrics = dict[str, Any]
Solve = Callable[[list[tuple[Problem, int]]], Iterator[Trace]]

_KEPT = "traces.jsonl.gz"
_FINAL = ("BadRequestError", "UnprocessableEntityError")
"""What an endpoint says of requests that it will never take."""
_NAMED = 3  # how many problem ids a message lists


@dataclass(frozen=True)
class Run:
    """A run folder as read from disk; ``scores`` is empty and ``metrics`` None where the run is not complete."""

    path: Path
    config: dict[str, Any]
    problems: tuple[Problem, ...]
    traces: tuple[Trace, ...]
    scores: tuple[Score, ...]
    metrics: Metrics | None

    @property
    def samples(self) -> int:
        """Samples a problem."""
        return int(self.config["samples"])

    def scored(self) -> Iterator[tuple[Problem, Trace, Score]]:
        """Every sample of a complete run with its problem and score, in the order of the problems."""
        problems = {problem.id: problem for problem in self.problems}
        traces = {(trace.problem_id, trace.sample): trace for trace in self.traces}
        for score in self.scores:
            yield problems[score.problem_id], traces[score.problem_id, score.sample], score


def score_trace(problem: Problem, trace: Trace) -> Score:
    """The decision on one trace; one that ran out of tokens or positions is scored as truncated."""
    truncated = trace.stop_reason == "overlong"
    score = answers.score(scored_text(trace), problem.answer, problem.answer_type, problem.choices, truncated=truncated)
    return replace(score, problem_id=trace.problem_id, sample=trace.sample)


def evaluate(
    problems: Sequence[Problem],
    solve: Solve,
    out: Path,
    settings: Mapping[str, Any],
    samples: int = 1,
    resume: Resume = "if-possible",
    on_trace: Callable[[Trace, Score], None] | None = None,
) -> Metrics:
    """Solve every problem ``samples`` times, keep each trace as it completes, and return `measure`'s metrics.

    ``settings`` holds, as plain JSON values, all that can change a result (solver, checkpoints' hashes, decoding, seed,
    prompt version) and nothing that cannot (batch size, device). ``solve`` gets the pairs (problem, sample) that have
    no trace yet and yields their traces in any order; it is not called where none is missing. An interrupted run
    continues on the next call.

    Samples at which an endpoint `failed_for_now` are asked for again then.

    ``resume`` says what happens to a run that already stands in ``out``: ``never`` refuses it; ``if-possible``
    continues it where settings and problems are the same; ``always`` continues in spite of differences and notes them
    in ``env.json``. Raises `UserError` for a refused or foreign folder, one that another process holds, stored traces
    that do not belong to the problems, and ``problems`` that are empty, share an id or have an unreadable gold;
    `ValueError` for a solver that does not answer exactly what it was asked.
    """
    _check_request(problems, samples)
    if _is_kept(out):
        raise UserError(f"{out} is a kept run, which is whole; give another --out")
    config = _plain({**settings, "samples": samples})
    with store.lock(out):
        _open_run(out, config, problems, resume)
        with store.JsonlAppender(out / "traces.jsonl") as log:
            traces = {(trace.problem_id, trace.sample): trace for trace in _read_traces(out, problems, samples)}
            done = {key for key, trace in traces.items() if not failed_for_now(trace)}
            pending = [(p, k) for p in problems for k in range(samples) if (p.id, k) not in done]
            if len(traces) < len(problems) * samples:
                (out / "metrics.json").unlink(missing_ok=True)
            for trace, score in _solve_pending(pending, solve) if pending else ():
                (out / "metrics.json").unlink(missing_ok=True)
                log.append(trace.to_json())
                traces[trace.problem_id, trace.sample] = trace
                if on_trace:
                    on_trace(trace, score)
        return _finish(out, problems, list(traces.values()))


def failed_for_now(trace: Trace) -> bool:
    """Whether an endpoint failed at ``trace`` in a way that it need not again, so that it is to be asked once more."""
    return trace.stop_reason == "model_error" and not (trace.error or "").startswith(_FINAL)


def check_whole(run: Run) -> None:
    """Raise `UserError` for a run that is not complete, or in which an endpoint failed at samples."""
    if run.metrics is None:
        raise UserError(f"{run.path} is not complete; finish it with the command that began it")
    if failed := sum(map(failed_for_now, run.traces)):
        raise UserError(f"an endpoint failed at {failed:,} of {len(run.traces):,} in {run.path}; run that again")


def rescore(run: Path) -> Metrics:
    """Score a complete run again from its stored traces, with the present scorer and no model."""
    if _is_kept(run):
        raise UserError(f"{run} is kept without scores, and scored whenever it is read; there is nothing to do")
    with store.lock(_existing(run)):
        loaded = _load_unscored(run)
        expected = len(loaded.problems) * loaded.samples
        if len(loaded.traces) < expected:
            raise _incomplete(run, len(loaded.traces), expected)
        return _finish(run, loaded.problems, loaded.traces)


def load_run(path: Path, data_dir: Path | str | None = None) -> Run:
    """The run in folder ``path``, complete or not; raises `UserError` where it is no run or its files disagree.

    ``data_dir`` is where the problems of a kept run are read, as `load_problems` takes it.
    """
    if _is_kept(path):
        return _load_kept(path, data_dir)
    run = _load_unscored(path)
    if not (path / "metrics.json").exists():
        return run
    scores = tuple(store.read_records(path / "scores.jsonl", Score))
    pairs = [(p.id, k) for p in run.problems for k in range(run.samples)]
    if len(run.traces) < len(pairs):
        raise _incomplete(path, len(run.traces), len(pairs))
    if [(s.problem_id, s.sample) for s in scores] != pairs:
        raise UserError(f"{path / 'scores.jsonl'} does not fit the run's problems; run `socratic score {path}`")
    return replace(run, scores=scores, metrics=store.read_json(path / "metrics.json"))


def measure(traces: Sequence[Trace], scores: Sequence[Score]) -> Metrics:
    """Metrics of a complete run, which has as many samples for every problem.

    ``correct`` (lenient) and ``strict`` count samples; their ``rate`` is the mean over problems of a problem's share of
    right samples, and ``low``/``high`` the 95 % Wilson interval **over problems** (conservative with several samples).
    ``majority`` is None for one sample, else how many problems the most frequent parsed answer solves; ``at_k`` has,
    for k = 1, 2, 4, …, the share of problems that a majority of k samples solves, and that any does. ``unparsed`` and
    ``truncated`` count samples, as do ``reasons`` and ``stop_reasons``; ``mean_steps`` is per sample;
    ``tokens_per_problem`` and ``seconds_per_problem`` add up a problem's samples.
    """
    by_problem = group_scores(scores)
    problems = len(by_problem)
    votes = [majority_correct(group) for group in by_problem.values()]
    stops = _counts((t.stop_reason for t in traces), get_args(StopReason))
    return {
        "problems": problems,
        "samples": len(scores) // problems,
        "correct": _rate(sum(s.correct for s in scores), len(scores), problems),
        "strict": _rate(sum(s.strict for s in scores), len(scores), problems),
        "majority": _rate(sum(votes), problems, problems) if len(scores) > problems else None,
        "at_k": _at_k(list(by_problem.values())),
        "unparsed": sum(s.predicted is None for s in scores),
        "truncated": stops["overlong"],
        "reasons": _counts((s.reason for s in scores), get_args(ScoreReason)),
        "stop_reasons": stops,
        "mean_steps": sum(len(t.steps) for t in traces) / len(traces),
        "tokens_per_problem": sum(t.tokens for t in traces) / problems,
        "seconds_per_problem": sum(t.seconds for t in traces) / problems,
        "scorer_version": answers.SCORER_VERSION,
    }


def group_scores(scores: Iterable[Score]) -> dict[str, list[Score]]:
    """Scores by problem id, samples in ascending order."""
    groups: dict[str, list[Score]] = {}
    for score in sorted(scores, key=lambda s: s.sample):
        groups.setdefault(score.problem_id, []).append(score)
    return groups


def majority_correct(samples: Sequence[Score]) -> bool:
    """Whether the majority answer of one problem's samples is right (lenient); with one sample, whether that one is."""
    answer = stats.majority([s.predicted for s in samples])
    return any(s.correct for s in samples if s.predicted == answer)


def solved_content(problem: Problem) -> tuple[object, ...]:
    """What a solver and the scorer read of a problem, the form that it was put into included."""
    form = (ANSWER_ONLY,) if problem.metadata.get(ANSWER_ONLY) else ()
    return problem.question, problem.context, problem.choices, problem.answer, problem.answer_type, *form


def stated_content(problem: Problem) -> tuple[object, ...]:
    """The same without the form: two problems of equal stated content and id are the same problem."""
    return solved_content(problem.stated)


def differing_problems(
    a: Iterable[Problem], b: Iterable[Problem], content: Callable[[Problem], object] = stated_content
) -> list[str]:
    """Ids that stand in only one of the two, or in both with different content; in order of appearance."""
    first, second = ({p.id: content(p) for p in problems} for problems in (a, b))
    return [id for id in first | second if first.get(id) != second.get(id)]


def _check_request(problems: Sequence[Problem], samples: int) -> None:
    if not problems:
        raise UserError("no problems to evaluate; choose another split or a higher --limit")
    if samples < 1:
        raise UserError(f"samples={samples} is too few; use 1 or more")
    repeated, count = Counter(p.id for p in problems).most_common(1)[0]
    if count > 1:
        raise UserError(f"problem id {repeated!r} stands {count} times among the problems; give each its own id")
    for problem in problems:
        answers.canonical(problem.answer, problem.answer_type, problem.choices)  # an unreadable gold stops us now


def _solve_pending(pending: list[tuple[Problem, int]], solve: Solve) -> Iterator[tuple[Trace, Score]]:
    """Traces with their scores; a solver that answers anything but exactly what it was asked raises `ValueError`."""
    waiting = {(problem.id, sample): problem for problem, sample in pending}
    for trace in solve(pending):
        problem = waiting.pop((trace.problem_id, trace.sample), None)
        if problem is None:
            raise ValueError(f"the solver returned {trace.problem_id!r} sample {trace.sample}, which was not asked for")
        yield trace, score_trace(problem, trace)
    if waiting:
        raise ValueError(f"the solver returned no trace for {len(waiting)} samples, the first {next(iter(waiting))}")


def _open_run(out: Path, config: dict[str, Any], problems: Sequence[Problem], resume: Resume) -> None:
    """Begin a run in ``out``, or make sure that the one standing there may be continued."""
    records = [problem.to_json() for problem in problems]
    if not (out / "config.yaml").exists():
        if foreign := store.first_file(out):
            raise UserError(f"{out} holds {foreign} but no config.yaml, so it is no run; choose another folder")
        store.atomic_write(out / "config.yaml", _to_yaml(config))
        store.write_json(out / "env.json", {**_environment(), "seed": config.get("seed"), "resumed": []})
        store.write_jsonl(out / "problems.jsonl", records)
        return
    if resume == "never":
        raise UserError(f"{out} already holds a run; choose another folder or allow it to be continued")
    differing, changed = differences(_read_config(out), config), []
    # A kill between the first two files of a run leaves no problems to compare with, and no traces either.
    if (out / "problems.jsonl").exists() or (out / "traces.jsonl").exists():
        changed = _problem_differences(out / "problems.jsonl", problems)
    differing += changed
    if differing and resume != "always":
        mixed = "" if "chosen" in config else " (evaluate --resume always mixes them)"
        raise UserError(f"{out} was made with other settings ({'; '.join(differing)}); give another --out{mixed}")
    stored = _read_traces(out, problems, config["samples"]) if differing else ()  # refused before anything is changed
    whole = sum(not failed_for_now(trace) for trace in stored)
    if whole < len(problems) * config["samples"]:  # else all was made with the settings that stand there
        _note_resumption(out, differing)
        store.atomic_write(out / "config.yaml", _to_yaml(config))
    elif changed:  # its answers are scored against these problems now
        _note_resumption(out, changed)
    store.write_jsonl(out / "problems.jsonl", records)


def _note_resumption(out: Path, differing: list[str]) -> None:
    """Keep on record what changed since the run began: settings, versions, code."""
    now = _environment()
    env = store.read_json(out / "env.json") if (out / "env.json").exists() else {**now, "resumed": []}
    changed = {key: value for key, value in now.items() if env.get(key) != value}
    if differing or changed:
        env.setdefault("resumed", []).append({"differences": differing, **changed})
        store.write_json(out / "env.json", env)


def _problem_differences(path: Path, problems: Sequence[Problem]) -> list[str]:
    stored = list(store.read_records(path, Problem))
    differing = differing_problems(stored, problems, lambda one: (*solved_content(one), one.metadata.get(PLAN)))
    if not differing:
        return []
    return [f"problems: {len(stored)}, now {len(problems)}, of which {len(differing)} differ ({_some(differing)})"]


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:_NAMED]) + (", …" if len(ids) > _NAMED else "")


def _read_traces(out: Path, problems: Sequence[Problem], samples: int) -> list[Trace]:
    """Stored traces, less a last line that is not whole; one that belongs to no problem is refused."""
    path = out / "traces.jsonl"
    if not path.exists():
        return []
    asked = {(problem.id, sample) for problem in problems for sample in range(samples)}
    traces = _each_once(path, store.read_records(path, Trace, allow_torn_tail=True))
    for trace in traces:
        if (trace.problem_id, trace.sample) not in asked:
            raise UserError(
                f"{path} holds problem {trace.problem_id!r} sample {trace.sample}, which is not among the run's "
                f"{len(problems)} problems with {samples} samples each; choose another folder"
            )
    return traces


def _each_once(path: Path, traces: Iterable[Trace]) -> list[Trace]:
    """The traces in ``path``, of which one that stands twice is refused.

    One at which an endpoint failed may be followed by another, which then counts.
    """
    found: dict[tuple[str, int], Trace] = {}
    for trace in traces:
        key = (trace.problem_id, trace.sample)
        if key in found and not failed_for_now(found[key]):
            raise UserError(f"{path} holds problem {key[0]!r} sample {key[1]} twice; remove one of the two lines")
        found[key] = trace
    return list(found.values())


def _load_unscored(path: Path) -> Run:
    config = _run_config(path)
    problems = tuple(store.read_records(path / "problems.jsonl", Problem))
    traces = tuple(_read_traces(path, problems, config["samples"]))
    return Run(path, config, problems, traces, (), None)


def _is_kept(path: Path) -> bool:
    return (path / _KEPT).is_file() and not (path / "traces.jsonl").exists()


def _load_kept(path: Path, data_dir: Path | str | None) -> Run:
    """A kept run, which is complete."""
    config = _run_config(path)
    traces = _each_once(path / _KEPT, store.read_records(path / _KEPT, Trace))
    metrics = store.read_json(path / "metrics.json") if (path / "metrics.json").is_file() else {}
    counted = metrics.get("problems") if isinstance(metrics, dict) else None
    if len(traces) < (expected := config["samples"] * (counted if isinstance(counted, int) else 1)):
        raise UserError(f"{path / _KEPT} has {len(traces)} of {expected} traces; restore it")
    ids = {trace.problem_id for trace in traces}
    data, split, scheme = (config.get(key) for key in ("data", "split", "split_scheme"))
    if not (isinstance(data, str) and isinstance(split, str) and isinstance(scheme, str)):
        raise UserError(f"{path / 'config.yaml'} does not name data, split and split_scheme; restore it")
    found = load_problems(data, split, data_dir, split_scheme=scheme, columns=config.get("columns"))
    problems = tuple(problem for problem in found if problem.id in ids)
    pairs = {(problem.id, sample) for problem in problems for sample in range(config["samples"])}
    if len(traces) != len(pairs) or {(t.problem_id, t.sample) for t in traces} != pairs:
        raise UserError(f"{path / _KEPT} does not fit the problems of {data}; give the data that it was made with")
    traces, scores = _scored(problems, traces)
    return Run(path, config, problems, tuple(traces), tuple(scores), measure(traces, scores))


def _scored(problems: Sequence[Problem], traces: Iterable[Trace]) -> tuple[list[Trace], list[Score]]:
    """The traces in the order of their problems, and their scores."""
    order = {problem.id: i for i, problem in enumerate(problems)}
    ordered = sorted(traces, key=lambda t: (order[t.problem_id], t.sample))
    return ordered, [score_trace(problems[order[trace.problem_id]], trace) for trace in ordered]


def _finish(out: Path, problems: Sequence[Problem], traces: Sequence[Trace]) -> Metrics:
    """Score complete ``traces`` and write scores and metrics."""
    ordered, scores = _scored(problems, traces)
    metrics = measure(ordered, scores)
    (out / "metrics.json").unlink(missing_ok=True)  # until both files are new, the run is not complete
    store.write_jsonl(out / "scores.jsonl", (score.to_json() for score in scores))
    store.write_json(out / "metrics.json", metrics)
    return metrics


def _rate(count: int, of: int, problems: int) -> dict[str, Any]:
    rate = count / of
    low, high = stats.wilson(rate * problems, problems)
    return {"count": count, "rate": rate, "low": low, "high": high}


def _at_k(groups: Sequence[Sequence[Score]]) -> dict[str, dict[str, float]] | None:
    """maj@k (the mean over disjoint runs of k samples) and pass@k; None for one sample."""
    samples = len(groups[0])
    if samples == 1:
        return None
    sizes = [2**i for i in range(samples.bit_length()) if 2**i <= samples]
    rates = {}
    for k in sizes if sizes[-1] == samples else [*sizes, samples]:
        starts = range(0, samples - k + 1, k)
        votes = [majority_correct(group[start : start + k]) for group in groups for start in starts]
        passed = [stats.pass_at(k, sum(s.correct for s in group), samples) for group in groups]
        rates[str(k)] = {"majority": sum(votes) / len(votes), "pass": sum(passed) / len(passed)}
    return rates


def _counts(values: Iterable[str], names: Sequence[str]) -> dict[str, int]:
    counted = Counter(values)
    return {name: counted[name] for name in names}


def _incomplete(path: Path, traces: int, expected: int) -> UserError:
    return UserError(f"{path} has {traces} of {expected} traces; complete it with the command that began it")


def _existing(path: Path) -> Path:
    if not (path / "config.yaml").is_file():
        raise UserError(f"{path} holds no run (it has no config.yaml); give the folder that `socratic evaluate` wrote")
    return path


def _run_config(path: Path) -> dict[str, Any]:
    config = _read_config(_existing(path))
    if not isinstance(config.get("samples"), int):
        raise UserError(f"{path / 'config.yaml'} has no whole number 'samples'; it is not the configuration of a run")
    return config


def _read_config(path: Path) -> dict[str, Any]:
    file = path / "config.yaml"
    try:
        config = yaml.safe_load(file.read_bytes())
    except (yaml.YAMLError, UnicodeDecodeError):
        config = None
    if not isinstance(config, dict):
        raise UserError(f"{file} is not the configuration of a run; restore it or choose another folder")
    return config


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """``config`` as it will be read back, so that old and new compare equal."""
    return dict(yaml.safe_load(_to_yaml(config)))


def _to_yaml(config: dict[str, Any]) -> bytes:
    return bytes(yaml.safe_dump(config, sort_keys=False, allow_unicode=True, encoding="utf-8"))


def _environment() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": versions.processor(),
        "packages": versions.package_versions(),
        "commit": versions.commit(),
    }
