"""Chain -> training examples: token ids and the label mask.

Causal models get **one example per problem**: one causal pass with several learned segments is exactly the sum over the
per-slot examples, since segments are tokenised alone. Encoder-decoders get one example per learned slot: the encoder
reads all ids so far, END included, and the decoder writes the slot.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from socratic.calculator import canonicalise
from socratic.prompts import TRANSCRIPT, Format, learned_text, render_chain
from socratic.tokens import Codec
from socratic.types import Chain, Example, QGSees, Role

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode(
    chain: Chain, role: Role, tokenizer: PreTrainedTokenizerBase, qg_sees: QGSees = "answers"
) -> tuple[list[int], list[bool]]:
    """One causal training sample of ``chain`` for ``role``: its ids, and for each whether it is learned (equal length).

    Learned are exactly the texts of the role's slots, each with its END; the problem and all markers are given.
    """
    example = causal_example(chain, role, Codec(tokenizer), qg_sees)
    return list(example.ids), list(example.learned)


def causal_example(
    chain: Chain, role: Role, codec: Codec, qg_sees: QGSees = "answers", format: Format = TRANSCRIPT
) -> Example:
    """The one example of a causal model for this chain; see `encode`."""
    ids, learned = [], []
    for segment, is_learned in _segments(chain, role, codec, qg_sees, format):
        ids += segment
        learned += [is_learned] * len(segment)
    return Example(chain.problem_id, tuple(ids), tuple(learned))


def slot_examples(
    chain: Chain, role: Role, codec: Codec, qg_sees: QGSees = "answers", format: Format = TRANSCRIPT
) -> Iterator[Example]:
    """One example per learned slot: ``source`` is everything before it, marker included; ``ids`` the slot and END."""
    source: list[int] = []
    for segment, is_learned in _segments(chain, role, codec, qg_sees, format):
        if is_learned:
            yield Example(chain.problem_id, tuple(segment), (True,) * len(segment), tuple(source))
        source += segment


def build_examples(
    chains: Iterable[Chain],
    role: Role,
    codec: Codec,
    qg_sees: QGSees = "answers",
    encoder_decoder: bool = False,
    format: Format = TRANSCRIPT,
) -> list[Example]:
    """The training examples of many chains for one role, in order."""
    if encoder_decoder:
        return [example for chain in chains for example in slot_examples(chain, role, codec, qg_sees, format)]
    return [causal_example(chain, role, codec, qg_sees, format) for chain in chains]


def pack(examples: Sequence[Example]) -> bytes:
    """Many examples in little room; `unpack` gives them back equal."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        names=np.array([e.problem_id for e in examples]),
        ids=np.array([i for e in examples for i in e.ids], dtype=np.int32),
        learned=np.array([b for e in examples for b in e.learned], dtype=bool),
        source=np.array([i for e in examples for i in e.source], dtype=np.int32),
        ends=np.cumsum([(len(e.ids), len(e.source)) for e in examples], axis=0).reshape(-1, 2),
    )
    return buffer.getvalue()


def unpack(data: bytes) -> list[Example]:
    """What `pack` was given; raises `ValueError` for anything else."""
    try:
        held = dict(np.load(io.BytesIO(data)))
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(str(error)) from None
    if held.keys() != {"names", "ids", "learned", "source", "ends"}:
        raise ValueError(f"no examples but {sorted(held)}")
    ends = held["ends"]
    ids, learned, source = (
        [tuple(part.tolist()) for part in np.split(held[name], ends[:-1, column])]
        for name, column in (("ids", 0), ("learned", 0), ("source", 1))
    )
    names = held["names"].tolist()
    return [Example(*fields) for fields in zip(names, ids, learned, source, strict=True)]


def _segments(
    chain: Chain, role: Role, codec: Codec, qg_sees: QGSees, format: Format
) -> Iterator[tuple[list[int], bool]]:
    text, slots = render_chain(chain, role, qg_sees, format)
    yield codec.problem(text, format), False
    for slot in slots:
        yield codec.marker(slot.kind, format), False
        yield codec.slot(learned_text(canonicalise(slot.text))), slot.learned
