"""A trained student as one GGUF file, for llama.cpp and what is built on it.

The tensors and keys are those that llama.cpp's own converter writes; beside them stand the student's card, its config
and its whole tokenizer, so that `socratic.lm.load` reads the file back as the student it was.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from socratic.lm.checkpoint import check_is_student
from socratic.lm.load import CARD_KEY, CONFIG_KEY, load_student
from socratic.store import replacing
from socratic.tokens import Codec
from socratic.types import UserError

if TYPE_CHECKING:
    import torch
    from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter

ExportDtype = Literal["f16", "bf16", "f32"]

_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLITS = {
    "ByteLevel": "gpt-2",
    "Digits, ByteLevel": "smollm",
    f"{_LLAMA3_SPLIT}, bytes": "llama-bpe",
    f"{_LLAMA3_SPLIT.replace('{1,3}', '')}, bytes": "qwen2",
}
"""What llama.cpp calls a way to split a text before its merges; `_split` says it in these words."""


def export_gguf(student: Path, out: Path, dtype: str = "f16") -> None:
    """Write the trained student in the folder ``student`` as the GGUF file ``out``, an adapter merged into its base.

    ``dtype`` is of the matrices; vectors are always fp32. Raises `UserError` for a folder that is no student, and for a
    model or tokenizer that GGUF, or llama.cpp, has no words for.
    """
    import gguf
    import torch

    from socratic.lm.dense import unsupported

    check_is_student(student)
    if dtype not in get_args(ExportDtype):
        raise UserError(f"unknown dtype {dtype!r}; use {', '.join(get_args(ExportDtype))}")
    if out.suffix != ".gguf":
        raise UserError(f"{out} would not be found to be a GGUF file; give a name that ends in .gguf")
    pretrained, card = load_student(student, torch.float32)
    model, tokenizer = pretrained.model, pretrained.tokenizer
    if reason := unsupported(model):
        raise UserError(f"{student} cannot be written as GGUF: {reason}; GPT-2, Llama and Qwen types can")
    with replacing(out) as temporary:
        writer = gguf.GGUFWriter(temporary, model.config.model_type)
        writer.add_name(student.name)
        _add_shape(writer, model.config)
        _add_tokenizer(writer, Codec(tokenizer), model.config.vocab_size, student.name)
        writer.add_string(CARD_KEY, card.model_copy(update={"adapter": False}).model_dump_json())
        writer.add_string(CONFIG_KEY, model.config.to_json_string(use_diff=False))
        kind = gguf.GGMLQuantizationType[dtype.upper()]
        writer.add_file_type(gguf.LlamaFileType[f"{'ALL' if dtype == 'f32' else 'MOSTLY'}_{dtype.upper()}"])
        _add_tensors(writer, model, kind, student.name)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _add_shape(writer: GGUFWriter, config: Any) -> None:
    """The sizes, under the names that all types share in transformers."""
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    if config.model_type == "gpt2":
        writer.add_feed_forward_length(config.n_inner or 4 * config.hidden_size)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])


def _add_tokenizer(writer: GGUFWriter, codec: Codec, size: int, name: str) -> None:
    """Tokens, their kinds, and merges or scores; ``size`` is the number of embeddings, often more than of tokens."""
    from gguf import Keys, TokenType

    text = codec.tokenizer.backend_tokenizer.to_str()
    spec = json.loads(text)
    split = _split(spec)
    if spec["model"]["type"] != "BPE" or split not in {*_SPLITS, "Metaspace"}:
        raise UserError(f"{name} cannot be written as GGUF: llama.cpp has no name for how its tokenizer splits a text")
    names = {i: token for token, i in codec.tokenizer.get_vocab().items()}
    tokens = [names.get(i, f"[PAD{i}]") for i in range(size)]
    kinds = [TokenType.NORMAL if i in names else TokenType.UNUSED for i in range(size)]
    for added in spec["added_tokens"]:
        kinds[added["id"]] = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
    merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in spec["model"]["merges"]]
    if split == "Metaspace":
        for byte in range(256):
            kinds[spec["model"]["vocab"][f"<0x{byte:02X}>"]] = TokenType.BYTE
        best: dict[str, int] = {}
        for rank, pair in enumerate(merges, start=1):
            best.setdefault("".join(pair), rank)
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_scores([-float(best.get(token, 0)) for token in tokens])
        writer.add_add_space_prefix(False)
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(_SPLITS[split])
        writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_add_bos_token(bool(codec.bos))
    writer.add_eos_token_id(codec.end_id)
    for role, key in (
        ("bos", writer.add_bos_token_id),
        ("unk", writer.add_unk_token_id),
        ("pad", writer.add_pad_token_id),
    ):
        if (special := getattr(codec.tokenizer, f"{role}_token_id")) is not None:
            key(special)
    writer.add_string(Keys.Tokenizer.HF_JSON, text)


def _split(spec: dict[str, Any]) -> str | None:
    """How a tokenizer of ``tokenizers`` splits a text before its merges, in the words of `_SPLITS`."""
    before = spec["pre_tokenizer"] or {"type": "none"}
    steps = before["pretokenizers"] if before["type"] == "Sequence" else [before]
    said = []
    for step in steps:
        match step:
            case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}:
                said.append("ByteLevel")
            case {"type": "ByteLevel", "add_prefix_space": False}:
                said.append("bytes")
            case {"type": "Digits", "individual_digits": True}:
                said.append("Digits")
            case {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}:
                said.append(pattern)
            case {"type": "Metaspace", "prepend_scheme": "never", "split": False} if spec["model"]["byte_fallback"]:
                said.append("Metaspace")
            case _:
                return None
    return ", ".join(said) if (spec["normalizer"] or {"type": "NFC"})["type"] == "NFC" else None


def read_model(reader: GGUFReader, dtype: Any) -> Any:
    """The model in a file that `export_gguf` wrote, with the config it had; raises `KeyError` for a missing tensor."""
    import gguf
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(**json.loads(reader.fields[CONFIG_KEY].contents()))
    auto: Any = AutoModelForCausalLM
    model = auto.from_config(config, dtype=dtype)
    kept = {tensor.name: tensor for tensor in reader.tensors}
    state = {}
    for key, called in _tensor_names(model).items():
        weight = torch.tensor(gguf.quants.dequantize(kept[called].data, kept[called].tensor_type))
        state[key] = _turned(weight, called, config, back=True)
    model.load_state_dict(state, strict=False)  # without what is tied
    model.tie_weights()
    return model


def _tensor_names(model: Any) -> dict[str, str]:
    """Every weight's name in transformers, and in GGUF; the head is left out where it is the embedding."""
    import gguf

    config = model.config
    arch = {kind: key for key, kind in gguf.MODEL_ARCH_NAMES.items()}[config.model_type]
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    keys = [key for key in model.state_dict() if not (config.tie_word_embeddings and key == "lm_head.weight")]
    found: dict[str, str | None] = {key: names.get_name(key, (".weight", ".bias")) for key in keys}
    assert None not in found.values(), found
    return {key: str(name) for key, name in found.items()}


def _add_tensors(writer: GGUFWriter, model: Any, dtype: GGMLQuantizationType, name: str) -> None:
    import gguf

    config, state = model.config, model.state_dict()
    tensors = {called: _turned(state[key].float(), called, config) for key, called in _tensor_names(model).items()}
    if config.model_type != "gpt2" and (factors := _rope_factors(model, name)) is not None:
        tensors["rope_freqs.weight"] = factors
    for called, weight in tensors.items():
        array = weight.contiguous().numpy()
        plain = array.ndim == 1 or called.startswith("position_embd")  # as llama.cpp wants them
        kind = gguf.GGMLQuantizationType.F32 if plain else dtype
        writer.add_tensor(called, gguf.quants.quantize(array, kind), raw_dtype=kind)


def _turned(weight: torch.Tensor, name: str, config: Any, back: bool = False) -> torch.Tensor:
    """A weight as GGUF keeps it, or ``back``: GPT-2's turned, and in Llama a rotated pair's halves side by side."""
    part = name.split(".")[-2]
    if config.model_type == "gpt2" and part in ("attn_qkv", "attn_output", "ffn_up", "ffn_down"):
        return weight.T if weight.ndim == 2 else weight
    if config.model_type == "llama" and part in ("attn_q", "attn_k"):
        heads = config.num_attention_heads if part == "attn_q" else config.num_key_value_heads
        halves = (heads, -1, 2) if back else (heads, 2, -1)
        return weight.view(*halves, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)
    return weight


def _rope_factors(model: Any, name: str) -> torch.Tensor | None:
    """What each rotary frequency is divided by [head size / 2], as Llama 3 does; None where none is changed."""
    import torch

    rotary = model.model.rotary_emb
    size = 2 * len(rotary.inv_freq)
    base = model.config.rope_parameters["rope_theta"] ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)
    factors: torch.Tensor = (base / rotary.inv_freq.double()).float()
    if torch.allclose(factors, torch.ones(())) and rotary.attention_scaling == 1:
        return None
    if model.config.model_type != "llama" or rotary.attention_scaling != 1:
        raise UserError(
            f"{name} cannot be written as GGUF: llama.cpp does not know its rotary embedding of type {rotary.rope_type}"
        )
    return factors
