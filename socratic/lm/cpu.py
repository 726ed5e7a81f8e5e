"""What a CPU process should know before it moves large tensors."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # glibc's malloc.h


def keep_freed_memory() -> None:
    """Let glibc keep freed memory instead of returning it: a training step frees and asks for the same gigabytes.

    Otherwise every large tensor is mapped, zeroed page by page and unmapped again. Measured on 2 cores with
    SmolLM2-135M: a training step of 4,000 tokens is about 1.3 times as fast. Does nothing without glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_M_TOP_PAD, 64 * 2**20)
