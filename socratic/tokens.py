"""A tokenizer as the transcript needs it: segments tokenised alone, marks cut out, END by id, exact text back.

Segments are tokenised one by one and their ids concatenated, so that a model that wrote a segment token by token and
one that reads it as text agree wherever the tokenizer is exact, and a KV cache stays valid as the transcript grows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from socratic.calculator import cut
from socratic.prompts import TRANSCRIPT, VERDICTS, Format, SlotKind
from socratic.types import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_EXACT = ("\nQ:", "\nA:", "\n####", " 48/2=<<48/2=", "24>>", "24 clips {a} < b\n  c", " Zoë's ½ – 5€")
_PLAIN = ("Problem: Ann has 48 clips.", "Q:", "A:", "####", "48/2=", "24 clips, 3.50 and 70,000")
_SUBSTITUTES = (("<<", "[["), (">>", "]]"), ("\n", " | "), ("{", "("), ("}", ")"), ("<", "less than"))
_RESTORED = ("<<", ">>", "\n")


class Codec:
    """Ids of transcript segments and back.

    ``end_id`` is the model's end token (END); ``special_ids`` all others that text never holds. ``exact``: every
    piece of text comes back from its ids unchanged. Where it does not (metaspace tokenizers, T5's vocabulary without
    newline and ``<``), ``substitutions`` are applied before tokenising, texts are not cut at calculator marks, and the
    calculator is off. A tokenizer that loses plain digits or letters even so is refused with `UserError`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer: Any = tokenizer
        name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        if tokenizer.eos_token_id is None:
            raise UserError(f"the tokenizer of {name} has no end token; set its eos_token")
        self.end_id: int = int(tokenizer.eos_token_id)
        self.end_text: str = str(tokenizer.eos_token)
        added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        self.special_ids: frozenset[int] = frozenset((added | set(tokenizer.all_special_ids)) - {self.end_id})
        first = tokenizer("x").input_ids[:1]
        self.bos: tuple[int, ...] = tuple(first) if first == [tokenizer.bos_token_id] else ()
        self._ids = lru_cache(maxsize=200_000)(self._tokenize)
        self._equals: dict[int, bool] = {}
        self.substitutions: dict[str, str] = {}
        runs = [(piece,) for piece in _EXACT] + [_EXACT]  # alone and in a row: a dummy prefix shows only in the latter
        self.exact = all(self._raw_decode([i for p in run for i in self._ids(p)]) == "".join(run) for run in runs)
        if not self.exact:
            self.substitutions = {old: new for old, new in _SUBSTITUTES if not self.returns(f"a{old}b")}
            for piece in (*_PLAIN, *self.substitutions.values()):
                if not self.returns(piece):
                    raise UserError(
                        f"the tokenizer of {name} does not give back the text {piece!r}; use another student"
                    )

    def problem(self, text: str, format: Format = TRANSCRIPT) -> list[int]:
        """Ids of the format's opening and the first segment; never cut."""
        return [*self.opening(format), *self._ids(self._substitute(text)), *([self.end_id] if format.ends else [])]

    def opening(self, format: Format) -> list[int]:
        """Ids of what stands before every problem, BOS in front where the tokenizer puts one."""
        return [*self.bos, *self._ids(self._substitute(format.opening))]

    def marker(self, kind: SlotKind, format: Format = TRANSCRIPT) -> list[int]:
        """Ids of a slot's marker, always ingested, never learned."""
        return list(self._ids(self._substitute(format.markers[kind])))

    def slot(self, text: str) -> list[int]:
        """Ids of a slot's text as it stands, and END; ``""`` gives END alone."""
        return [*self.text(text), self.end_id]

    def text(self, text: str) -> list[int]:
        """Ids of learned text, cut behind every ``<<expr=`` and ``result>>`` where the tokenizer is exact."""
        pieces = cut(text) if self.exact else [self._substitute(text.strip())]
        return [i for piece in pieces if piece for i in self._ids(piece)]

    def verdict(self, right: bool) -> int:
        """The one token that says whether something is right: the first in which the two words differ."""
        said, other = (self._ids(self._substitute(VERDICTS[word])) for word in (right, not right))
        return next(mine for mine, theirs in zip(said, other, strict=False) if mine != theirs)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids (END not among them); incomplete bytes come out as U+FFFD."""
        text = self._raw_decode(ids)
        for original in _RESTORED:
            if original in self.substitutions:
                text = text.replace(self.substitutions[original], original)
        return text

    def piece(self, token: int) -> str:
        """The text of one token, as it stands in a longer text; U+FFFD where it is but a part of a character."""
        if self.exact:
            return self._raw_decode([token])
        return str(self.tokenizer.convert_ids_to_tokens(token)).replace("▁", " ")

    @cached_property
    def ids_of_pieces(self) -> dict[str, int]:
        """Every token that is text of its own, by that text."""
        tokens = set(range(len(self.tokenizer))) - self.special_ids - {self.end_id}
        return {piece: token for token in sorted(tokens, reverse=True) if "\ufffd" not in (piece := self.piece(token))}

    def has_equals(self, token: int) -> bool:
        """Whether a token's text holds ``=``: only then can a slot's text have come to end in ``<<expr=``."""
        if token not in self._equals:
            self._equals[token] = "=" in self._raw_decode([token])
        return self._equals[token]

    def returns(self, text: str) -> bool:
        """Whether text comes back but for the amount of white space."""
        return self._raw_decode(self._ids(text)).split() == text.split() if "\n" not in text else False

    def _tokenize(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids)

    def _raw_decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _substitute(self, text: str) -> str:
        for old, new in self.substitutions.items():
            text = text.replace(old, new)
        return text
