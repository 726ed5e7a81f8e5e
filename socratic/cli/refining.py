"""Commands that add to chains what training can use: how good they are, and what else a teacher might have said."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from socratic.cli.shared import (
    AsJson,
    BatchSize,
    DataDir,
    Device,
    Dtype,
    Samples,
    Seed,
    Settings,
    Split,
    Temperature,
    check_out,
    check_samples,
    chosen,
    columns_table,
    complete_models,
    err,
    load_models,
    merged_settings,
    out,
    print_json,
    read_chains,
)
from socratic.config import parse_overrides
from socratic.report import visible
from socratic.types import UserError

if TYPE_CHECKING:
    from socratic.rewards import Reward


def reward(
    chains: Annotated[str, typer.Argument(help="A file of chains, or gold:NAME for a data set's own.")],
    out_file: Annotated[Path, typer.Option("--out", help="File of the chains with their rewards.")],
    qa: Annotated[str, typer.Option(autocompletion=complete_models, help="The student that answers: MODEL.")],
    by: Annotated[
        str, typer.Option(help="Rewards whose product counts: fluency, granularity, answerability.")
    ] = "answerability",
    least: Annotated[
        float | None, typer.Option(min=0, max=1, help="Keep the chains with so much; weigh all if unset.")
    ] = None,
    gold: Annotated[str | None, typer.Option(help="The data set whose own questions these are set against.")] = None,
    samples: Samples = 4,
    temperature: Temperature = 0.7,
    seed: Seed = 0,
    batch_size: BatchSize = 64,
    device: Device = None,
    dtype: Dtype = "auto",
    setting: Settings = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Reward sub-questions, to train QG on the good ones: QA answers them, and gold is what they are set against.

    QA's answers are a run in the folder OUT.answers; the same command continues there.
    """
    from socratic.evaluate import load_run
    from socratic.progress import evaluate_with_bar
    from socratic.rewards import KINDS, answering, questions_given, rewarded, rewards
    from socratic.store import write_jsonl

    check_samples(samples, temperature)
    check_out(out_file, chains)
    kinds = chosen("by", [name.strip() for name in by.split(",")], KINDS)
    given = read_chains(chains, data_dir, "train", "dev")
    own = read_chains(f"gold:{gold}", data_dir, "train", "dev") if gold else given if chains.startswith("gold:") else []
    if not own and (missing := [kind for kind in kinds if kind != "answerability"]):
        raise UserError(f"there are no gold questions for --by {missing[0]}; name their data set with --gold")
    problems, intervention = questions_given(given)
    settings = merged_settings(setting, temperature=temperature, seed=seed)
    solving = answering(load_models([qa], device, dtype)[qa], settings).with_intervention(intervention)
    folder = out_file.with_name(f"{out_file.name}.answers")
    evaluate_with_bar(
        "answers",
        problems,
        solving,
        folder,
        record={"data": chains, "split": "train", "split_scheme": "authors"},
        samples=samples,
        resume="if-possible",
        batch_size=batch_size,
        console=err,
    )
    found = rewards(given, load_run(folder), {chain.problem_id: chain for chain in own})
    made = rewarded(given, found, kinds, least)
    write_jsonl(out_file, (chain.to_json() for chain in made))
    _report(found, len(given), len(made), as_json)


def soften(
    chains: Annotated[str, typer.Argument(help="A file of chains, or gold:NAME for a data set's own.")],
    out_file: Annotated[Path, typer.Option("--out", help="File of the chains with a teacher's probabilities.")],
    lm: Annotated[str, typer.Option(autocompletion=complete_models, help="The teacher that reads them: MODEL.")],
    style: Annotated[
        Literal["socratic", "cot"], typer.Option(help="How the chains are read: with sub-questions, or without.")
    ] = "socratic",
    top: Annotated[int, typer.Option(min=1, max=100, help="Likeliest tokens kept at each place.")] = 5,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many, of train and of dev.")] = None,
    device: Device = None,
    dtype: Dtype = "auto",
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Have a model that runs here read chains, and keep its token probabilities, for students with loss=kl.

    The same command goes on where it was interrupted.
    """
    from socratic.lm.load import default_device, hush_transformers, torch_dtype
    from socratic.prompts import load_prompt
    from socratic.store import write_jsonl
    from socratic.targets import TOKENS
    from socratic.tasks.sets import of_split
    from socratic.teacher.soften import load_teacher, soften_kept

    check_out(out_file, chains)
    every = read_chains(chains, data_dir, "train", "dev")
    given = [chain for split in ("train", "dev") for chain in of_split(every, split)[:limit]]
    hush_transformers()
    device = device or default_device()
    with err.status("loading the model"):
        teacher = load_teacher(lm, torch_dtype(dtype, device))
    teacher.model.to(device)
    with err.status("reading") as status:

        def on_chain(done: int) -> None:
            status.update(f"reading: {done:,} of {len(given):,} chains")

        made, part = soften_kept(out_file, given, teacher, load_prompt(style, given[0].dataset), top, on_chain)
    write_jsonl(out_file, (chain.to_json() for chain in made))
    shutil.rmtree(part)
    read = sum(TOKENS in chain.metadata for chain in made)
    if as_json:
        print_json({"chains": len(made), "read": read})
    else:
        others = "" if read == len(made) else f"; the others are too long for {visible(lm)}"
        out.print(f"{len(made):,} chains given, {read:,} read{others}")


def mix(
    chains: Annotated[str, typer.Argument(help="A file of chains, or gold:NAME for a data set's own.")],
    out_file: Annotated[Path, typer.Option("--out", help="File of the chains in their forms.")],
    share: Annotated[list[str], typer.Option(help="form=weight: zero-shot-cot, in-context-cot, …-answer. Repeatable.")],
    shots: Annotated[int | None, typer.Option(min=1, help="Solved problems in context; 4 if unset.")] = None,
    instruction: Annotated[str | None, typer.Option(help="A line before each problem.")] = None,
    solved: Annotated[str | None, typer.Option(help="The chains to draw them from, if not CHAINS.")] = None,
    split: Split = "train",
    seed: Seed = 0,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Give each chain one of four forms, drawn by weight: solved problems in context or none, reasoned or answer alone.

    For training with role cot, and, of --split test, for evaluating.
    """
    from socratic.formats import FORMS, mixed
    from socratic.store import write_jsonl
    from socratic.tasks.sets import of_split

    check_out(out_file, chains, *filter(None, [solved]))
    shares = parse_overrides(share)
    for form, weight in shares.items():
        if form not in FORMS or type(weight) not in (int, float):
            raise UserError(f"--share {form}={weight!r} is not of the form {FORMS[0]}=1; there are {', '.join(FORMS)}")
    given = read_chains(chains, data_dir, *(["train", "dev"] if split == "train" else [split]))
    if split == "dev":  # of a file all was read
        given = of_split(given, split)
    in_context = any(weight and form.startswith("in-context") for form, weight in shares.items())
    if not in_context and (solved or shots):
        raise UserError("no form has problems in context; leave --solved and --shots out, or give in-context-… a share")
    if in_context and solved is None and split != "train":
        raise UserError(f"solved problems out of {split} would give answers away; name other chains with --solved")
    drawn_from = of_split(read_chains(solved or chains, data_dir, "train"), "train") if in_context else []
    made = mixed(given, {form: shares.get(form, 0) for form in FORMS}, drawn_from, shots or 4, seed, instruction)
    write_jsonl(out_file, (chain.to_json() for chain in made))
    counts = Counter(str(chain.metadata["form"]) for chain in made)
    if as_json:
        print_json(counts)
        return
    table = columns_table("form", "chains")
    for form, count in counts.most_common():
        table.add_row(form, f"{count:,}")
    out.print(table)


def _report(found: Sequence[Reward], given: int, kept: int, as_json: bool) -> None:
    from socratic.rewards import KINDS

    known = {kind: [v for reward in found if (v := getattr(reward, kind)) is not None] for kind in KINDS}
    means = {kind: fmean(values) if values else None for kind, values in known.items()}
    if as_json:
        print_json({"chains": given, "written": kept, **means})
        return
    table = columns_table("reward", "mean", "chains")
    for kind, values in known.items():
        mean = means[kind]
        table.add_row(kind, "-" if mean is None else f"{mean:.3f}", f"{len(values):,}")
    out.print(table)
    out.print(f"{given:,} chains given, {kept:,} written")
