"""A local model's token probabilities over chains that are written already, as targets for students.

The model reads some solved problems, the problem, and then the chain itself, whoever wrote it. (Fu et al. 2301.12726
take the probabilities of the model that wrote the chains, which an endpoint gives with its replies.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from socratic.calculator import canonicalise
from socratic.lm.checkpoint import is_checkpoint
from socratic.lm.load import ENDPOINT, Pretrained, load_pretrained, load_student, local_folder
from socratic.prompts import TeacherPrompt, render_problem
from socratic.store import JsonlAppender, hash_json, lock, read_records
from socratic.targets import TOKENS, kept_tokens
from socratic.tokens import Codec
from socratic.types import Chain, UserError

_MOST_TOKENS_OF_A_CHARACTER = 4


def load_teacher(name: str, dtype: Any) -> Pretrained:
    """The MODEL, an adapter merged, that is to read; raises `UserError` for an encoder-decoder."""
    if name.startswith(ENDPOINT):
        raise UserError(
            f"{name} is an endpoint, which does not say how likely given words are; name a model that runs here"
        )
    student = local_folder(name)
    teacher = load_student(student, dtype)[0] if is_checkpoint(student) else load_pretrained(name, dtype)
    if teacher.model.config.is_encoder_decoder:
        raise UserError(f"{name} is an encoder-decoder, which does not read on from a text; give a decoder")
    return teacher


def soften(chains: Iterable[Chain], model: Any, codec: Codec, prompt: TeacherPrompt, top: int) -> Iterator[Chain]:
    """``chains`` with the ``top`` likeliest tokens of ``model`` at each place of their text, as ``prompt`` forms it.

    ``model`` is a transformers causal model. A chain that does not fit into its positions comes back as it was.
    """
    solved = [f"{_read(example)}{prompt.reply(example, 'text')}\n\n" for example in prompt.examples]
    limit = getattr(model.config, "max_position_embeddings", None)
    for chain in chains:
        steps = tuple(replace(s, question=s.question.strip(), answer=canonicalise(s.answer)) for s in chain.steps)
        given, reply = (
            codec.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
            for text in ("".join(solved) + _read(chain), prompt.reply(replace(chain, steps=steps), "text"))
        )
        given = [*codec.bos, *given]
        if limit is not None and len(given) + len(reply) > limit:
            yield replace(chain, metadata={k: v for k, v in chain.metadata.items() if k != TOKENS})
            continue
        tokens = kept_tokens(list(_spelt(reply, _likeliest(model, given, reply, top), codec)))
        yield replace(chain, metadata={**chain.metadata, TOKENS: tokens})


def soften_kept(
    beside: Path,
    chains: Sequence[Chain],
    teacher: Pretrained,
    prompt: TeacherPrompt,
    top: int,
    on_chain: Callable[[int], None] = lambda done: None,
) -> tuple[list[Chain], Path]:
    """`soften`, kept as it goes in a ``.part`` folder beside ``beside``, and that folder, which the caller may remove.

    The same call goes on where it was interrupted; ``on_chain`` is told how many chains are done. Raises `UserError`
    where another process is at it.
    """
    base, given = teacher.base, [chain.to_json() for chain in chains]
    reader = [base.location, base.sha256, str(teacher.model.dtype), teacher.tokenizer.get_vocab()]
    part = beside.with_name(f"{beside.name}.{hash_json([reader, prompt.texts, top, given])[:8]}.part")
    file, codec = part / "read.jsonl", Codec(teacher.tokenizer)
    with lock(part):
        made = list(read_records(file, Chain, allow_torn_tail=True)) if file.is_file() else []
        with JsonlAppender(file) as kept:
            for chain in soften(chains[len(made) :], teacher.model.eval(), codec, prompt, top):
                kept.append(chain.to_json())
                made.append(chain)
                on_chain(len(made))
    return made, part


def _read(chain: Chain) -> str:
    return f"{render_problem(chain.problem())}\n"


def _likeliest(model: Any, given: list[int], reply: list[int], top: int) -> list[list[tuple[int, float]]]:
    """For each token of ``reply`` behind ``given`` the likeliest ones in its place, with their log probabilities."""
    import torch

    with torch.inference_mode():
        ids = torch.tensor([given + reply], device=model.device)
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=len(reply) + 1).logits[0, :-1]
        found = logits.float().log_softmax(-1).topk(min(top, logits.shape[-1]))
    rows = zip(found.indices.tolist(), found.values.tolist(), strict=True)
    return [list(zip(tokens, logprobs, strict=True)) for tokens, logprobs in rows]


def _spelt(
    reply: Sequence[int], likeliest: Sequence[Sequence[tuple[int, float]]], codec: Codec
) -> Iterator[tuple[str, list[tuple[str, float]]]]:
    """The tokens as text; those that spell a character together are one, without candidates."""
    pieces = {token: piece for piece, token in codec.ids_of_pieces.items()}
    place = 0
    while place < len(reply):
        if (piece := pieces.get(reply[place])) is not None:
            yield piece, [(pieces[token], logprob) for token, logprob in likeliest[place] if token in pieces]
            place += 1
            continue
        length = 1
        while "\ufffd" in codec.decode(reply[place : place + length]) and length < _MOST_TOKENS_OF_A_CHARACTER:
            length += 1
        yield codec.decode(reply[place : place + length]), []
        place += length
