"""Decoder-only students: every session keeps its KV cache and ingests only what it has not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from socratic.lm.base import Decoding, LocalLM, Request, TokenSession
from socratic.lm.sampling import choose, summed_logprobs
from socratic.tokens import Codec

if TYPE_CHECKING:
    import torch

_INGEST_TOKENS = 8192
"""Most token positions (rows × padded length) ingested in one forward pass: bounds the memory of attention scores."""

_LOGIT_TOKENS = 1024
"""Most token positions of one forward pass that gives the logits of all of them: they take memory."""


class LayersLM(LocalLM):
    """What decoders that run through transformers' own layers share; see `CausalLM` and `PlainLM`."""

    def __init__(self, model: Any, codec: Codec, name: str) -> None:
        super().__init__(codec, name, model.num_parameters())
        self.model = model.eval()
        self.positions: int | None = getattr(model.config, "max_position_embeddings", None)

    def submit(self, request: Request) -> None:
        self._admit(self._decoding(request, self.positions))

    def logprobs(self, texts: list[tuple[str, str]]) -> list[float | None]:
        import torch

        found: list[float | None] = [None] * len(texts)
        rows = [(place, *ids) for place, ids in enumerate(self._spelled(texts))]
        most = self.positions or max((len(given) + len(said) for _, given, said in rows), default=0)
        waiting = [row for row in rows if len(row[1]) + len(row[2]) <= most]
        waiting.sort(key=lambda row: len(row[1]) + len(row[2]))
        while waiting:
            width = len(waiting[-1][1]) + len(waiting[-1][2]) - 1
            batch = waiting[-max(1, _LOGIT_TOKENS // width) :]
            del waiting[-len(batch) :]
            ids = [given + said[:-1] for _, given, said in batch]
            padded = torch.tensor([row + row[-1:] * (width - len(row)) for row in ids], device=self.model.device)
            with torch.inference_mode():  # what stands behind a row's end is not seen by it
                logits = self.model(input_ids=padded, use_cache=False).logits
            said_at = [logits[b, len(given) - 1 :][: len(said)] for b, (_, given, said) in enumerate(batch)]
            likely = summed_logprobs(torch.cat(said_at), [said for _, _, said in batch])
            for (place, _, _), logprob in zip(batch, likely, strict=True):
                found[place] = logprob
        return found

    def _part_with_ended(self) -> list[Request]:
        ended = self._ended + [row.request for row in self._rows if row.ended]
        self._rows, self._ended = [row for row in self._rows if not row.ended], []
        return ended


class CausalLM(LayersLM):
    """A transformers causal model behind the `LM` interface.

    Rows of different lengths share a batch without padding on the left: row b's next token is written at its own
    position, and its attention reads positions up to that one. Caches are tensors [layers, 2, heads, length, head
    size], one a session; a step gathers them into one batch, decodes, and hands them back. For models that
    `takes_grouped_attention` is true of.
    """

    def __init__(self, model: Any, codec: Codec, name: str) -> None:
        if not takes_grouped_attention(model):
            raise ValueError(f"{name} needs its own attention; see PlainLM")
        super().__init__(model, codec, name)

    def step(self, tokens: int) -> list[Request]:
        import torch

        with torch.inference_mode():
            if self._rows:
                self._ingest([row.session for row in self._rows if len(row.session.ids) - row.session.cached > 1])
                self._decode(self._rows, tokens)
        return self._part_with_ended()

    def _ingest(self, sessions: list[TokenSession]) -> None:
        """Read all but the last id of each session into its cache, in batches of similar length."""
        sessions = sorted(sessions, key=lambda s: len(s.ids) - s.cached)
        while sessions:
            width = len(sessions[-1].ids) - sessions[-1].cached - 1
            batch = sessions[-max(1, _INGEST_TOKENS // width) :]
            del sessions[-len(batch) :]
            cache = _BatchCache(batch, width, self.model)
            new = [session.ids[session.cached : -1] for session in batch]
            cache.forward(self.model, [ids + [ids[-1]] * (width - len(ids)) for ids in new])
            cache.hand_back(batch, [len(session.ids) - 1 for session in batch])

    def _decode(self, rows: list[Decoding], tokens: int) -> None:
        """Up to ``tokens`` tokens for each row; a row that ends is carried along until the step is over."""
        sessions = [row.session for row in rows]
        cache = _BatchCache(sessions, tokens, self.model)
        inputs = [[session.ids[-1]] for session in sessions]
        for _ in range(tokens):
            logits = cache.forward(self.model, inputs)
            chosen = choose(logits, rows)
            for b, row in enumerate(rows):
                if not row.ended:
                    row.session.cached += 1  # which a slot that is cut makes smaller
                    row.push(chosen[b])
                    inputs[b] = row.session.ids[-1:]
            if all(row.ended for row in rows):
                break
        cache.hand_back(sessions, [session.cached for session in sessions])


class _BatchCache:
    """KV of a batch of sessions, [layers, 2, rows, heads, capacity, head size], written at each row's own positions.

    Stands in for a transformers ``Cache``: models only call `update`.
    """

    def __init__(self, sessions: list[TokenSession], room: int, model: Any) -> None:
        import torch

        config = model.config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.device = model.device
        self.start = torch.tensor([session.cached for session in sessions], device=self.device)
        self.longest = max(session.cached for session in sessions)
        shape = (config.num_hidden_layers, 2, len(sessions), heads, self.longest + room, size)
        self.kv = torch.zeros(shape, dtype=model.dtype, device=self.device)
        for b, session in enumerate(sessions):
            if session.cached:
                self.kv[:, :, b, :, : session.cached] = session.cache[:, :, :, : session.cached]
        self.last_position = (getattr(config, "max_position_embeddings", None) or 1 << 30) - 1

    def forward(self, model: Any, inputs: list[list[int]]) -> torch.Tensor:
        """Ingest ``inputs`` [rows, width] behind what each row holds; logits of the last column, [rows, vocabulary]."""
        import torch

        ids = torch.tensor(inputs, device=self.device)
        self.slots = self.start[:, None] + torch.arange(ids.shape[1], device=self.device)
        self.longest += ids.shape[1]
        seen = torch.arange(self.longest, device=self.device) <= self.slots[:, :, None]
        logits = model(
            input_ids=ids,
            position_ids=self.slots.clamp(max=self.last_position),
            attention_mask=seen[:, None],
            past_key_values=self,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        self.start = self.start + ids.shape[1]
        return logits[:, -1]  # type: ignore[no-any-return]

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write new keys and values [rows, heads, width, head size]; return all of them up to the longest row."""
        rows = self.start.new_tensor(range(len(self.start)))[:, None]
        for which, new in enumerate((key, value)):
            self.kv[layer, which].transpose(1, 2)[rows, self.slots] = new.transpose(1, 2)
        keys, values = self.kv[layer, :, :, :, : self.longest]
        return keys, values

    def get_seq_length(self, layer: int = 0) -> int:
        return self.longest

    def hand_back(self, sessions: list[TokenSession], lengths: list[int]) -> None:
        """Give each session its own cache of its first ``lengths[b]`` ids."""
        for b, (session, length) in enumerate(zip(sessions, lengths, strict=True)):
            session.cache = self.kv[:, :, b, :, :length].clone()
            session.cached = length


def takes_grouped_attention(model: Any) -> bool:
    """Give ``model`` `_grouped_attention` in place of its own; False where that is not the same, or is ignored."""
    from transformers import AttentionInterface

    config = model.config
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    kinds = set(getattr(config, "layer_types", None) or ())
    if getattr(config, "attn_logit_softcapping", None) or kinds - {"full_attention"}:
        return False
    if window and kinds != {"full_attention"}:
        return False
    AttentionInterface.register("socratic_grouped", _grouped_attention)
    model.set_attn_implementation("socratic_grouped")
    return bool(config._attn_implementation == "socratic_grouped")


def _grouped_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Masked attention in which the query heads of a group share keys and values without copying them.

    query [rows, heads, width, size]; key, value [rows, groups, length, size]; mask bool [rows, 1, width, length], or
    None for a causal one.
    """
    import torch

    rows, heads, width, size = query.shape
    groups = key.shape[1]
    grouped = query.reshape(rows, groups, heads // groups * width, size)
    scores = torch.matmul(grouped, key.transpose(2, 3)).float() * (scaling if scaling is not None else size**-0.5)
    scores = scores.view(rows, groups, heads // groups, width, -1)
    if attention_mask is None:  # a plain forward pass, as in training between two evaluations
        attention_mask = scores.new_ones(scores.shape[-2:]).tril(scores.shape[-1] - width).bool()[None, None]
    scores = scores.masked_fill(~attention_mask[:, :, None], torch.finfo(torch.float32).min)
    weights = scores.softmax(-1).to(value.dtype).view(rows, groups, heads // groups * width, -1)
    out = torch.matmul(weights, value).view(rows, heads, width, size)
    return out.transpose(1, 2).contiguous(), None
