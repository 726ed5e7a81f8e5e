"""Chain -> training examples: token ids and the label mask.

Causal models get **one example per problem**: one causal pass with several learned segments is exactly the sum over the
per-slot examples, since segments are tokenised alone. Encoder-decoders get one example per learned slot: the encoder
reads all ids so far, END included, and the decoder writes the slot.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from socratic.calculator import canonicalise
from socratic.prompts import learned_text, render_chain
from socratic.targets import TeacherText
from socratic.tokens import Codec
from socratic.types import Candidates, Chain, Example, Guidance, QGSees, Role, UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode(
    chain: Chain,
    role: Role,
    tokenizer: PreTrainedTokenizerBase,
    qg_sees: QGSees = "answers",
    guidance: Guidance = "none",
) -> tuple[list[int], list[bool]]:
    """One causal training sample of ``chain`` for ``role``: its ids, and for each whether it is learned (equal length).

    Learned are exactly the texts of the role's slots, each with its END; the problem and all markers are given.
    """
    example = causal_example(chain, role, Codec(tokenizer), qg_sees, guidance)
    return list(example.ids), list(example.learned)


def causal_example(
    chain: Chain, role: Role, codec: Codec, qg_sees: QGSees = "answers", guidance: Guidance = "none"
) -> Example:
    """The one example of a causal model for this chain; see `encode`."""
    ids: list[int] = []
    learned: list[bool] = []
    targets: list[Candidates] = []
    for segment, is_learned, soft in _segments(chain, role, codec, qg_sees, guidance):
        ids += segment
        learned += [is_learned] * len(segment)
        targets += soft
    return Example(chain.problem_id, tuple(ids), tuple(learned), (), _weight(chain), _some(targets))


def slot_examples(
    chain: Chain, role: Role, codec: Codec, qg_sees: QGSees = "answers", guidance: Guidance = "none"
) -> Iterator[Example]:
    """One example per learned slot: ``source`` is everything before it, marker included; ``ids`` the slot and END."""
    source: list[int] = []
    for segment, is_learned, soft in _segments(chain, role, codec, qg_sees, guidance):
        if is_learned:
            learned = (True,) * len(segment)
            yield Example(chain.problem_id, tuple(segment), learned, tuple(source), _weight(chain), _some(soft))
        source += segment


def build_examples(
    chains: Iterable[Chain],
    role: Role,
    codec: Codec,
    qg_sees: QGSees = "answers",
    encoder_decoder: bool = False,
    guidance: Guidance = "none",
) -> list[Example]:
    """The training examples of many chains for one role, in order."""
    if encoder_decoder:
        return [example for chain in chains for example in slot_examples(chain, role, codec, qg_sees, guidance)]
    return [causal_example(chain, role, codec, qg_sees, guidance) for chain in chains]


def pack(examples: Sequence[Example]) -> bytes:
    """Many examples in little room; `unpack` gives them back equal."""
    buffer = io.BytesIO()
    targets = [t for e in examples for t in e.targets or ((),) * len(e.ids)] if any(e.targets for e in examples) else []
    np.savez(
        buffer,
        names=np.array([e.problem_id for e in examples]),
        ids=np.array([i for e in examples for i in e.ids], dtype=np.int32),
        learned=np.array([b for e in examples for b in e.learned], dtype=bool),
        source=np.array([i for e in examples for i in e.source], dtype=np.int32),
        ends=np.cumsum([(len(e.ids), len(e.source)) for e in examples], axis=0).reshape(-1, 2),
        weights=np.array([e.weight for e in examples], dtype=np.float64),
        widths=np.array([len(t) for t in targets], dtype=np.int32),
        candidates=np.array([i for t in targets for i, _ in t], dtype=np.int32),
        chances=np.array([p for t in targets for _, p in t], dtype=np.float64),
    )
    return buffer.getvalue()


def unpack(data: bytes) -> list[Example]:
    """What `pack` was given; raises `ValueError` for anything else."""
    try:
        held = dict(np.load(io.BytesIO(data)))
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(str(error)) from None
    if held.keys() != {"names", "ids", "learned", "source", "ends", "weights", "widths", "candidates", "chances"}:
        raise ValueError(f"no examples but {sorted(held)}")
    ends = held["ends"]
    ids, learned, source = (
        [tuple(part.tolist()) for part in np.split(held[name], ends[:-1, column])]
        for name, column in (("ids", 0), ("learned", 0), ("source", 1))
    )
    names, weights = held["names"].tolist(), held["weights"].tolist()
    flat = zip(held["candidates"].tolist(), held["chances"].tolist(), strict=True)
    all_targets = [tuple(islice(flat, width)) for width in held["widths"].tolist()]
    starts = [0, *ends[:-1, 0].tolist()]
    targets = [_some(all_targets[start:end]) for start, end in zip(starts, ends[:, 0].tolist(), strict=True)]
    return [Example(*fields) for fields in zip(names, ids, learned, source, weights, targets, strict=True)]


def _some(targets: Sequence[Candidates]) -> tuple[Candidates, ...]:
    """``targets``, or () where no place has any."""
    return tuple(targets) if any(targets) else ()


def _weight(chain: Chain) -> float:
    weight = chain.metadata.get("weight", 1.0)
    if type(weight) not in (int, float) or not 0 <= weight < math.inf:
        raise UserError(
            f"the chain of {chain.problem_id} has the weight {weight!r:.60}; give it a finite number of at least 0"
        )
    return float(weight)


def _segments(
    chain: Chain, role: Role, codec: Codec, qg_sees: QGSees, guidance: Guidance
) -> Iterator[tuple[list[int], bool, Sequence[Candidates]]]:
    """Ids, whether they are learned, and their targets, ``()`` at each place of a chain without a teacher's tokens."""
    given, slots = render_chain(chain, role, qg_sees, guidance)
    teacher = TeacherText(chain)
    problem = codec.problem(given)
    yield problem, False, ((),) * len(problem)
    for slot in slots:
        marker = codec.marker(slot.kind)
        yield marker, False, ((),) * len(marker)
        text = learned_text(canonicalise(slot.text))
        ids = codec.slot(text)
        said = slot.kind in ("question", "answer")  # the program asks for the others
        yield ids, slot.learned, (*teacher.targets(text, ids[:-1], codec), ()) if said else ((),) * len(ids)
