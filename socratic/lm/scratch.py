"""Small architectures trained from nothing, with a tokenizer trained on the same chains: ``scratch:NAME``."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

from socratic.prompts import MARKERS
from socratic.types import UserError

_LLAMA = {"llama-tiny": (192, 576, 6, 2), "llama-mini": (128, 480, 4, 2), "llama-micro": (96, 288, 3, 1)}
"""Width, width inside the gated layer, heads, heads of keys; a `micro` has half the parameters of a `mini`."""
SCRATCH = ("gpt2-tiny", *_LLAMA, "t5-tiny")
_VOCABULARY = 1_000
_WIDTH, _LAYERS, _HEADS, _POSITIONS = 192, 4, 6, 1024


def train_tokenizer(texts: Iterable[str], vocabulary: int = _VOCABULARY) -> Any:
    """A sentencepiece BPE tokenizer: digits apart, bytes for unknown characters, no dummy prefix, newline kept.

    The markers of questions, answers and final answers are one token each. Returned as a fast transformers tokenizer
    that gives every text back exactly (but for U+2581, its own space mark).
    """
    import sentencepiece
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    symbols = [MARKERS["question"], MARKERS["answer"], MARKERS["final"], "<<", ">>"]
    buffer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=buffer,
        model_type="bpe",
        vocab_size=vocabulary,
        hard_vocab_limit=False,
        split_digits=True,
        byte_fallback=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        user_defined_symbols=symbols,
        bos_id=-1,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        minloglevel=2,
    )
    trained = sentencepiece.SentencePieceProcessor(model_proto=buffer.getvalue())
    ids = {trained.id_to_piece(i): i for i in range(trained.get_piece_size())}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=_merges(trained, ids), unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in ("<pad>", "</s>", "<unk>")])
    tokenizer.add_tokens([AddedToken(symbol, normalized=False) for symbol in symbols])
    fast: Any = PreTrainedTokenizerFast
    return fast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def _merges(trained: Any, ids: dict[str, int]) -> list[tuple[str, str]]:
    """The merges behind a sentencepiece BPE model's pieces, best first: every way to make a piece of two others."""
    ranked = []
    for piece, i in ids.items():
        if not (trained.is_byte(i) or trained.is_control(i) or trained.is_unknown(i)):
            halves = ((piece[:k], piece[k:]) for k in range(1, len(piece)))
            ranked += [(-trained.get_score(i), i, half) for half in halves if half[0] in ids and half[1] in ids]
    return [half for _, _, half in sorted(ranked)]


def build(name: str, tokenizer: Any) -> Any:
    """A randomly initialised model of half a million to 2 million parameters; draws from torch's global generator.

    Without dropout: in attention it costs a CPU ten times the rest, and models this small do not overfit first.
    Raises `UserError` for an unknown name.
    """
    import transformers

    hf: Any = transformers
    common = {
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if name == "gpt2-tiny":
        shape = {"n_embd": _WIDTH, "n_layer": _LAYERS, "n_head": _HEADS, "n_positions": _POSITIONS}
        gpt2 = hf.GPT2Config(**shape, embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0, bos_token_id=None, **common)
        return hf.GPT2LMHeadModel(gpt2)
    if name in _LLAMA:
        width, inner, heads, key_heads = _LLAMA[name]
        llama = hf.LlamaConfig(
            hidden_size=width,
            intermediate_size=inner,
            num_hidden_layers=_LAYERS,
            num_attention_heads=heads,
            num_key_value_heads=key_heads,
            max_position_embeddings=_POSITIONS,
            tie_word_embeddings=True,
            bos_token_id=None,
            **common,
        )
        return hf.LlamaForCausalLM(llama)
    if name == "t5-tiny":
        t5 = hf.T5Config(
            d_model=_WIDTH,
            d_kv=_WIDTH // _HEADS,
            d_ff=2 * _WIDTH,
            num_layers=_LAYERS // 2 + 1,
            num_heads=_HEADS,
            dropout_rate=0.0,
            decoder_start_token_id=tokenizer.pad_token_id,
            **common,
        )
        return hf.T5ForConditionalGeneration(t5)
    raise UserError(f"unknown student 'scratch:{name}'; there are {', '.join('scratch:' + n for n in SCRATCH)}")
