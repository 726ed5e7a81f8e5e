from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from socratic.lm.sampling import choose


def row(draw: float, temperature: float = 1.0, **state: bool) -> Any:
    rng = SimpleNamespace(random=lambda: draw)
    request = SimpleNamespace(temperature=temperature, rng=rng, logprob=None, among=())
    return SimpleNamespace(request=request, forced=state.get("forced"), ended=state.get("ended"))


def test_tokens_are_drawn_with_their_probabilities() -> None:
    import torch

    logits = torch.tensor([[-torch.inf, 0.0, 1.0, -1.0, -torch.inf]])
    for temperature in (0.5, 1.0, 2.0):
        draws = [(k + 0.5) / 1000 for k in range(1000)]
        chosen = choose(logits.repeat(1000, 1), [row(draw, temperature) for draw in draws])
        expected = (logits[0] / temperature).softmax(-1)
        for token, probability in enumerate(expected.tolist()):
            assert chosen.count(token) / 1000 == pytest.approx(probability, abs=0.002)
    for edge in (0.0, 1 - 2**-53):
        assert expected[choose(logits, [row(edge)])[0]] > 0, "an impossible token was drawn"


def test_sampled_rows_sum_the_logarithms_of_their_probabilities_at_temperature_1() -> None:
    import torch

    logits, one = torch.tensor([[0.0, 1.0, -1.0]]), row(0.5, 2.0)
    expected = sum(logits[0].log_softmax(-1)[choose(logits, [one])[0]].item() for _ in range(3))
    assert one.request.logprob == pytest.approx(expected)


def test_greedy_and_sampled_rows_share_a_batch() -> None:
    import torch

    logits = torch.tensor([[0.0, 3.0], [0.0, 3.0]])
    assert choose(logits, [row(0.01, 0.0), row(0.01, 1.0)]) == [1, 0]
