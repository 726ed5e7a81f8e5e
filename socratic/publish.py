"""Students and data sets to the Hub, each with its card.

The token is the one that `hf auth login` keeps or ``HF_TOKEN`` holds; it is neither read nor written here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from socratic.lm.model_card import teachers_terms
from socratic.store import files, hash_file
from socratic.types import Chain, UserError

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


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
