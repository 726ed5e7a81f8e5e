"""The alternating loop by others' means: each peer writes gold transcripts as its documentation says is best."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
import transformers as hf_untyped

from benchmarks.transcripts import ROLES, Contestant, Script, Turn

hf: Any = hf_untyped


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
