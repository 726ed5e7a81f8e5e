"""What this machine offers: versions, device and dtype, data and keys."""

from __future__ import annotations

import os
import platform
from typing import Any

from socratic.versions import package_versions


def examine(data_dir: str | None = None) -> dict[str, Any]:
    """Findings by name, as plain values; a key is only said to be set, never shown."""
    import torch

    from socratic.lm import kernels
    from socratic.lm.load import default_device, has_bf16
    from socratic.tasks import TASKS, data_folder

    device = default_device()
    folder = data_folder(data_dir)
    found = [task.name for task in TASKS.values() if folder and (folder / (task.folder or task.name)).is_dir()]
    return {
        "python": platform.python_version(),
        **{name: found or "not installed" for name, found in package_versions().items()},
        "device": torch.cuda.get_device_name() if device == "cuda" else f"cpu, {torch.get_num_threads()} threads",
        "dtype": "bf16" if has_bf16(device) else "fp32 (no bf16 in hardware)",
        "compiled kernels": "yes" if (fault := kernels.fault()) is None else f"no, solving is slower: {fault}",
        "data folder": str(folder) if folder else "none (set SOCRATIC_DATA or pass --data-dir; else the Hub is asked)",
        "data sets there": ", ".join(found) or "none",
        "OPENAI_API_KEY": "set" if os.environ.get("OPENAI_API_KEY") else "not set (needed for endpoints only)",
    }
