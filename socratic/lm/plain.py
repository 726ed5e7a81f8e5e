"""Any decoder that transformers can run, one row after the other: slow, but asking nothing of the model's attention."""

from __future__ import annotations

from typing import Any

from socratic.lm.base import Decoding, Request
from socratic.lm.causal import CausalLM, LayersLM, takes_grouped_attention
from socratic.lm.sampling import choose
from socratic.tokens import Codec


class PlainLM(LayersLM):
    """A transformers causal model behind the `LM` interface, with its own attention and its own kind of cache.

    Each session keeps its cache as long as it only grows; where it was cropped, it is read again.
    """

    def step(self, tokens: int) -> list[Request]:
        import torch

        with torch.inference_mode():
            for row in self._rows:
                for _ in range(tokens):
                    if not row.ended:
                        self._advance(row)
        return self._part_with_ended()

    def _advance(self, row: Decoding) -> None:
        """Read what the session's cache has not, and write one token."""
        import torch
        from transformers import DynamicCache

        session = row.session
        if session.cache is None or session.cache.get_seq_length() != session.cached:
            session.cache, session.cached = DynamicCache(config=self.model.config), 0
        ids = torch.tensor([session.ids[session.cached :]], device=self.model.device)
        logits = self.model(input_ids=ids, past_key_values=session.cache, use_cache=True).logits
        session.cached = len(session.ids)
        row.push(choose(logits[:, -1], [row])[0])
        while row.forced and not row.ended:
            row.push(-1)


def layers_lm(model: Any, codec: Codec, name: str) -> LayersLM:
    """``model`` through its own layers: in batches where its attention allows it, else one row after the other."""
    return (CausalLM if takes_grouped_attention(model) else PlainLM)(model, codec, name)
