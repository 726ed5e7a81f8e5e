"""From logits to tokens, greedy or sampled, and to the likelihood of texts: what all models that decode here share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from socratic.lm.base import Decoding

if TYPE_CHECKING:
    import torch


def choose(logits: torch.Tensor, rows: list[Decoding]) -> list[int]:
    """The next token of each row: the likeliest, or one drawn at the row's temperature."""
    import torch

    hot = [row.request.temperature > 0 for row in rows]
    if not any(hot):
        return logits.argmax(-1).tolist()
    greedy = None if all(hot) else logits.argmax(-1)
    for b, row in enumerate(rows):
        if row.request.among:
            kept = logits[b, row.request.among]
            logits[b] = -torch.inf
            logits[b, row.request.among] = kept
    heat = torch.tensor([row.request.temperature or 1.0 for row in rows], device=logits.device, dtype=torch.float64)
    draws = [
        row.request.rng.random() if row.request.temperature and not (row.forced or row.ended) else 0.0 for row in rows
    ]
    drawn = sample(logits, heat, torch.tensor(draws, device=logits.device, dtype=torch.float64))
    chosen = drawn if greedy is None else torch.where(torch.tensor(hot, device=logits.device), drawn, greedy)
    likely = logits.double().log_softmax(-1).gather(-1, chosen[:, None])[:, 0].tolist()
    for row, logprob in zip(rows, likely, strict=True):
        if not (row.forced or row.ended):
            row.request.logprob = (row.request.logprob or 0.0) + logprob
    return chosen.tolist()


def sample(logits: torch.Tensor, heat: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Inverse transform sampling [rows] from ``logits`` [rows, vocabulary] at temperatures ``heat`` [rows].

    ``draws`` [rows] are uniform in [0, 1); both are in fp64.
    """
    import torch

    behind = logits.double() - logits.amax(-1, keepdim=True).double()  # so that no temperature makes it overflow
    cumulated = (behind / heat[:, None]).softmax(-1).cumsum(-1)
    found = torch.searchsorted(cumulated, draws[:, None] * cumulated[:, -1:], right=True)[:, 0]
    return found.clamp(max=logits.shape[-1] - 1)


def summed_logprobs(logits: torch.Tensor, texts: Sequence[Sequence[int]]) -> list[float]:
    """The log probability of each text; ``logits`` [tokens, vocabulary] are those in the place of each of its tokens.

    The tokens of all texts stand one behind the other.
    """
    import torch

    tokens = torch.tensor([token for text in texts for token in text], device=logits.device)
    likely = logits.float().log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
    parts = likely.tensor_split(list(accumulate(map(len, texts)))[:-1])
    return [part.sum().item() for part in parts]
