"""The alternating loop against its peers: ``python -m benchmarks.loop --student MODEL --data-dir DIR``.

Everyone solves the same GSM8K problems with the same student in both roles and is made to write the gold transcripts,
so that all do the same number of turns with the same number of tokens (*forced transcripts*). Same dtype, threads and
ids. Peers: transformers' ``generate`` reading everything again at each turn; ``generate`` with a `DynamicCache` kept for
each model; transformers' continuous batching, pages of 16. Each at its best batch size of those tried.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as hf_untyped

from socratic import load_chains, load_lm
from socratic.examples import causal_example
from socratic.lm.base import LM, Decoding, TokenSession
from socratic.lm.load import hush_transformers, load_pretrained, torch_dtype
from socratic.loops import SolveSettings, Solving
from socratic.prompts import problem_text
from socratic.tokens import Codec
from socratic.types import Chain, Problem, Role

hf: Any = hf_untyped
ROLES: tuple[Role, Role] = ("qg", "qa")


@dataclass(frozen=True)
class Turn:
    """One slot of a gold transcript: the role that writes it, the ids it has seen before, how many it writes."""

    role: int
    seen: list[int]
    written: int


@dataclass(frozen=True)
class Script:
    """A problem and its gold transcript, as each role sees it and turn by turn."""

    problem: Problem
    ids: tuple[list[int], list[int]]
    turns: list[Turn]

    @property
    def written(self) -> int:
        """Decoded tokens of both roles."""
        return sum(turn.written for turn in self.turns)


def scripts(chains: list[Chain], codec: Codec) -> list[Script]:
    """The gold transcripts of ``chains``."""
    made = []
    for chain in chains:
        examples = [causal_example(chain, role, codec) for role in ROLES]
        slots = [list(_slots(example.learned)) for example in examples]
        turns = []
        while any(slots):
            role = 0 if len(slots[0]) >= len(slots[1]) else 1
            start, end = slots[role].pop(0)
            turns.append(Turn(role, list(examples[role].ids[:start]), end - start))
        made.append(Script(chain.problem("test"), (list(examples[0].ids), list(examples[1].ids)), turns))
    return made


def _slots(learned: tuple[bool, ...]) -> Iterator[tuple[int, int]]:
    start = None
    for place, is_learned in enumerate((*learned, False)):
        if is_learned and start is None:
            start = place
        elif not is_learned and start is not None:
            yield start, place
            start = None


Contestant = Callable[[list[Script], int], None]
"""Writes all scripts, at most so many problems at a time."""


def socratic_engine(models: list[LM]) -> Contestant:
    """This package, through `Solving`, each decoded token replaced by the gold one."""
    golds: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    push, write_problem = Decoding.push, TokenSession.write_problem

    def gold_problem(session: TokenSession, text: str) -> None:
        write_problem(session, text)
        session.first = tuple(session.ids)  # type: ignore[attr-defined]

    def gold_push(row: Decoding, token: int) -> None:
        gold = golds[models.index(row.request.lm), row.session.first]  # type: ignore[attr-defined]
        push(row, gold[len(row.session.ids)])

    def run(work: list[Script], batch: int) -> None:
        for script in work:
            first = tuple(models[0].codec.problem(problem_text(script.problem.question)))  # type: ignore[attr-defined]
            golds.update({(role, first): script.ids[role] for role in (0, 1)})
        Decoding.push, TokenSession.write_problem = gold_push, gold_problem  # type: ignore[method-assign, assignment]
        try:
            solving = Solving(SolveSettings.parse({"calculator": False}), *models)
            traces = {t.problem_id: t for t in solving.run(((script.problem, 0) for script in work), batch)}
        finally:
            Decoding.push, TokenSession.write_problem = push, write_problem  # type: ignore[method-assign]
        assert all(traces[script.problem.id].answer == script.problem.answer for script in work)
        assert sum(t.tokens for t in traces.values()) == sum(script.written for script in work)

    return run


def generate_rereading(models: list[Any]) -> Contestant:
    """``generate`` on the whole transcript so far at every turn, padded on the left."""

    def run(work: list[Script], batch: int) -> None:
        for chunk in _chunks(work, batch):
            for turns in _lockstep(chunk):
                width = max(len(turn.seen) for _, turn in turns)
                ids = torch.tensor([[0] * (width - len(turn.seen)) + turn.seen for _, turn in turns])
                mask = torch.tensor([[0] * (width - len(turn.seen)) + [1] * len(turn.seen) for _, turn in turns])
                _generate(models[turns[0][1].role], ids, mask, max(turn.written for _, turn in turns))

    return run


def generate_caching(models: list[Any]) -> Contestant:
    """``generate`` with a `DynamicCache` a model kept over all turns; what the other wrote comes padded on the left."""

    def run(work: list[Script], batch: int) -> None:
        for chunk in _chunks(work, batch):
            caches: list[Any] = [hf.DynamicCache(), hf.DynamicCache()]
            masks = [torch.zeros(len(chunk), 0, dtype=torch.long) for _ in ROLES]
            read = [[0, 0] for _ in chunk]
            rows = [list(range(len(chunk))) for _ in ROLES]  # which problems each cache holds
            for turns in _lockstep(chunk):
                role = turns[0][1].role
                present = [index for index, _ in turns]
                if present != rows[role]:
                    kept = torch.tensor([rows[role].index(index) for index in present])
                    if len(caches[role].layers):
                        caches[role].batch_select_indices(kept)
                    masks[role], rows[role] = masks[role][kept], present
                new = [turn.seen[read[index][role] :] for index, turn in turns]
                width, most = max(map(len, new)), max(turn.written for _, turn in turns)
                ids = torch.tensor([[0] * (width - len(n)) + n for n in new])
                fresh = torch.tensor([[0] * (width - len(n)) + [1] * len(n) for n in new])
                past = masks[role].shape[1]
                mask = torch.cat([masks[role], fresh], 1)
                whole = torch.cat([torch.zeros(len(new), past, dtype=torch.long), ids], 1)
                _generate(models[role], whole, mask, most, past_key_values=caches[role])
                # generate leaves its last token out of the cache; each row's surplus tokens are masked from now on
                held = caches[role].get_seq_length() - past - width
                written = torch.tensor([[1] * min(t.written, held) + [0] * max(0, held - t.written) for _, t in turns])
                masks[role] = torch.cat([mask, written.view(len(new), held)], 1)
                for index, turn in turns:
                    read[index][role] = len(turn.seen) + min(turn.written, held)

    return run


def continuous_batching(models: list[Any]) -> Contestant:
    """transformers' continuous batching with shared prefixes: the whole transcript so far is sent at every turn."""

    def run(work: list[Script], batch: int) -> None:
        settings = hf.GenerationConfig(do_sample=False, eos_token_id=-1, max_new_tokens=256)
        layout = hf.ContinuousBatchingConfig(page_size=16, num_blocks=6000, max_batch_tokens=512)
        managers = [model.init_continuous_batching(settings, continuous_batching_config=layout) for model in models]
        for manager in managers:
            manager.start()
        try:
            waiting = list(enumerate(work))
            under_way: dict[int, list[Turn]] = {}
            while waiting or under_way:
                while waiting and len(under_way) < batch:
                    index, script = waiting.pop(0)
                    under_way[index] = list(script.turns)
                    _ask(managers, index, under_way[index][0])
                moved = False
                for manager in managers:
                    while (result := manager.get_result(timeout=0.0005)) is not None:
                        if not result.is_finished():
                            continue
                        moved, index = True, int(result.request_id.split("-")[0])
                        under_way[index].pop(0)
                        if under_way[index]:
                            _ask(managers, index, under_way[index][0])
                        else:
                            del under_way[index]
                if not moved:
                    time.sleep(0.0005)
        finally:
            for manager in managers:
                manager.stop(block=True)

    return run


def _ask(managers: list[Any], index: int, turn: Turn) -> None:
    name = f"{index}-{turn.role}-{len(turn.seen)}"
    managers[turn.role].add_request(turn.seen, request_id=name, max_new_tokens=turn.written)


def _generate(model: Any, ids: torch.Tensor, mask: torch.Tensor, tokens: int, **more: Any) -> None:
    settings = hf.GenerationConfig(
        do_sample=False, eos_token_id=None, pad_token_id=0, min_new_tokens=tokens, max_new_tokens=tokens
    )
    model.generate(ids, attention_mask=mask, generation_config=settings, **more)


def _chunks(work: list[Script], size: int) -> Iterator[list[Script]]:
    """Problems of similar length together, which helps whoever pads."""
    ordered = sorted(work, key=lambda script: (len(script.turns), len(script.ids[1])))
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]


def _lockstep(chunk: list[Script]) -> Iterator[list[tuple[int, Turn]]]:
    """Turn k of every problem, and of one role at a time: QG stops and QA's final slots come where a problem ends."""
    for number in range(max(len(script.turns) for script in chunk)):
        turns = [(index, script.turns[number]) for index, script in enumerate(chunk) if number < len(script.turns)]
        for role in (0, 1):
            if chosen := [(index, turn) for index, turn in turns if turn.role == role]:
                yield chosen


def main() -> None:
    """Race, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", required=True)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--problems", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--only", default="", help="contestants to run, separated by commas")
    parser.add_argument("--batches", default="16,32,64", help="batch sizes that the peers may choose from")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()

    hush_transformers()
    chains = load_chains("gsm8k", "test", arguments.data_dir, arguments.problems)
    lms = [load_lm(arguments.student, dtype=arguments.dtype) for _ in ROLES]
    dtype = torch_dtype(arguments.dtype, "cpu")
    plain = [load_pretrained(arguments.student, dtype).model.eval() for _ in ROLES]
    work = scripts(chains, lms[0].codec)  # type: ignore[attr-defined]
    contestants: dict[str, Contestant] = {
        "socratic": socratic_engine(lms),
        "generate-rereading": generate_rereading(plain),
        "generate-cache": generate_caching(plain),
        "continuous-batching": continuous_batching(plain),
    }
    names = [name for name in contestants if not arguments.only or name in arguments.only.split(",")]
    sizes = [int(size) for size in arguments.batches.split(",")]
    best: dict[str, int] = {}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with torch.inference_mode():
        for name in names:
            if name in ("socratic", "continuous-batching"):  # both choose their batch themselves
                best[name] = len(work)
                _timed(contestants[name], work[:8], 8)
                continue
            tried = {size: _timed(contestants[name], work[:64], size) for size in sizes}
            best[name] = min(tried, key=lambda size: tried[size])
            print(f"{name}: " + ", ".join(f"batch {size} {t:.1f} s" for size, t in tried.items()), file=sys.stderr)
        for _ in range(arguments.repeats):
            for name in names:
                seconds[name].append(_timed(contestants[name], work, best[name]))
                print(f"{name}: {seconds[name][-1]:.2f} s", file=sys.stderr)

    written, problems = sum(script.written for script in work), len(work)
    print(f"{problems} problems, {written} decoded tokens, {dtype}, {torch.get_num_threads()} threads")
    print(f"{'':24} {'batch':>5} {'seconds':>16} {'problems/s':>10} {'decoded/s':>9} {'socratic is':>12}")
    rows = []
    for name in names:
        median = statistics.median(seconds[name])
        ratios = [other / own for other, own in zip(seconds[name], seconds.get("socratic", []), strict=False)]
        row = {
            "name": name,
            "batch": best[name],
            "seconds": seconds[name],
            "problems_per_second": problems / median,
            "decoded_per_second": written / median,
            "ratio": statistics.median(ratios) if ratios else None,
            "ratio_range": [min(ratios), max(ratios)] if ratios else None,
        }
        rows.append(row)
        span = f"{median:.2f} [{min(seconds[name]):.2f}, {max(seconds[name]):.2f}]"
        times = f"{row['ratio']:.2f}x" if ratios else ""
        print(f"{name:24} {best[name]:5} {span:>16} {problems / median:10.2f} {written / median:9.0f} {times:>12}")
    if arguments.out:
        arguments.out.write_text(json.dumps({"problems": problems, "written": written, "rows": rows}, indent=2) + "\n")


def _timed(contestant: Contestant, work: list[Script], batch: int) -> float:
    started = time.perf_counter()
    contestant(work, batch)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
