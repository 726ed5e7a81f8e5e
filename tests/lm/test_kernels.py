from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
import torch

from socratic.lm import kernels
from socratic.lm.dense import Linear


@pytest.fixture
def uncached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Compiles anew, into a folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kernels._load.cache_clear()
    yield tmp_path
    kernels._load.cache_clear()


def test_they_are_compiled_once(uncached: Path) -> None:
    assert kernels.fault() is None
    [made] = (uncached / "socratic").iterdir()
    written = made.stat().st_mtime_ns
    kernels._load.cache_clear()
    assert kernels.library() is not None
    assert made.stat().st_mtime_ns == written


def test_what_is_wrong_with_a_compiler_is_said(uncached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert kernels.library() is None
    assert "there is no C++ compiler" in str(kernels.fault())

    broken = uncached / "broken"
    broken.write_text("#!/bin/sh\necho 'error: bad day' >&2\nexit 1\n")
    broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(broken))
    kernels._load.cache_clear()
    assert kernels.library() is None
    assert kernels.fault() == f"{broken} cannot compile them (error: bad day)"
    assert list((uncached / "socratic").iterdir()) == []


@pytest.mark.parametrize("rows", [1, 2, 11, 12, 13, 16, 17, 25, 33, 97, 200])
@pytest.mark.parametrize(("depth", "outputs"), [(64, 32), (48, 101), (64, 101), (2, 1), (576, 960)])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(("dtype", "atol", "rtol"), [(torch.float32, 1e-5, 1e-5), (torch.bfloat16, 0.02, 0.01)])
def test_a_product_is_torchs(
    rows: int, depth: int, outputs: int, biased: bool, dtype: torch.dtype, atol: float, rtol: float
) -> None:
    generator = torch.Generator().manual_seed(rows)
    x, weight = (torch.randn(n, depth, generator=generator).to(dtype) for n in (rows, outputs))
    bias = torch.randn(outputs, generator=generator).to(dtype) if biased else None
    expected = torch.nn.functional.linear(x.double(), weight.double(), None if bias is None else bias.double())
    product = Linear(weight, bias)
    torch.testing.assert_close(product(x), expected.to(dtype), atol=atol * depth**0.5, rtol=rtol)
    if product._multiply:
        assert product(x[-1:]).equal(product(x)[-1:])  # whatever else is multiplied beside it
