"""`kernels.cpp`, compiled once for this machine and loaded.

Without a C++ compiler `library` is None, and the engine computes the same in plain torch, more slowly.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
import mmap
import os
import platform
import shutil
import subprocess
import tempfile
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from socratic.store import cache_folder

_SOURCE = Path(__file__).with_name("kernels.cpp")
_FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-fopenmp", "-shared", "-fPIC", "-std=c++17")


def library() -> Any:
    """The compiled kernels as a `ctypes` library, or None where they cannot be compiled or loaded; see `fault`."""
    return _load()[0]


def fault() -> str | None:
    """Why there is no `library`, or None where there is."""
    return _load()[1]


@lru_cache
def _load() -> tuple[Any, str | None]:
    try:
        loaded = ctypes.CDLL(str(_compiled()))
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines()
        return None, f"{error.cmd[0]} cannot compile them ({said[0][:200] if said else 'without a reason'})"
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    pointer, number, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
    for name in ("fp32", "bf16"):
        getattr(loaded, f"norm_{name}").argtypes = [pointer] * 5 + [number] * 2 + [real, ctypes.c_int]
        getattr(loaded, f"gate_{name}").argtypes = [pointer] * 2 + [number] * 2 + [ctypes.c_int]
        getattr(loaded, f"argmax_{name}").argtypes = [pointer] * 2 + [number] * 2
        getattr(loaded, f"attention_{name}").argtypes = [pointer] * 11 + [number] * 6 + [real] * 2
        if hasattr(loaded, f"multiply_{name}"):
            getattr(loaded, f"multiply_{name}").argtypes = [pointer] * 4 + [number] * 3
    loaded.block.restype = number
    return loaded, None


def large_empty(sizes: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """An empty tensor; on a CPU in huge memory pages where there are any: much is read from it, in many places."""
    if device.type != "cpu" or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(sizes, dtype=dtype, device=device)
    memory = mmap.mmap(-1, math.prod(sizes) * dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype).view(sizes)


def compiler() -> str | None:
    """The C++ compiler that is used: ``CXX`` where it is set, else the first one found."""
    names = (os.environ["CXX"],) if "CXX" in os.environ else ("c++", "g++", "clang++")
    return next((found for name in names if (found := shutil.which(name))), None)


def _compiled() -> Path:
    """The shared library for this source, compiler and processor, compiled where it is not cached."""
    program = compiler()
    if program is None:
        raise OSError("there is no C++ compiler (install g++ or clang, or name one in CXX)")
    key = hashlib.sha256(b"|".join([_SOURCE.read_bytes(), program.encode(), " ".join(_FLAGS).encode(), _processor()]))
    cache = cache_folder()
    target = cache / f"kernels-{key.hexdigest()[:16]}.so"
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            made = Path(folder) / "kernels.so"
            command = [program, *_FLAGS, str(_SOURCE), "-o", str(made)]
            subprocess.run(command, check=True, capture_output=True, timeout=300)
            os.replace(made, target)
    return target


def _processor() -> bytes:
    """What tells apart two processors between which code compiled for one may not run on the other."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor().encode()
    return "|".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})).encode()
