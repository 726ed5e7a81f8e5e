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
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers import continuous_batching, generate_caching, generate_rereading, llama_cpp
from benchmarks.roof import Roof, measure
from benchmarks.transcripts import ROLES, Contestant, Script, scripts
from socratic import load_chains, load_lm
from socratic.lm.base import Decoding, TokenSession
from socratic.lm.dense import Dense, FlatBatch
from socratic.lm.device import DeviceLoop
from socratic.lm.engine import EngineLM
from socratic.lm.load import hush_transformers, load_pretrained, torch_dtype
from socratic.prompts import problem_text
from socratic.solving import SolveSettings, Solving
from socratic.tokens import Codec


def socratic_engine(**models: EngineLM) -> Contestant:
    """This package, each decoded token replaced by the gold one: ``qg`` and ``qa`` in turn, or ``lm`` as CoT.

    On a GPU the device goes on from its own tokens until the host looks, and is then told the gold ones.
    """
    settings = SolveSettings.parse({"calculator": False, "solver": "cot" if "lm" in models else "socratic"})
    solving = Solving(settings, **models)
    roles = list(models.values())
    golds: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    push, write_problem, run_device = Decoding.push, TokenSession.write_problem, DeviceLoop.run

    def gold_problem(session: TokenSession, text: str, *format: Any) -> None:
        write_problem(session, text, *format)
        session.first = tuple(session.ids)  # type: ignore[attr-defined]

    def gold_push(row: Decoding, token: int) -> None:
        gold = golds[roles.index(row.request.lm), row.session.first]  # type: ignore[attr-defined, arg-type]
        push(row, gold[len(row.session.ids)])

    def gold_device(loop: DeviceLoop, ids: Any, positions: Any, tables: Any, tokens: int) -> list[list[int]]:
        run_device(loop, ids, positions, tables, tokens)
        role, lm = next((role, lm) for role, lm in enumerate(roles) if lm.loop is loop)
        sessions: dict[int, Any] = {session.cache.pages[0]: session for session in lm._sessions if session.cache}
        said = []
        for position, table in zip(positions, tables, strict=True):
            gold = golds[role, sessions[table[0]].first][position + 1 :][:tokens]
            stop = next((place for place, token in enumerate(gold) if loop.stops[token]), len(gold))
            said.append(gold[: stop + 1])
        return said

    def run(work: list[Script], batch: int) -> None:
        for script in work:
            first = tuple(roles[0].codec.problem(problem_text(script.problem.question)))
            golds.update({(role, first): script.ids[role] for role in range(len(roles))})
        Decoding.push, TokenSession.write_problem = gold_push, gold_problem  # type: ignore[method-assign, assignment]
        DeviceLoop.run = gold_device  # type: ignore[method-assign, assignment]
        try:
            traces = {t.problem_id: t for t in solving.run(((script.problem, 0) for script in work), batch)}
        finally:
            Decoding.push, TokenSession.write_problem = push, write_problem  # type: ignore[method-assign]
            DeviceLoop.run = run_device  # type: ignore[method-assign]
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
    lms: list[Any] = [load_lm(arguments.student, device=arguments.device, dtype=arguments.dtype) for _ in ROLES]
    dtype = torch_dtype(arguments.dtype, arguments.device)
    plain = [load_pretrained(arguments.student, dtype).model.to(arguments.device).eval() for _ in ROLES]
    codec: Codec = lms[0].codec
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
