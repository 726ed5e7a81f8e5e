"""The sets of chains that a recipe makes on its way: what makes them, by the name that ``make`` gives."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from rich.console import Console

from socratic.augment.make import Kind, augment, kept_out
from socratic.config import Settings
from socratic.corrupt import Kind as SpoiledKind
from socratic.corrupt import corrupt
from socratic.curate import By, curate
from socratic.evaluate import Run, load_run
from socratic.formats import Form, mixed, one_line
from socratic.harvest import harvest, histories
from socratic.lm.load import ENDPOINT, default_device, endpoint, load_lm, torch_dtype
from socratic.origin import schooling
from socratic.progress import annotate_with_bar, evaluate_with_bar
from socratic.prompts import TeacherPrompt, load_prompt, prompted_data
from socratic.rewards import Kind as RewardKind
from socratic.rewards import answering, questions_given, rewarded, rewards
from socratic.store import hash_json, read_records, write_json
from socratic.tasks import TASKS, Reading, load_chains, load_problems
from socratic.tasks.base import take_fold
from socratic.tasks.sets import load_set
from socratic.teacher.annotate import AskSettings
from socratic.teacher.jobs import jobs_of
from socratic.teacher.soften import load_teacher, soften_kept
from socratic.teacher.teach import Job, ReplySettings, TeachSettings
from socratic.types import Chain, UserError
from socratic.verdicts import VerdictSettings, make_verdicts


@dataclass(frozen=True)
class Making:
    """One set to be made.

    ``sources`` are as `load_set` takes them, or folders of runs, or the data whose problems count; of chains and
    problems only the first ``limit``. ``students`` are the MODELs that a maker asks, by the fold that each is asked
    about, or None where it is all; ``folder`` is the set's own, and data are read as ``reading`` says.
    Students that solve problems have ``batch_size`` under way.
    """

    sources: Sequence[str]
    limit: int | None
    students: Mapping[str | None, str]
    folder: Path
    reading: Reading
    batch_size: int
    console: Console

    def chains(self, *splits: str) -> list[Chain]:
        """The chains of all sources, split by split."""
        parts = [[c for source in self.sources for c in load_set(source, split, self.reading)] for split in splits]
        return [chain for part in parts for chain in part[: self.limit]]

    def asked(self, chains: Sequence[Chain]) -> Iterator[tuple[str | None, str, list[Chain]]]:
        """Each fold, the MODEL asked about it, and which of ``chains`` are in it, where any are."""
        for fold, model in self.students.items():
            items = [(chain.problem(), chain) for chain in chains]
            if own := [chain for _, chain in (take_fold(items, fold) if fold else items) if chain]:
                yield fold, model, own

    def runs(self) -> list[Run]:
        """The runs that the sources are."""
        return [load_run(Path(source)) for source in self.sources]


@dataclass(frozen=True)
class Maker:
    """``make`` gives the chains of train and dev, ``of`` chains, runs, or the data's problems; some ask a student.

    ``reads`` is what such a one reads besides the sources, by settings, data, limit and how data are read: it
    decides what is made as well.
    """

    settings: type[Settings]
    make: Callable[[Making, Any], list[Chain]]
    of: Literal["chains", "runs", "problems"] = "chains"
    asks: bool = False
    reads: Callable[[Any, str, int | None, Reading], Any] = lambda settings, data, limit, reading: None


class AugmentSettings(Settings):
    """How chains are made from chains."""

    kinds: list[Kind] = Field(min_length=1, description="prefix, vary: new problems; marks, bare: the same rewritten")
    copies: int = Field(1, ge=1, description="variations of each problem")
    seed: int = Field(0, description="of the numbers drawn")

    @field_validator("copies")
    @classmethod
    def _are_varied(cls, copies: int, info: ValidationInfo) -> int:
        if copies > 1 and "vary" not in info.data.get("kinds", ["vary"]):
            raise ValueError("only kind vary makes several; leave it out")
        return copies


def _augment(making: Making, settings: AugmentSettings) -> list[Chain]:
    given = making.chains("train", "dev")
    others = kept_out(given, [], making.reading)
    return augment(given, settings.kinds, others, settings.copies, settings.seed).chains


class CorruptSettings(Settings):
    """How chains are spoiled."""

    share: float = Field(ge=0, le=1, description="of the training chains, how many are spoiled")
    kinds: list[SpoiledKind] = Field(
        ["wrong_step", "reordered", "missing", "verbose"], min_length=1, description="in which ways"
    )
    keep_answer: bool = Field(False, description="a wrong step leaves the final answer right")
    seed: int = Field(0, description="of which chains, and how")

    @field_validator("keep_answer")
    @classmethod
    def _is_wrong_elsewhere(cls, keep_answer: bool, info: ValidationInfo) -> bool:
        if keep_answer and "wrong_step" not in info.data.get("kinds", ["wrong_step"]):
            raise ValueError("only kind wrong_step changes the answer; leave it out")
        return keep_answer


def _corrupt(making: Making, settings: CorruptSettings) -> list[Chain]:
    given = making.chains("train", "dev")
    return corrupt(given, settings.share, settings.kinds, settings.seed, settings.keep_answer).chains


class CurateSettings(Settings):
    """Which chains are good enough to train on."""

    by: By = Field("all", description="what is looked at: all, arithmetic and questions too, or merely the answer")


def _curate(making: Making, settings: CurateSettings) -> list[Chain]:
    done = curate(making.chains("train", "dev"), settings.by)
    write_json(making.folder / "curate.json", done.yields())
    yields = [f"{count:,} {reason.replace('_', ' ')}" for reason, count in done.yields().items()]
    making.console.print(f"{making.folder.name}: {', '.join(yields)}", soft_wrap=True)
    return done.kept


class DrawSettings(Settings):
    """Which chains are drawn of the first set, as many as the smallest of all has."""

    seed: int = Field(0, description="of the draw")


def _draw(making: Making, settings: DrawSettings) -> list[Chain]:
    sets = [replace(making, sources=[source]) for source in making.sources]
    parts = [made.chains("train") for made in sets]
    places = random.Random(settings.seed).sample(range(len(parts[0])), min(map(len, parts)))
    return [*(parts[0][place] for place in sorted(places)), *sets[0].chains("dev")]


class HarvestSettings(Settings):
    """Which of the students' own chains are kept."""

    most: int | None = Field(None, ge=1, description="chains of a problem at most, the most different")
    share: float | None = Field(
        None, ge=0, le=1, description="for QG: question sequences that led to right answers in so many of the samples"
    )
    history: Literal["own", "predicted"] = Field(
        "own", description="predicted: gold steps behind a student's own first ones, which are not learned"
    )
    trained_on: Literal["refuse", "allow"] = Field(
        "refuse", description="traces on problems that a student was trained on"
    )
    by: By = Field("all", description="what is looked at: all, arithmetic too, or merely the answer")

    @field_validator("history")
    @classmethod
    def _is_of_steps(cls, history: str, info: ValidationInfo) -> str:
        if history == "predicted" and info.data.get("share") is not None:
            raise ValueError("share is of whole question sequences; leave one of the two out")
        return history

    @field_validator("by")
    @classmethod
    def _is_of_whole_traces(cls, by: By, info: ValidationInfo) -> By:
        if by == "answer" and info.data.get("history") == "predicted":
            raise ValueError("history=predicted keeps steps that come to gold's values; leave by out")
        return by


def _harvest(making: Making, settings: HarvestSettings) -> list[Chain]:
    runs = making.runs()
    gold: list[Chain] = []
    for data, split in dict.fromkeys((run.config["data"], run.config["split"]) for run in runs):
        with suppress(UserError):  # a data set need not have any
            gold += load_chains(data, split, **making.reading)
    if settings.history == "predicted":
        done = histories(runs, gold, most=settings.most, trained_on=settings.trained_on)
    else:
        done = harvest(
            runs, gold, most=settings.most, trained_on=settings.trained_on, share=settings.share, by=settings.by
        )
    write_json(making.folder / "harvest.json", {"counts": done.counts, "pass_at_1": done.pass_at_1})
    for name, rate in done.pass_at_1.items():
        interval = f"{rate['rate']:.1%} [{rate['low']:.1%}, {rate['high']:.1%}]"
        making.console.print(f"pass@1, {name.replace('_', ' ')}: {interval}", soft_wrap=True)
    return done.chains


class RewardSettings(Settings):
    """Which questions are good, for QG to learn from."""

    by: list[RewardKind] = Field(["answerability"], min_length=1, description="the rewards whose product counts")
    least: float | None = Field(None, ge=0, le=1, description="keep the chains with so much; weigh all if unset")
    samples: int = Field(4, ge=1, description="how often the student answers each chain's questions")
    temperature: float = Field(0.7, ge=0, description="at which it does")
    seed: int = Field(0, description="of its sampling")

    @field_validator("temperature")
    @classmethod
    def _are_drawn(cls, temperature: float, info: ValidationInfo) -> float:
        if temperature == 0 and info.data.get("samples", 1) > 1:
            raise ValueError("greedy answers are all alike; raise it, or give samples=1")
        return temperature


def _reward(making: Making, settings: RewardSettings) -> list[Chain]:
    given, made = making.chains("train"), list[Chain]()
    gold = {chain.problem_id: chain for chain in given if chain.source == "gold"}
    for name in sorted(
        {chain.dataset for chain in given if chain.dataset in TASKS and TASKS[chain.dataset].gold_chains}
    ):
        gold |= {chain.problem_id: chain for chain in load_chains(name, "train", **making.reading)}
    for fold, model, chains in making.asked(given):
        problems, intervention = questions_given(chains)
        how = {"temperature": settings.temperature, "seed": settings.seed}
        folder = making.folder / ("answers" if fold is None else f"answers-{fold.replace('/', '-')}")
        evaluate_with_bar(
            folder.name,
            problems,
            answering(load_lm(model), how).with_intervention(intervention),
            folder,
            record={
                "data": ", ".join(making.sources),
                "split": "train",
                "split_scheme": making.reading["split_scheme"],
            },
            samples=settings.samples,
            resume="if-possible",
            batch_size=making.batch_size,
            console=making.console,
        )
        made += rewarded(chains, rewards(chains, load_run(folder), gold), settings.by, settings.least)
    return [*made, *making.chains("dev")]


class SoftenSettings(Settings):
    """A teacher's probabilities beside chains, for students with ``loss: kl``."""

    style: Literal["socratic", "cot"] = Field("socratic", description="how it reads them")
    top: int = Field(5, ge=1, le=100, description="likeliest tokens kept at each place")


def _soften(making: Making, settings: SoftenSettings) -> list[Chain]:
    made: list[Chain] = []
    for _, name, chains in making.asked(making.chains("train", "dev")):
        device = default_device()
        teacher = load_teacher(name, torch_dtype("auto", device))
        teacher.model.to(device)
        prompt = load_prompt(settings.style, chains[0].dataset)
        made += soften_kept(making.folder / "read", chains, teacher, prompt, settings.top)[0]
    return made


def _soften_reads(settings: SoftenSettings, *_: object) -> list[Any]:
    return [load_prompt(settings.style, name).texts for name in prompted_data()]


class TeachSetSettings(ReplySettings):
    """What a teacher writes; ``student`` names it, as openai:NAME, openai:NAME@URL, or a MODEL that runs here."""

    samples: int = Field(1, ge=1, description="chains of each training problem; of each dev problem it is one")
    prompt: str | None = Field(None, description="folder of your own prompt")

    @field_validator("prompt")
    @classmethod
    def _is_shown(cls, prompt: str | None, info: ValidationInfo) -> str | None:
        if prompt and info.data.get("style") == "zero-shot-cot":
            raise ValueError("style=zero-shot-cot shows no prompt; leave it out")
        return prompt

    @field_validator("samples")
    @classmethod
    def _are_drawn(cls, samples: int, info: ValidationInfo) -> int:
        if samples > 1 and info.data.get("temperature") == 0:
            raise ValueError("a greedy teacher's are all alike; leave it out, or raise temperature")
        return samples


def _teach(making: Making, settings: TeachSetSettings) -> list[Chain]:
    """All that a teacher wrote, right or wrong; dev chains are its own too, even where the data have gold ones.

    For a student is chosen by its loss on them, which says little where they are worded unlike what it learns. Replies
    are shared by all sets of one teacher and prompt, so that none is bought again because other settings changed.
    """
    [data], [teacher] = making.sources, making.students.values()
    jobs = _jobs(settings, data, making.limit, making.reading)
    prompt = _prompt(settings, jobs)
    is_local = not teacher.startswith(ENDPOINT)
    if is_local and settings.extra:
        raise UserError(f"extra={settings.extra} is for an endpoint, and {teacher} runs here; leave it out")
    name, url = (teacher, None) if is_local else endpoint(teacher)
    lm = load_lm(teacher) if is_local else None
    whose = (lm and lm.fingerprint) or teacher  # a folder's weights may change, and its replies with them
    bought = hash_json([whose, settings.style, prompt and prompt.texts])[:8]
    written = making.folder / "written.jsonl"
    done = annotate_with_bar(
        "written",
        jobs,
        TeachSettings.parse({"model": name, **settings.model_dump(include=set(ReplySettings.model_fields))}),
        prompt,
        written,
        AskSettings.parse({"base_url": url, "resume": "always"}),
        lm=lm,
        replies=making.folder.with_name(f"replies.{bought}"),
        console=making.console,
    )
    if done.signal:
        making.console.print(done.why_stopped)
        raise SystemExit(128 + done.signal)
    if done.why_stopped:
        raise UserError(done.why_stopped)
    failed = [f"{count:,} {reason.replace('_', ' ')}" for reason, count in done.faults.most_common()]
    if done.for_now:
        raise UserError(
            f"{name} failed for now on {done.for_now:,} of {len(jobs):,} ({', '.join(failed)}); run this again"
        )
    if not done.chains:
        raise UserError(f"{name} wrote none of {len(jobs):,} chains ({', '.join(failed)}); mend that, or ask another")
    counts = ", ".join([f"{done.chains:,} of {len(jobs):,} chains", *failed])
    making.console.print(f"{making.folder.name}: {counts}", soft_wrap=True)
    made = list(read_records(written, Chain))
    written.unlink()  # the same chains are the set
    return made


def _jobs(settings: TeachSetSettings, data: str, limit: int | None, reading: Reading) -> list[Job]:
    jobs: list[Job] = []
    for split, samples in (("train", settings.samples), ("dev", 1)):
        problems = load_problems(data, split, limit=limit, **reading)
        jobs += jobs_of(problems, samples, settings.style, partial(load_chains, data, split, **reading))
    if not jobs:
        raise UserError(f"no problem of {data} has what style={settings.style} starts from; choose another style")
    return jobs


def _prompt(settings: TeachSetSettings, jobs: Sequence[Job]) -> TeacherPrompt | None:
    if settings.style == "zero-shot-cot":
        return None
    return load_prompt(settings.style, jobs[0].problem.dataset, Path(settings.prompt) if settings.prompt else None)


def _teach_reads(settings: TeachSetSettings, data: str, limit: int | None, reading: Reading) -> list[Any]:
    jobs = _jobs(settings, data, limit, reading)
    prompt = _prompt(settings, jobs)
    asked = [[job.problem.to_json(), *((step.question, step.answer) for step in job.given)] for job in jobs]
    return [asked, prompt and prompt.texts]


class MixSettings(Settings):
    """The forms of chains, for role cot."""

    shares: dict[Form, float] = Field(min_length=1, description="of each form, how often it is drawn")
    shots: int = Field(4, ge=1, description="solved problems in context")
    instruction: str | None = Field(None, description="a line before each problem")
    _is_one_line = field_validator("instruction")(one_line)
    seed: int = Field(0, description="of the draws")

    @field_validator("shots")
    @classmethod
    def _are_shown(cls, shots: int, info: ValidationInfo) -> int:
        if not any(form.startswith("in-context") and share for form, share in info.data.get("shares", {}).items()):
            raise ValueError("no form has problems in context; leave it out")
        return shots


def _mix(making: Making, settings: MixSettings) -> list[Chain]:
    train = making.chains("train")
    how = settings.shares, train, settings.shots, settings.seed, settings.instruction
    return [chain for part in (train, making.chains("dev")) for chain in mixed(part, *how)]


def _verdicts(making: Making, settings: VerdictSettings) -> list[Chain]:
    runs = making.runs()
    schooled = [schooling(run, making.reading["data_dir"]) for run in runs]  # which tries every split scheme
    for unknown in sorted({reason for school in schooled for reason in school.unknown}):
        making.console.print(f"{making.folder.name}: it cannot be told what was learned: {unknown}", soft_wrap=True)
    gold = []
    if settings.labels == "gold":
        parts = [load_chains(run.config["data"], run.config["split"], **making.reading) for run in runs]
        gold = [{chain.problem_id: chain for chain in chains} for chains in parts]
    return make_verdicts(runs, settings, schooled, gold).chains


MAKERS = {
    "augment": Maker(AugmentSettings, _augment),
    "corrupt": Maker(CorruptSettings, _corrupt),
    "curate": Maker(CurateSettings, _curate),
    "draw": Maker(DrawSettings, _draw),
    "harvest": Maker(HarvestSettings, _harvest, of="runs"),
    "mix": Maker(MixSettings, _mix),
    "reward": Maker(RewardSettings, _reward, asks=True),
    "soften": Maker(SoftenSettings, _soften, asks=True, reads=_soften_reads),
    "teach": Maker(TeachSetSettings, _teach, of="problems", asks=True, reads=_teach_reads),
    "verdicts": Maker(VerdictSettings, _verdicts, of="runs"),
}
