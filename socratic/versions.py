"""What code this is: the package's own commit and the versions of what decides weights and outputs."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import subprocess
from pathlib import Path

PACKAGES = ("socratic", "torch", "transformers", "tokenizers", "peft", "datasets", "openai")


def package_versions() -> dict[str, str | None]:
    """The installed version of each package; None where it is not installed."""
    return {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor() -> str:
    """What the processor is called, and which it has of the units by which a product in bf16 is rounded."""
    try:
        said = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return platform.processor() or platform.machine()
    name = re.search(r"^model name\s*:\s*(.+)$", said, re.M)
    units = [unit for unit in ("avx512_bf16", "amx_bf16") if re.search(rf"\b{unit}\b", said)]
    return " ".join([name[1] if name else platform.machine(), *units])


def commit() -> str | None:
    """The commit of the checkout this package runs from, ``-dirty`` where it was edited; None when installed."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return result.stdout.strip() or None
