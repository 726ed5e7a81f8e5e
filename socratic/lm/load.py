"""``MODEL`` -> a model: a Hub id, a folder, a ``.gguf`` file, a trained student, or an endpoint."""

from __future__ import annotations

import json
import logging
import platform
import tempfile
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from socratic.lm.base import LM
from socratic.lm.bases import SOURCES, find_base, is_hub_id, kept_folder
from socratic.lm.checkpoint import (
    CARD,
    Base,
    Card,
    check_end,
    check_is_student,
    is_checkpoint,
    parse_card,
    read_card,
    save_student,
)
from socratic.prompts import FORMATS
from socratic.store import check_manifest, hash_file, hash_json
from socratic.tokens import Codec
from socratic.types import UserError

ENDPOINT = "openai:"
CARD_KEY, CONFIG_KEY = "socratic.card", "socratic.config"
"""Where an exported GGUF file keeps the student's card and its config."""


@dataclass
class Pretrained:
    """A dense model with its tokenizer, and where they came from; ``card`` is that of an exported student."""

    model: Any
    tokenizer: Any
    base: Base
    card: Card | None = None


def endpoint(model: str) -> tuple[str, str | None]:
    """NAME and URL, if any, of ``openai:NAME[@URL]``."""
    name, _, url = model.removeprefix(ENDPOINT).partition("@")
    return name, url or None


def load_lm(model: str | Path, *, device: str | None = None, dtype: str = "auto") -> LM:
    """The model of a role, ready to solve.

    ``model``: a student's folder or Hub id, a plain model's, a ``.gguf`` file, or ``openai:NAME[@BASE_URL]``.
    ``device`` defaults to the first GPU, else the CPU; ``dtype`` is ``fp32``, ``bf16`` or ``auto`` (bf16 where the
    device computes in it). Raises `UserError` for a model that cannot be found, is torn, or has another end token.
    """
    model = str(model)
    if model.startswith(ENDPOINT):
        from socratic.lm.endpoint import EndpointLM

        return EndpointLM(*endpoint(model))

    from socratic.lm.dense import unsupported
    from socratic.lm.engine import EngineLM
    from socratic.lm.plain import PlainLM, layers_lm
    from socratic.lm.seq2seq import Seq2SeqLM

    device = device or default_device()
    _check_device(device)
    folder = local_folder(model)
    card: Card | None = None
    if is_checkpoint(folder):
        pretrained, card = load_student(folder, torch_dtype(dtype, device))
    else:
        pretrained = load_pretrained(model, torch_dtype(dtype, device))
        card = pretrained.card
    codec = Codec(pretrained.tokenizer)
    network = pretrained.model.to(device)
    name = Path(model).name or model  # not the folder's, which of a download is a commit
    lm: LM
    if network.config.is_encoder_decoder:
        lm = Seq2SeqLM(network, codec, name)
        lm.note = f"{name} runs through transformers' own layers, which is slower: it is an encoder-decoder"
    elif reason := unsupported(network):
        lm = layers_lm(network, codec, name)
        how = "much slower, one problem after the other" if isinstance(lm, PlainLM) else "slower"
        lm.note = f"{name} runs through transformers' own layers, which is {how}: {reason}"
    else:
        lm = EngineLM(network, codec, name)
    lm.fingerprint, lm.dtype = pretrained.base.sha256, str(pretrained.model.dtype).removeprefix("torch.")
    if card is not None:
        lm.role, lm.qg_sees, lm.calculator_default = card.role, card.qg_sees, card.calculator
        lm.guidance = card.guidance
        lm.format = FORMATS[card.format]
        if card.recipe is not None:
            fold = {} if card.fold is None else {"fold": card.fold}
            lm.training = {"recipe": card.recipe, "seed": card.settings["seed"], "tokens": card.lineage, **fold}
    return lm


def local_folder(model: str) -> Path:
    """The folder of a MODEL: of the Hub id of a trained student, what was downloaded of it.

    Raises `UserError` for a path that is mistyped, as its parent shows, before the Hub is asked for it.
    """
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    path = Path(model)
    if path.exists() or model.count("/") != 1 or model.startswith("scratch:") or path.suffix == ".gguf":
        return path
    if path.parent.is_dir():
        raise UserError(f"there is no folder {model}; give a student's folder, a Hub id or a .gguf file")
    try:
        hf_hub_download(model, CARD)
        return Path(snapshot_download(model))
    except (HfHubHTTPError, HFValidationError, OSError):
        return path  # no trained student, or none to be had: loading it as a plain model says why


def load_student(folder: Path, dtype: Any) -> tuple[Pretrained, Card]:
    """A trained student, an adapter merged into its base; raises `UserError` for a torn one or a changed base."""
    if problem := check_manifest(folder):
        raise UserError(f"{folder} is not a whole checkpoint ({problem}); train it again, or resume its training")
    card = read_card(folder)
    tokenizer = load_tokenizer(str(folder))
    check_end(card, tokenizer, folder)
    if not card.adapter:
        return load_pretrained(str(folder), dtype, tokenizer), card
    import peft

    location = find_base(card.base, folder)
    if is_checkpoint(Path(location)):  # which may itself be an adapter
        base = load_student(Path(location), dtype)[0]
    else:
        revision = card.base.sha256 if is_hub_id(location) else None
        base = load_pretrained(location, dtype, tokenizer, revision)
    if base.base.sha256 != card.base.sha256 and not (card.base.sha256 is None and is_hub_id(location)):
        raise UserError(
            f"the base of {folder}, {location}, is not the one it was trained on (its sha256 is not "
            f"{card.base.sha256}); restore that file"
        )
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # peft's use of transformers
        merged = peft.PeftModel.from_pretrained(base.model, str(folder)).merge_and_unload()
    record = Base(location=str(folder.resolve()), sha256=hash_adapter(folder, card))
    return Pretrained(merged, tokenizer, record), card


def merge(adapter: Path, out: Path) -> Card:
    """Write a LoRA student as a full folder that plain ``AutoModelForCausalLM`` loads; return its card.

    One that stands in ``out`` already is left as it is.
    """
    import torch

    check_is_student(adapter)
    merged = read_card(adapter).model_copy(update={"adapter": False})
    if is_checkpoint(out) and read_card(out) == merged and not check_manifest(out):
        return merged
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty; give another --out")
    pretrained, card = load_student(adapter, torch.float32)
    if not card.adapter:
        raise UserError(f"{adapter} is a full model already; there is nothing to merge")
    out.mkdir(parents=True, exist_ok=True)
    save_student(out, pretrained.model, pretrained.tokenizer, merged)
    return merged


def load_pretrained(model: str, dtype: Any, tokenizer: Any = None, revision: str | None = None) -> Pretrained:
    """A dense model and its tokenizer from a folder, a Hub id or a GGUF file; safetensors only, no remote code.

    ``tokenizer``, where given, spares reading the model's own, but for a GGUF file that is none of `bases.SOURCES`;
    ``revision`` is a commit of a Hub id, its newest if None.
    """
    path = Path(model)
    if model.startswith("scratch:"):
        raise UserError(f"{model} knows nothing yet; train it, and give the trained student's folder")
    if path.suffix == ".gguf":
        return _load_gguf(path, dtype, tokenizer)
    loaded = _load_safetensors(model, dtype, revision)
    digest = hash_weights(path) if path.is_dir() else _commit(model, revision)
    location = str(path.resolve()) if path.is_dir() else model
    return Pretrained(loaded, tokenizer or load_tokenizer(model), Base(location=location, sha256=digest))


def _commit(model: str, revision: str | None) -> str | None:
    """The commit of a Hub id that was just loaded: its files lie in the download cache in a folder of that name."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model, "config.json", revision=revision)
    return Path(found).parent.name if isinstance(found, str) else None


def _load_safetensors(model: str, dtype: Any, revision: str | None = None) -> Any:
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    try:
        config = AutoConfig.from_pretrained(model, revision=revision)
        auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        return auto.from_pretrained(model, dtype=dtype, use_safetensors=True, revision=revision)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(
            f"{model!r} cannot be loaded ({reason}); give a folder with safetensors, a Hub id or a .gguf file"
        ) from None


@cache  # many arms share a base
def is_encoder_decoder(model: str) -> bool:
    """Whether a MODEL is one, as far as its configuration says so without the weights; what has none is not."""
    from transformers import AutoConfig

    if model.startswith("scratch:"):
        return model == "scratch:t5-tiny"
    if model.startswith(ENDPOINT) or model.endswith(".gguf"):
        return False
    folder = local_folder(model)
    if is_checkpoint(folder) and (card := read_card(folder)).adapter:
        return is_encoder_decoder(find_base(card.base, folder))
    try:
        return bool(AutoConfig.from_pretrained(folder if folder.exists() else model).is_encoder_decoder)
    except (OSError, ValueError):
        return False


def load_tokenizer(model: str) -> Any:
    """The tokenizer of a folder or Hub id."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise UserError(f"{model!r} holds no usable tokenizer ({str(error).splitlines()[0][:200]})") from None


def load_gguf_tokenizer(path: Path) -> Any:
    """The tokenizer of a GGUF file, with the special tokens that the file's own metadata names."""
    import gguf

    return _gguf_tokenizer(path, gguf.GGUFReader(str(path)).fields)


def _gguf_tokenizer(path: Path, fields: dict[str, Any]) -> Any:
    import gguf
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    fast: Any = PreTrainedTokenizerFast
    if whole := fields.get(gguf.Keys.Tokenizer.HF_JSON):  # else it is put together of what llama.cpp reads
        tokenizer = fast(tokenizer_object=Tokenizer.from_str(whole.contents()))
    else:
        tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    for role, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")):
        field = fields.get(f"tokenizer.ggml.{key}_token_id")
        if field is not None:
            setattr(tokenizer, f"{role}_token", tokenizer.convert_ids_to_tokens(int(field.contents())))
    return tokenizer


def _load_gguf(path: Path, dtype: Any, tokenizer: Any) -> Pretrained:
    """A dequantized GGUF as a plain model; one that `socratic.lm.export` wrote as the student it was."""
    import gguf

    from socratic.lm.export import read_model

    if not path.is_file():
        raise UserError(f"there is no file {path}; give the path of a .gguf file")
    base = Base(location=str(path.resolve()), sha256=hash_file(path))
    if base.sha256 in SOURCES and (plain := _plain_copy(path, kept_folder(base.sha256))):
        return Pretrained(_load_safetensors(str(plain), dtype), tokenizer or load_tokenizer(str(plain)), base)
    card = None
    try:
        reader = gguf.GGUFReader(str(path))  # which takes seconds
        tokenizer = _gguf_tokenizer(path, reader.fields)
        if CONFIG_KEY in reader.fields:
            model = read_model(reader, dtype)
            card = parse_card(json.loads(reader.fields[CARD_KEY].contents()), path, f"card of {path}: field")
        else:
            model = _foreign_gguf(path, dtype, tokenizer)
    except UserError:
        raise
    except Exception as error:  # whatever transformers, gguf or tokenizers raise over a damaged file
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise UserError(f"{path} cannot be read as GGUF ({reason})") from None
    if card is not None:
        check_end(card, tokenizer, path)
    return Pretrained(model.eval(), tokenizer, base, card)


def _plain_copy(path: Path, folder: Path) -> Path | None:
    """The folder below ``folder`` that holds the GGUF's model in fp32, made where it is missing; None without room.

    Dequantizing takes most of a minute, and reading the copy a second.
    """
    import torch

    plain = folder / "plain"
    if not plain.is_dir():
        tokenizer = load_gguf_tokenizer(path)
        model = _foreign_gguf(path, torch.float32, tokenizer)
        with suppress(OSError):  # no room, or another process was faster
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as scratch:
                made = Path(scratch) / plain.name
                model.save_pretrained(str(made))
                tokenizer.save_pretrained(str(made))
                made.rename(plain)
    return plain if plain.is_dir() else None


def _foreign_gguf(path: Path, dtype: Any, tokenizer: Any) -> Any:
    """A model as transformers reads it: its own config without the quantization, which could not be saved."""
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    loaded = auto.from_pretrained(str(path.parent), gguf_file=path.name, dtype=dtype)
    settings = {key: value for key, value in loaded.config.to_dict().items() if key != "quantization_config"}
    settings |= {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    plain = auto.from_config(type(loaded.config).from_dict(settings), dtype=dtype)
    plain.load_state_dict(loaded.state_dict())
    plain.tie_weights()
    return plain


def hash_weights(folder: Path) -> str:
    """What tells the weights in ``folder`` from others: the hash of its safetensors files."""
    return hash_json({file.name: hash_file(file) for file in sorted(folder.glob("*.safetensors"))})


def hash_adapter(folder: Path, card: Card) -> str:
    """What tells the LoRA student in ``folder``, merged into its base, from others."""
    return hash_json([card.base.sha256, hash_weights(folder)])


def hush_transformers() -> None:
    """Keep transformers' and the Hub client's own progress bars and warnings off the terminal."""
    import transformers

    talk: Any = transformers.utils.logging
    talk.set_verbosity_error()
    talk.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)  # peft asks for it


def default_device() -> str:
    """The first CUDA GPU where there is one, else the CPU."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _check_device(name: str) -> None:
    import torch

    try:
        torch.empty(0, device=name)
        if torch.device(name).type not in ("cpu", "cuda"):
            raise RuntimeError("nothing here was written for it")
    except (RuntimeError, AssertionError) as error:  # the latter from a torch built without CUDA
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(f"device {name!r} cannot be used ({reason}); use cpu, cuda or cuda:N") from None


def torch_dtype(name: str, device: str) -> Any:
    """``fp32`` / ``bf16`` / ``auto`` as a torch dtype; auto is bf16 where the device has it in hardware."""
    import torch

    if name == "auto":
        name = "bf16" if has_bf16(device) else "fp32"
    if name not in ("fp32", "bf16"):
        raise UserError(f"unknown dtype {name!r}; use auto, fp32 or bf16")
    return torch.bfloat16 if name == "bf16" else torch.float32


def has_bf16(device: str) -> bool:
    """Whether matrix products in bf16 run in hardware there."""
    import torch

    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if platform.machine() in ("x86_64", "AMD64"):  # where oneDNN also takes bf16 that it has to emulate
        capable: Any = torch.cpu
        return bool(capable._is_avx512_bf16_supported() or capable._is_amx_tile_supported())
    mkldnn: Any = torch.ops.mkldnn
    return bool(mkldnn._is_mkldnn_bf16_supported())
