"""Encoder-decoder students: the encoder reads the whole transcript so far, the decoder writes one slot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from socratic.lm.base import Decoding, LocalLM, Request, TokenSession
from socratic.lm.sampling import choose
from socratic.tokens import Codec

if TYPE_CHECKING:
    import torch

_MOST_POSITIONS = 4096
"""Of models without a limit of their own, such as T5: attention scores take memory by the square of the length."""
_SCORES = 1 << 25
"""Attention scores of one head that the encoder may hold at once: with 8 heads and in fp32 a gigabyte."""


class Seq2SeqLM(LocalLM):
    """A transformers encoder-decoder behind the `LM` interface.

    History cannot be reused from turn to turn: an encoder's states all change when the transcript grows. A step decodes
    all queued requests to their ends, whatever number of tokens was asked for, as many at once as memory allows.
    """

    def __init__(self, model: Any, codec: Codec, name: str) -> None:
        super().__init__(codec, name, model.num_parameters())
        self.model = model.eval()
        self.positions: int = getattr(model.config, "max_position_embeddings", None) or _MOST_POSITIONS

    def submit(self, request: Request) -> None:
        assert isinstance(request.session, TokenSession)
        length = len(request.session.ids)
        fits = length <= self.positions
        self._admit(self._decoding(request, length + self.positions if fits else self.positions))

    def step(self, tokens: int) -> list[Request]:
        import torch

        rows, ended, self._rows, self._ended = self._rows, self._ended, [], []
        waiting = sorted(rows, key=lambda row: len(row.session.ids))
        while waiting:
            most = max(1, _SCORES // len(waiting[-1].session.ids) ** 2)
            batch, waiting = waiting[-most:], waiting[:-most]
            with torch.inference_mode():
                self._decode(batch)
        return ended + [row.request for row in rows]

    def _decode(self, rows: list[Decoding]) -> None:
        import torch
        from transformers.modeling_outputs import BaseModelOutput

        device = self.model.device
        sources, mask = pad([row.session.ids for row in rows], device)
        encoded = self.model.get_encoder()(input_ids=sources, attention_mask=mask).last_hidden_state
        inputs = [[self.model.config.decoder_start_token_id]] * len(rows)
        cache = None
        while not all(row.ended for row in rows):
            out = self.model(
                encoder_outputs=BaseModelOutput(last_hidden_state=encoded),
                attention_mask=mask,
                decoder_input_ids=torch.tensor(inputs, device=device),
                past_key_values=cache,
                use_cache=True,
            )
            cache = out.past_key_values
            chosen = choose(out.logits[:, -1], rows)
            for b, row in enumerate(rows):
                if not row.ended:
                    row.push(chosen[b])
            inputs = [row.session.ids[-1:] for row in rows]


def pad(rows: list[list[int]], device: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of ids, padded on the right with 0, [rows, longest]; and their attention mask, by length, never by id."""
    import torch

    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return ids, (torch.arange(longest, device=device) < lengths[:, None]).long()
