"""Commands that choose among the samples of runs, and make what a verifier learns from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from socratic.cli.runs import distinct, gold_chains, print_run
from socratic.cli.shared import (
    AsJson,
    BatchSize,
    DataDir,
    Device,
    Seed,
    check_out,
    complete_models,
    err,
    load_models,
    out,
    print_json,
    print_pairs,
)
from socratic.report import visible
from socratic.report.tables import interval, new_table, percent
from socratic.types import Judgement, Problem, Trace, UserError

if TYPE_CHECKING:
    from socratic.choosing import Pool, Sample
    from socratic.evaluate import Run
    from socratic.lm.base import LocalLM

Runs = Annotated[list[Path], typer.Argument(help="Run folders with several samples, over the same problems.")]


def verdicts(
    runs: Annotated[list[Path], typer.Argument(help="Run folders with several samples.")],
    out_file: Annotated[Path, typer.Option("--out", help="File of the chains, for `train verifier`.")],
    labels: Annotated[
        Literal["outcome", "gold"],
        typer.Option(help="What makes a step right: that the answer came out right, or that gold has its value."),
    ] = "outcome",
    words: Annotated[
        Literal["right", "all", "none"], typer.Option(help="Solutions whose words are learned beside the verdicts.")
    ] = "right",
    per_problem: Annotated[
        int | None, typer.Option(min=1, help="Right ones of a problem at most, and as many wrong ones.")
    ] = None,
    seed: Seed = 0,
    keep_seen: Annotated[
        bool, typer.Option("--keep-seen", help="Take solutions of problems that their student was trained on, too.")
    ] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Turn runs into chains with verdicts for a verifier: of each problem as many right as wrong solutions."""
    from socratic.evaluate import load_run
    from socratic.origin import schooling
    from socratic.store import write_jsonl
    from socratic.verdicts import VerdictSettings, make_verdicts

    check_out(out_file, *(file for run in runs for file in run.glob("*")))
    settings = VerdictSettings.parse(
        {"labels": labels, "words": words, "per_problem": per_problem, "seed": seed, "keep_seen": keep_seen}
    )
    loaded = [load_run(run, data_dir) for run in runs]
    schooled = [schooling(run, data_dir) for run in loaded]
    for unknown in sorted({reason for school in schooled for reason in school.unknown}):
        err.print(visible(f"it cannot be told which problems a student was trained on: {unknown}"), soft_wrap=True)
    gold = [gold_chains(run, data_dir) for run in loaded] if labels == "gold" else []
    made = make_verdicts(loaded, settings, schooled, gold)
    write_jsonl(out_file, (chain.to_json() for chain in made.chains))
    counts = {"chains": len(made.chains), "problems": len({chain.problem_id for chain in made.chains}), **made.counts}
    if as_json:
        print_json(counts)
    else:
        print_pairs(counts)


def select(
    runs: Runs,
    by: Annotated[
        Literal["majority", "verifier", "weighted"] | None,
        typer.Option(help="How --out chooses: the most frequent answer, the likeliest trace, or a weighted vote."),
    ] = None,
    verifier: Annotated[
        str | None, typer.Option(autocompletion=complete_models, help="A student trained as verifier: MODEL.")
    ] = None,
    over: Annotated[
        Literal["final", "minimum", "product"] | None,
        typer.Option(help="What a trace's verdicts come to; the final one if unset."),
    ] = None,
    k: Annotated[str | None, typer.Option(metavar="K,K,…", help="Numbers of samples; 1, 2, 4 … if unset.")] = None,
    tokens: Annotated[int | None, typer.Option(min=1, help="As many samples of a problem as fit these tokens.")] = None,
    match: Annotated[
        Path | None, typer.Option(help="As many samples of a problem as fit the tokens that this run took for it.")
    ] = None,
    out_dir: Annotated[Path | None, typer.Option("--out", help="Write a run folder of the chosen traces.")] = None,
    batch_size: BatchSize = 64,
    device: Device = None,
    dtype: Annotated[str | None, typer.Option(help="Of the verifier: fp32 (if unset), bf16 or auto.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Choose one of several samples of each problem: accuracy by their number, and what they cost.

    Of several runs the samples are pooled. What the verifier says is kept beside each run and not computed again.
    """
    from socratic.choosing import accuracy, accuracy_within, choose, pooled, within, write_chosen
    from socratic.evaluate import load_run

    by = by or ("weighted" if verifier else "majority")
    if by != "majority" and verifier is None:
        raise UserError(f"--by {by} goes by what a verifier says; name one with --verifier")
    for option, value in {"over": over, "device": device, "dtype": dtype}.items():
        if value and verifier is None:
            raise UserError(f"--{option} {value} is of a verifier, and none is named; leave it out")
    if sum(given is not None for given in (k, tokens, match)) > 1:
        raise UserError("--k, --tokens and --match each say how many samples to take; give one of them")
    over = over or "final"
    loaded = [load_run(run, data_dir) for run in distinct(runs)]
    judgements, record = _judgements(loaded, verifier, device, dtype or "fp32", batch_size) if verifier else ([], None)
    pool = pooled(loaded, judgements, over)
    ways: list[Any] = ["majority", "verifier", "weighted"] if verifier else ["majority"]
    how: dict[str, Any] = {"by": by, **({"over": over, "verifier": record} if record else {})}
    if tokens is None and match is None:
        sizes = _sizes(k, min(map(len, pool.values())))
        rows = accuracy(pool, sizes, ways)
        among: dict[str, Sequence[Sample]] = {id: own[: max(sizes)] for id, own in pool.items()}
        how["k"] = max(sizes)
    else:
        most = _budget(pool, tokens, load_run(match, data_dir) if match else None, loaded[0])
        rows = [accuracy_within(pool, most, ways)]
        among = {id: within(own, most[id]) for id, own in pool.items()}
        how["tokens"] = tokens or {"as": match.resolve().name if match else None}
    if as_json:
        print_json({"problems": len(pool), "samples": min(map(len, pool.values())), **how, "rows": rows})
    else:
        _print_rows(rows, ways, len(pool))
    if out_dir:
        chosen = {id: (choose(own, by), own) for id, own in among.items()}
        metrics = write_chosen(loaded, chosen, how, out_dir)
        if not as_json:
            print_run(out_dir, metrics, as_json)


def _judgements(
    runs: Sequence[Run], verifier: str, device: str | None, dtype: str, batch_size: int
) -> tuple[list[Mapping[tuple[str, int], Judgement]], dict[str, Any]]:
    """Of each run what the verifier says of its traces, and the verifier's record."""
    from rich.progress import track

    from socratic.choosing import judged
    from socratic.verifier import checked_verifier, judge, verifier_name

    lm: LocalLM = checked_verifier(load_models([verifier], device, dtype)[verifier])

    def ask(solutions: list[tuple[Problem, Trace]]) -> Iterator[Judgement]:
        found = judge(solutions, lm, batch_size)
        yield from track(found, lm.name, len(solutions), console=err)

    return [judged(run, verifier_name(lm), ask) for run in runs], lm.record()


def _sizes(given: str | None, samples: int) -> list[int]:
    """The numbers that --k names, else the powers of 2 up to ``samples``, and that."""
    if given is None:
        return sorted({*(2**i for i in range(samples.bit_length()) if 2**i <= samples), samples})
    try:
        return sorted({int(part) for part in given.split(",")})
    except ValueError:
        raise UserError(f"--k {given!r} is not a list of whole numbers; give such as 1,4,16") from None


def _budget(pool: Pool, tokens: int | None, match: Run | None, first: Run) -> dict[str, float]:
    """Tokens for each problem: ``tokens``, or what the run ``match`` decoded for it."""
    from socratic.choosing import spent
    from socratic.evaluate import differing_problems

    if match is None:
        return dict.fromkeys(pool, float(tokens or 0))
    if match.metrics is None or differing_problems(first.problems, match.problems):
        raise UserError(
            f"{match.path} is no complete run over the same problems as {first.path}; choose another --match"
        )
    return spent(match)


def _print_rows(rows: Sequence[dict[str, Any]], ways: Sequence[str], problems: int) -> None:
    title = f"Right in % [95 % Wilson] of {problems} problems with k samples; tokens per problem"
    made = new_table(title, [*ways, "any", "tokens"], "k")
    for row in rows:
        size = f"{row['k']}" if isinstance(row["k"], int) else f"{row['k']:.2f}"
        accuracies = (interval(row[way]) for way in ways)
        made.add_row(size, *accuracies, percent(row["any"]["rate"]), f"{row['tokens']:.0f}")
    out.print(made)
    if read := rows[-1]["read"]:
        out.print(f"for the last row the verifier read {read:.0f} tokens per problem")
