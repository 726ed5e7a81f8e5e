"""Does the engine write what transformers would? ``python -m benchmarks.agreement --qg DIR --qa DIR --data-dir DIR``.

The engine solves GSM8K problems greedily in fp32, calculator off. Then transformers reads every finished transcript
once, and each token that the engine decoded must be the likeliest there, behind the same ids: what ``generate`` would
have written. Where the two best logits differ by less than 1e-4, either is right; these are counted apart.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from socratic import load_lm, load_problems
from socratic.lm.base import Decoding, TokenSession
from socratic.lm.load import hush_transformers, load_student
from socratic.solving import SolveSettings, Solving

_TIE = 1e-4


def main() -> None:
    """Solve, read again, print the counts; the exit code is 1 where a token differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--qg", required=True)
    parser.add_argument("--qa", required=True)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--problems", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=64)
    arguments = parser.parse_args()

    hush_transformers()
    lms = {path: load_lm(path, dtype="fp32") for path in (arguments.qg, arguments.qa)}
    decoded: dict[str, dict[int, tuple[TokenSession, dict[int, int]]]] = {lm.name: {} for lm in lms.values()}
    push = Decoding.push

    def noting_push(row: Decoding, token: int) -> None:
        place = len(row.session.ids)
        _, tokens = decoded[row.request.lm.name].setdefault(id(row.session), (row.session, {}))
        tokens[place] = token
        push(row, token)

    problems = load_problems("gsm8k", "test", arguments.data_dir, arguments.problems)
    solving = Solving(SolveSettings.parse({"calculator": False}), *lms.values())
    Decoding.push = noting_push  # type: ignore[method-assign, assignment]
    traces = list(solving.run(((problem, 0) for problem in problems), arguments.batch_size))
    Decoding.push = push  # type: ignore[method-assign]

    counts: Counter[str] = Counter()
    for path, lm in lms.items():
        model = load_student(Path(path), torch.float32)[0].model.eval()
        for session, tokens in decoded[lm.name].values():
            counts.update(_compared(model, session.ids, tokens))
    print(
        f"{len(traces)} problems, {counts.total()} decoded tokens: " + ", ".join(f"{v} {k}" for k, v in counts.items())
    )
    raise SystemExit(1 if counts["different"] else 0)


def _compared(model: Any, ids: list[int], tokens: dict[int, int]) -> Counter[str]:
    """How often the token at a place is the likeliest behind all before it; dropped slots are passed over."""
    kept = {place: token for place, token in tokens.items() if place < len(ids) and ids[place] == token}
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids])).logits[0]
    found: Counter[str] = Counter()
    for place, token in kept.items():
        best = logits[place - 1].topk(2)
        if token == best.indices[0]:
            found["equal"] += 1
        else:
            tied = token == best.indices[1] and best.values[0] - best.values[1] < _TIE
            found["tied" if tied else "different"] += 1
    return found


if __name__ == "__main__":
    main()
