"""The alternating loop against its peers: ``python -m benchmarks.loop --student MODEL --data-dir DIR``.

Everyone solves the same GSM8K problems with the same student in both roles and is made to write the gold transcripts,
so that all do the same number of turns with the same number of tokens (*forced transcripts*). Same dtype, threads and
ids. Peers: transformers' ``generate`` reading everything again at each turn; ``generate`` with a `DynamicCache` kept
for each model; transformers' continuous batching, pages of 16; llama.cpp (``pip install llama-cpp-python`` beside this
package) for one problem at a time. Each at its best batch size of those tried. ``cot-pass`` is this package solving the
same problems by chain of thought: what the loop costs on top of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as hf_untyped

from benchmarks.roof import Roof, measure
from socratic import load_chains, load_lm
from socratic.examples import causal_example
from socratic.lm.base import LM, Decoding, TokenSession
from socratic.lm.dense import Dense, FlatBatch
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
    ids: list[list[int]]
    turns: list[Turn]

    @property
    def written(self) -> int:
        """Decoded tokens of both roles."""
        return sum(turn.written for turn in self.turns)


def scripts(chains: list[Chain], codec: Codec, roles: Sequence[Role] = ROLES) -> list[Script]:
    """The gold transcripts of ``chains``, for roles that take turns."""
    made = []
    for chain in chains:
        examples = [causal_example(chain, role, codec) for role in roles]
        slots = [list(_slots(example.learned)) for example in examples]
        turns = []
        while any(slots):
            role = slots.index(max(slots, key=len))
            start, end = slots[role].pop(0)
            turns.append(Turn(role, list(examples[role].ids[:start]), end - start))
        made.append(Script(chain.problem("test"), [list(example.ids) for example in examples], turns))
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


def socratic_engine(**models: LM) -> Contestant:
    """This package, each decoded token replaced by the gold one: ``qg`` and ``qa`` in turn, or ``lm`` as CoT."""
    settings = SolveSettings.parse({"calculator": False, "solver": "cot" if "lm" in models else "socratic"})
    solving = Solving(settings, **models)
    roles = list(models.values())
    golds: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    push, write_problem = Decoding.push, TokenSession.write_problem

    def gold_problem(session: TokenSession, text: str) -> None:
        write_problem(session, text)
        session.first = tuple(session.ids)  # type: ignore[attr-defined]

    def gold_push(row: Decoding, token: int) -> None:
        gold = golds[roles.index(row.request.lm), row.session.first]  # type: ignore[attr-defined]
        push(row, gold[len(row.session.ids)])

    def run(work: list[Script], batch: int) -> None:
        for script in work:
            first = tuple(roles[0].codec.problem(problem_text(script.problem.question)))  # type: ignore[attr-defined]
            golds.update({(role, first): script.ids[role] for role in range(len(roles))})
        Decoding.push, TokenSession.write_problem = gold_push, gold_problem  # type: ignore[method-assign, assignment]
        try:
            traces = {t.problem_id: t for t in solving.run(((script.problem, 0) for script in work), batch)}
        finally:
            Decoding.push, TokenSession.write_problem = push, write_problem  # type: ignore[method-assign]
        assert all(traces[script.problem.id].answer == script.problem.answer for script in work)
        assert sum(t.tokens for t in traces.values()) == sum(script.written for script in work)

    return run


def share_of_roof(contestant: Contestant, work: list[Script], batch: int, roof: Roof) -> float:
    """The least time that the engine's forward passes could take on this machine, over the time the whole run took."""
    forward, least = Dense.forward, 0.0

    def counting(dense: Dense, batch: FlatBatch, backend: Any) -> torch.Tensor:
        nonlocal least
        least += roof.seconds(dense, batch)
        return forward(dense, batch, backend)

    Dense.forward = counting  # type: ignore[method-assign, assignment]
    try:
        seconds = _timed(contestant, work, batch)
    finally:
        Dense.forward = forward  # type: ignore[method-assign]
    return least / seconds


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
                        caches[role].batch_select_indices(kept.to(models[role].device))
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


def llama_cpp(models: list[Any]) -> Contestant:
    """llama.cpp with a context a model kept over all turns, one problem at a time."""

    def run(work: list[Script], batch: int) -> None:
        for script in work:
            for model in models:
                model.reset()
            for turn in script.turns:
                model = models[turn.role]
                new = turn.seen[model.n_tokens :]
                for _ in range(turn.written):
                    model.eval(new)
                    new = [model.sample(temp=0.0)]

    return run


def _ask(managers: list[Any], index: int, turn: Turn) -> None:
    name = f"{index}-{turn.role}-{len(turn.seen)}"
    managers[turn.role].add_request(turn.seen, request_id=name, max_new_tokens=turn.written)


def _generate(model: Any, ids: torch.Tensor, mask: torch.Tensor, tokens: int, **more: Any) -> None:
    settings = hf.GenerationConfig(
        do_sample=False, eos_token_id=None, pad_token_id=0, min_new_tokens=tokens, max_new_tokens=tokens
    )
    model.generate(ids.to(model.device), attention_mask=mask.to(model.device), generation_config=settings, **more)


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
    parser.add_argument("--device", default="cpu", help="cuda: all 1,319 problems with --problems 1319")
    parser.add_argument("--only", default="", help="contestants to race, separated by commas; socratic among them")
    parser.add_argument("--batches", default="16,32,64", help="batch sizes that the peers may choose from")
    parser.add_argument("--llama", help="race llama.cpp too, one at a time: the same student as a bf16 GGUF file")
    parser.add_argument("--one-at-a-time", action="store_true", help="as a person at a terminal would")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()

    hush_transformers()
    chains = load_chains("gsm8k", "test", arguments.data_dir, arguments.problems)
    lms = [load_lm(arguments.student, device=arguments.device, dtype=arguments.dtype) for _ in ROLES]
    dtype = torch_dtype(arguments.dtype, arguments.device)
    plain = [load_pretrained(arguments.student, dtype).model.to(arguments.device).eval() for _ in ROLES]
    codec: Codec = lms[0].codec  # type: ignore[attr-defined]
    work, rationales = scripts(chains, codec), scripts(chains, codec, ("cot",))
    contestants: dict[str, Contestant] = {
        "socratic": socratic_engine(qg=lms[0], qa=lms[1]),
        "cot-pass": socratic_engine(lm=lms[0]),
        "generate-rereading": generate_rereading(plain),
        "generate-cache": generate_caching(plain),
        "continuous-batching": continuous_batching(plain),
    }
    if arguments.llama:
        from llama_cpp import Llama

        threads = {"n_threads": torch.get_num_threads(), "n_threads_batch": torch.get_num_threads()}
        contexts = [Llama(arguments.llama, n_ctx=1024, verbose=False, **threads) for _ in ROLES]
        contestants["llama.cpp"] = llama_cpp(contexts)
    names = [name for name in contestants if not arguments.only or name in arguments.only.split(",")]
    works = {name: rationales if name == "cot-pass" else work for name in names}
    with torch.inference_mode():
        best = {name: _best_batch(name, contestants[name], works[name], arguments) for name in names}
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(arguments.repeats):
            for name in names:
                seconds[name].append(_timed(contestants[name], works[name], best[name]))
                _say(f"{name}: {seconds[name][-1]:.2f} s")
        roof = measure(dtype) if arguments.device == "cpu" else None
        share = share_of_roof(contestants["socratic"], work, best["socratic"], roof) if roof else None
    rows = [_row(name, best[name], seconds[name], seconds["socratic"], works[name]) for name in names]
    print(f"{len(work)} problems, {rows[0]['written']} decoded tokens, {dtype}, {torch.get_num_threads()} threads")
    print(f"{'':20} {'batch':>5} {'seconds':>21} {'problems/s':>10} {'decoded/s':>9} {'socratic is faster':>24}")
    for row in rows:
        span = f"{row['median']:.2f} [{min(row['seconds']):.2f}, {max(row['seconds']):.2f}]"
        times = f"{row['ratio']:.2f}x [{row['ratio_range'][0]:.2f}, {row['ratio_range'][1]:.2f}]"
        print(
            f"{row['name']:20} {row['batch']:5} {span:>21} "
            f"{row['problems_per_second']:10.2f} {row['decoded_per_second']:9.0f} {times:>24}"
        )
    if roof:
        limits = f"{roof.flops / 1e9:.0f} GFLOP/s, {roof.bandwidth / 1e9:.0f} GB/s"
        print(f"roof: {limits}; socratic is at {share:.0%} of it")
    if arguments.out:
        found = {"problems": len(work), "dtype": str(dtype), "share_of_roof": share, "rows": rows}
        arguments.out.write_text(json.dumps(found, indent=2) + "\n")


def _best_batch(name: str, contestant: Contestant, work: list[Script], arguments: argparse.Namespace) -> int:
    """The batch size at which a peer is fastest, of those to be tried; warms up as well."""
    if arguments.one_at_a_time or name in (
        "socratic",
        "cot-pass",
        "continuous-batching",
    ):  # these choose their batch themselves
        _timed(contestant, work[:8], 8)
        return 1 if arguments.one_at_a_time else len(work)
    tried = {size: _timed(contestant, work[:64], size) for size in map(int, arguments.batches.split(","))}
    _say(f"{name}: " + ", ".join(f"batch {size} {seconds:.1f} s" for size, seconds in tried.items()))
    return min(tried, key=lambda size: tried[size])


def _row(name: str, batch: int, seconds: list[float], ours: list[float], work: list[Script]) -> dict[str, Any]:
    median, written = statistics.median(seconds), sum(script.written for script in work)
    ratios = [theirs / own for theirs, own in zip(seconds, ours, strict=True)]
    return {
        "name": name,
        "batch": batch,
        "seconds": seconds,
        "median": median,
        "written": written,
        "problems_per_second": len(work) / median,
        "decoded_per_second": written / median,
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _timed(contestant: Contestant, work: list[Script], batch: int) -> float:
    started = time.perf_counter()
    contestant(work, batch)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
