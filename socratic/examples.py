"""Chain -> training examples: token ids and the label mask.

Causal models get **one example per problem**: one causal pass with several learned segments is exactly the sum over the
per-slot examples, since segments are tokenised alone. Encoder-decoders get one example per learned slot: the encoder
reads all ids so far, END included, and the decoder writes the slot.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from socratic.calculator import canonicalise
from socratic.prompts import TRANSCRIPT, Format, learned_text, render_chain
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

    Learned are exactly the texts of the role's slots, each with its END; the problem and all markers are given. A
    verifier's verdicts are not among the ids: `causal_example` has them.
    """
    example = causal_example(chain, role, Codec(tokenizer), qg_sees, guidance)
    return list(example.ids), list(example.learned)


def causal_example(
    chain: Chain,
    role: Role,
    codec: Codec,
    qg_sees: QGSees = "answers",
    guidance: Guidance = "none",
    format: Format = TRANSCRIPT,
) -> Example:
    """The one example of a causal model for this chain; see `encode`."""
    ids: list[int] = []
    learned: list[bool] = []
    targets: list[Candidates] = []
    verdicts: dict[int, int] = {}
    for segment in _segments(chain, role, codec, qg_sees, guidance, format):
        if segment.is_verdict:
            verdicts[len(ids)] = segment.ids[0]
            continue
        ids += segment.ids
        learned += [segment.learned] * len(segment.ids)
        targets += segment.targets or ((),) * len(segment.ids)
    if len(ids) in verdicts:  # behind the last slot stands nothing whose place it could take
        ids.append(verdicts[len(ids)])
        learned.append(True)
        targets.append(())
    labels = list(ids) if verdicts else []
    for place, token in verdicts.items():
        labels[place], learned[place] = token, True
    return Example(
        chain.problem_id, tuple(ids), tuple(learned), (), _weight(chain), _some(targets), labels=tuple(labels)
    )


def slot_examples(
    chain: Chain,
    role: Role,
    codec: Codec,
    qg_sees: QGSees = "answers",
    guidance: Guidance = "none",
    format: Format = TRANSCRIPT,
) -> Iterator[Example]:
    """One example per learned slot: ``source`` is everything before it, marker included; ``ids`` the slot and END."""
    source: list[int] = []
    for segment in _segments(chain, role, codec, qg_sees, guidance, format):
        ids = segment.ids
        if segment.learned:
            soft = _some(segment.targets)
            yield Example(chain.problem_id, tuple(ids), (True,) * len(ids), tuple(source), _weight(chain), soft)
        if not segment.is_verdict:
            source += ids


def build_examples(
    chains: Iterable[Chain],
    role: Role,
    codec: Codec,
    qg_sees: QGSees = "answers",
    encoder_decoder: bool = False,
    guidance: Guidance = "none",
    format: Format = TRANSCRIPT,
) -> list[Example]:
    """The training examples of many chains for one role, in order."""
    how = (role, codec, qg_sees, guidance, format)
    if encoder_decoder:
        return [example for chain in chains for example in slot_examples(chain, *how)]
    return [causal_example(chain, *how) for chain in chains]


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


@dataclass(frozen=True)
class _Segment:
    """A piece of the transcript; ``targets`` are a teacher's for each of ``ids``, or empty.

    A verdict is learned behind what it is said of, and does not stay in the transcript.
    """

    ids: list[int]
    learned: bool
    targets: Sequence[Candidates] = ()
    is_verdict: bool = False


def _segments(
    chain: Chain, role: Role, codec: Codec, qg_sees: QGSees, guidance: Guidance, format: Format
) -> Iterator[_Segment]:
    given, slots = render_chain(chain, role, qg_sees, guidance, format)
    teacher = TeacherText(chain)
    yield _Segment(codec.problem(given, format), learned=False)
    for slot in slots:
        yield _Segment(codec.marker(slot.kind, format), learned=False)
        text = learned_text(canonicalise(slot.text))
        ids = codec.slot(text)
        said = slot.kind in ("question", "answer")  # the program asks for the others
        yield _Segment(ids, slot.learned, (*teacher.targets(text, ids[:-1], codec), ()) if said else ())
        if slot.verdict is not None:
            yield _Segment([codec.verdict(slot.verdict)], learned=True, is_verdict=True)
