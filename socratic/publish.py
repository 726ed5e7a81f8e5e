"""Students and data sets to the Hub, each with its card, and adapters made ready to be shared.

The token is the one that `hf auth login` keeps or ``HF_TOKEN`` holds; it is neither read nor written here.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from socratic.lm.bases import is_hub_id
from socratic.lm.checkpoint import CARD, README, Base, check_is_student, is_checkpoint, read_card
from socratic.lm.load import hash_adapter, load_tokenizer
from socratic.lm.model_card import model_card, teachers_terms
from socratic.store import (
    atomic_write,
    check_manifest,
    files,
    first_file,
    hash_file,
    read_json,
    write_json,
    write_manifest,
)
from socratic.types import Chain, UserError

if TYPE_CHECKING:
    import torch

    from socratic.lm.checkpoint import Card

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_WEIGHTS, _CONFIG, _LOG = "adapter_model.safetensors", "adapter_config.json", "log.jsonl"


def share_adapter(student: Path, out: Path, model: str | None) -> None:
    """Write the LoRA student in the folder ``student`` into the empty folder ``out``, to be shared.

    Its weights become bf16, and nothing of it names a path of this machine: its base is known by name and SHA-256, and
    as a form of ``model``, a Hub id. Of one that was trained from another LoRA student both are written as one adapter;
    the card's settings are those of the last training. Raises `UserError` for a student that is not whole, no adapter,
    or stands on a full student.
    """
    import torch
    from safetensors.torch import save_file

    check_is_student(student)
    if problem := check_manifest(student):
        raise UserError(f"{student} is not a whole checkpoint ({problem}); train it again, or resume its training")
    card = read_card(student)
    if not card.adapter:
        raise UserError(f"{student} is a full model and no adapter; give a name that ends in .gguf, or push it")
    weights, config, base = _joined(student, card)
    location = Path(base.location)
    if not is_hub_id(base.location):
        model = model or base.model
        if model is None or not is_hub_id(model):
            raise UserError(f"{location.name} is a form of a model on the Hub; give its id with --base-model")
        base = Base(location=location.name, sha256=base.sha256, model=model)
    elif model not in (None, base.location):
        raise UserError(f"{student} stands on {base.location}, not on {model}; leave --base-model out")
    if out.exists() and first_file(out):
        raise UserError(f"{out} is not empty; give another --out")
    out.mkdir(parents=True, exist_ok=True)
    load_tokenizer(str(student)).save_pretrained(str(out))
    shutil.copy(student / _LOG, out / _LOG)
    save_file({name: w.to(torch.bfloat16) for name, w in weights.items()}, out / _WEIGHTS, {"format": "pt"})
    write_json(out / _CONFIG, config | {"base_model_name_or_path": base.model or base.location})
    data = card.data | {"source": Path(str(card.data.get("source"))).name}
    settings = card.settings | {
        "partner": Path(card.settings["partner"]).name if card.settings.get("partner") else None
    }
    shared = card.model_copy(update={"base": base, "data": data, "settings": settings})
    write_json(out / CARD, shared.model_dump())
    atomic_write(out / README, model_card(out.name, shared).encode("utf-8", "replace"))
    write_manifest(out, (README,))


def _joined(student: Path, card: Card) -> tuple[dict[str, torch.Tensor], dict[str, Any], Base]:
    """The weights of a LoRA student, their config, and its base.

    Where that is a LoRA student too, of both as one adapter on the base below: since both products are added to the
    same weights, A [rank, in] and B [out, rank] lie side by side. Hu et al. (2021), "LoRA", section 4.1.
    """
    import torch
    from safetensors.torch import load_file

    weights, config = load_file(student / _WEIGHTS), read_json(student / _CONFIG)
    below = Path(card.base.location)
    if below.is_absolute() and not below.exists() and len(card.lineage) > 1:
        raise UserError(f"{below}, on which {student} stands, is gone; restore it")
    if not is_checkpoint(below):
        return weights, config, card.base
    card_below = read_card(below)
    if not card_below.adapter:
        raise UserError(f"{student} stands on the student {below}; merge it, and export that as a .gguf file")
    if hash_adapter(below, card_below) != card.base.sha256:
        raise UserError(f"{below}, on which {student} stands, is not the one it was trained on; restore it")
    others, config_below, base = _joined(below, card_below)
    ranks, scales = zip(*((c["r"], c["lora_alpha"] / c["r"]) for c in (config_below, config)), strict=True)
    if weights.keys() != others.keys() or scales[0] != scales[1]:
        raise UserError(
            f"{student} and {below} adapt other layers or by another scale; merge it, and export a .gguf file"
        )
    both = {name: torch.cat([others[name], w], dim=0 if "lora_A" in name else 1) for name, w in weights.items()}
    return both, config | {"r": sum(ranks), "lora_alpha": int(sum(ranks) * scales[0])}, base


def push_student(folder: Path, repo: str) -> str:
    """Push a trained student's folder, its card included; the address. Raises `UserError` where that failed."""
    return _push(repo, "model", {name: folder / name for name in files(folder)})


def push_chains(file: Path, chains: Sequence[Chain], yields: Mapping[str, int], repo: str) -> str:
    """Push curated chains, which ``file`` holds, with a data set card; the address. Raises as `push_student`."""
    card = dataset_card(file, chains, yields).encode("utf-8", "replace")
    return _push(repo, "dataset", {file.name: file, "README.md": card})


def _push(repo: str, kind: Literal["model", "dataset"], content: Mapping[str, Path | bytes]) -> str:
    """Commit files to a repository, made private where there is none yet."""
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    try:
        api = HfApi()
        made = api.create_repo(repo, repo_type=kind, private=True, exist_ok=True)
        operations = [CommitOperationAdd(name, data) for name, data in content.items()]
        api.create_commit(made.repo_id, operations, commit_message="Upload with socratic", repo_type=kind)
    except Exception as error:  # no token, a refusal, no network, a name that is none: whatever the client raises
        reason = " ".join((str(error).strip() or type(error).__name__).split())[:300]
        raise UserError(
            f"nothing was pushed to {repo} ({reason}); what was made is whole: see to HF_TOKEN or `hf auth login`, "
            "the name and the network, and give the same command again"
        ) from None
    return str(made)


def dataset_card(file: Path, chains: Sequence[Chain], yields: Mapping[str, int]) -> str:
    """The Markdown of a data set's card, its metadata in front; ``yields`` are those of `socratic.curate.Curated`."""
    from huggingface_hub import DatasetCardData

    metadata = DatasetCardData(
        size_categories=next((name for most, name in _SIZES if len(chains) < most), "n>1M"),
        task_categories=["text-generation"],
        tags=["socratic"],
        configs=[{"config_name": "default", "data_files": file.name}],
    )
    written = Counter(chain.source for chain in chains)
    data = Counter(chain.dataset for chain in chains)
    rows = {
        "problems": len({chain.problem_id for chain in chains}),
        "of": ", ".join(f"{name} ({count:,})" for name, count in data.most_common()),
        "written by": ", ".join(f"{name} ({count:,})" for name, count in written.most_common()),
        "SHA-256": hash_file(file),
    }
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    checked = "\n".join(f"| {reason.replace('_', ' ')} | {count:,} |" for reason, count in yields.items())
    parts = [
        f"---\n{metadata.to_yaml()}\n---\n# {file.stem}",
        f"{len(chains):,} chains of steps, one JSON object a line, on which `socratic` trains students: `question` is "
        "the problem, `steps` are sub-questions and sub-answers, `answer` is the gold answer.",
        f"| | |\n|---|---|\n{table}",
        teachers_terms(sorted(written)),
        f"## Curated\n\n`socratic curate` kept these, and rejected others for the reason named.\n\n"
        f"| | chains |\n|---|---|\n{checked}",
        f"## Use\n\n```\nhf download REPOSITORY {file.name} --repo-type dataset --local-dir .\n"
        f"socratic train qg --chains {file.name} --student MODEL --out runs/qg\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
