"""Small architectures trained from nothing, with a tokenizer trained on the same chains: ``scratch:NAME``."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

from socratic.types import UserError

SCRATCH = ("gpt2-tiny", "llama-tiny", "t5-tiny")
_VOCABULARY = 2_000
_WIDTH, _LAYERS, _HEADS, _POSITIONS = 192, 4, 6, 1024


def train_tokenizer(texts: Iterable[str], vocabulary: int = _VOCABULARY) -> Any:
    """A sentencepiece unigram tokenizer: digits apart, bytes for unknown characters, no dummy prefix, newline kept.

    Returned as a fast transformers tokenizer that gives every text back exactly (but for U+2581, its own space mark).
    """
    import sentencepiece
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    buffer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=buffer,
        model_type="unigram",
        vocab_size=vocabulary,
        hard_vocab_limit=False,
        split_digits=True,
        byte_fallback=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        user_defined_symbols=["\n", "<<", ">>"],
        bos_id=-1,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        minloglevel=2,
    )
    trained = sentencepiece.SentencePieceProcessor(model_proto=buffer.getvalue())
    pieces = [(trained.id_to_piece(i), trained.get_score(i)) for i in range(trained.get_piece_size())]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in ("<pad>", "</s>", "<unk>")])
    fast: Any = PreTrainedTokenizerFast
    return fast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def build(name: str, tokenizer: Any) -> Any:
    """A randomly initialised model of about 2 million parameters; draws from torch's global generator.

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
    if name == "llama-tiny":
        llama = hf.LlamaConfig(
            hidden_size=_WIDTH,
            intermediate_size=3 * _WIDTH,
            num_hidden_layers=_LAYERS,
            num_attention_heads=_HEADS,
            num_key_value_heads=_HEADS // 3,
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
