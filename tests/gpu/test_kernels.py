"""Triton kernels against the CPU, on a GPU, or in Triton's interpreter: TRITON_INTERPRET=1."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from byzshield_exp.aggregators import columns
from byzshield_exp.rows.gpu import has_kernels
from byzshield_exp.votes import bytewise, is_finite, majority

triton = pytest.importorskip("triton", reason="needs Triton, which comes with torch for CUDA")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")

needs_gpu = pytest.mark.skipif(
    not INTERPRETED and not torch.cuda.is_available(), reason="needs a GPU"
)

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


@pytest.fixture(autouse=True)
def _kernels_are_used(monkeypatch):
    """For few entries too, and by the interpreter on the CPU."""
    monkeypatch.setattr(columns, "_WORTH", 0)
    if INTERPRETED:
        monkeypatch.setattr(columns, "has_kernels", lambda _: True)
        monkeypatch.setattr(bytewise, "has_kernels", lambda _: True)
    elif torch.cuda.is_available():
        assert has_kernels(DEVICE)  # else torch would pass these tests


def by_sort(rows, low, high, keep):
    """The CPU's other path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "has_kernels", lambda _: False)
        patch.setattr(columns, "_WORTH", 1 << 62)
        return columns.mean_of_ordered(rows, low, high, keep)


def rows_of(n, d, dtype):
    """Ties, both zeros, the largest and the least numbers, signs that cancel."""
    rows = torch.randn(n, d, generator=torch.Generator().manual_seed(n))
    about = torch.finfo(dtype)
    rows[:, : d // 4] = rows[:, : d // 4].round() * -(0.0 ** torch.arange(n)[:, None].remainder(2))
    rows = rows.to(dtype)
    quarter = torch.randint(-2, 3, (n, d // 4), generator=torch.Generator().manual_seed(d)).to(
        dtype
    )
    rows[:, d // 4 : 2 * (d // 4)] = quarter * (about.max / 4)
    least = about.smallest_normal * (4 if INTERPRETED and dtype == torch.bfloat16 else 1 / 4)
    rows[:, 2 * (d // 4) : 3 * (d // 4)] = quarter * least  # the interpreter has no small bfloat16
    return rows


def cases():
    """Few, as a GPU compiles each: ``n, low, high, keep, dtype``."""
    for n in (1, 2, 3, 24, 25, 63, 81, 128):
        yield n, (n - 1) // 2, n // 2 + 1, 0, torch.float32
    for n, trim in ((3, 1), (24, 5), (25, 5)):
        yield n, trim, n - trim, 0, torch.float32
        for dtype in DTYPES:
            yield n, trim, n - trim, n - trim, dtype
    yield 40, 19, 21, 30, torch.float32


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(("n", "low", "high", "keep", "dtype"), list(cases()))
def test_the_network_has_the_bits_of_the_cpu_and_is_near_float64(n, low, high, keep, dtype):
    rows = rows_of(n, 300, dtype)
    ours = columns.mean_of_ordered(rows.to(DEVICE), low, high, keep).cpu()
    theirs = by_sort(rows, low, high, keep)
    assert ours.view(torch.uint8).tolist() == theirs.view(torch.uint8).tolist()
    if keep == 0 and dtype == torch.float32:
        exact = np.sort(rows.double().numpy(), axis=0)[low:high].mean(axis=0)
        assert np.array_equal(ours.numpy(), exact.astype(np.float32) + np.float32(0))


@pytest.mark.gpu
@needs_gpu
def test_rows_in_any_memory_order_and_tiles_that_are_not_full():
    wide = torch.randn(9, 2 * 391).to(DEVICE)
    for rows in (
        wide[:, 3:394],
        wide[:, ::2],
        wide[:, :129].T.contiguous().T,
        wide[:, :1],
        wide[::2],
    ):
        ours = columns.mean_of_ordered(rows, 2, 5)
        assert torch.equal(ours.cpu(), by_sort(rows.cpu(), 2, 5, 0))


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_kernel_sees_what_is_not_finite(value):
    for row, column in ((0, 0), (6, 299), (3, 128), (2, 127)):
        rows = rows_of(7, 300, torch.float32)
        rows[row, column] = value
        with pytest.raises(columns.Unclean):
            columns.mean_of_ordered(rows.to(DEVICE), 3, 4)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("n", [1, 2, 5, 8, 11])
def test_sorting_zeros_and_ones_is_sorting_anything(n):
    """The 0-1 principle, for all 2^n columns: what is at a place is known from their sum."""
    bits = torch.arange(2**n)[None] >> torch.arange(n)[:, None] & 1
    ours = columns.mean_of_ordered(bits.float().to(DEVICE), n // 2, n // 2 + 1).cpu()
    assert torch.equal(ours, (bits.sum(dim=0) >= n - n // 2).float())


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_votes_of_bytes_are_those_of_the_cpu(monkeypatch, dtype):
    base = torch.randn(5000, generator=torch.Generator().manual_seed(1)).to(dtype)
    other, last, zero = base.clone(), base.clone(), torch.zeros(5000, dtype=dtype)
    other.view(torch.uint8)[0] ^= 1
    last.view(torch.uint8)[-1] ^= 128
    nan = torch.full_like(base, torch.nan)
    files = [
        [base, base.clone(), base, other, base.clone()],
        [other, base, None, base.clone(), other.clone()],
        [last, base, last.clone(), other, base[:4999]],
        [None] * 5,
        [zero, -zero, zero.clone(), -zero, torch.zeros(5000, dtype=torch.int16)],
        [nan, nan.clone(), base, nan, torch.stack([base, base], dim=1)[:, 1]],
    ]
    there = [[None if row is None else row.to(DEVICE) for row in rows] for rows in files]
    there[0][2] = there[0][0]  # the same memory
    labels = majority(there)
    monkeypatch.setattr(bytewise, "has_kernels", lambda _: False)
    assert labels.tolist() == majority(files).tolist()
    assert labels[1].tolist() == [0, 1, -1, 1, 0]
    assert is_finite(there, labels).tolist() == is_finite(files, labels).tolist()


@pytest.mark.skipif(INTERPRETED, reason="is the interpreter")
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_an_h100_sorts_in_registers_alone(dtype, tmp_path, monkeypatch):
    """Compiled here for its architecture: nothing goes through shared or local memory."""
    from byzshield_exp.aggregators import gpu_kernels
    from byzshield_exp.rows import gpu_equality

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel = gpu_kernels._kernel(11, 2, 9, 9, dtype == "bf16")
    types = [f"*{dtype}", "i32", "constexpr", "i32", "*fp32", "*i32"]
    compiled = compiled_for_h100(kernel, types, stride=1)
    assert compiled.metadata.shared == 0
    assert ".local" not in compiled.asm["ptx"]
    assert "shfl" not in compiled.asm["ptx"]
    compiled_for_h100(gpu_equality._compare, ["*i64", "*i32", "i32", "*i32", "i32"])


def compiled_for_h100(kernel, types, **known):
    aligned = [("tt.divisibility", 16)]  # as torch's memory is
    source = triton.compiler.ASTSource(
        fn=kernel,
        signature=dict(zip(kernel.arg_names, [*types, "constexpr"], strict=True)),
        constexprs={**known, "BLOCK": 128},
        attrs={(at,): aligned for at, name in enumerate(types) if name.startswith("*")},
    )
    target = triton.backends.compiler.GPUTarget("cuda", 90, 32)
    return triton.compile(source, target=target, options={"num_warps": 4})


@pytest.mark.skipif(INTERPRETED or torch.cuda.is_available(), reason="needs no GPU")
def test_without_a_gpu_that_works_torch_does_it_and_a_line_says_so(capsys):
    assert not has_kernels(torch.device("cpu"))
    assert capsys.readouterr().err == ""
    assert not has_kernels(torch.device("cuda"))
    assert capsys.readouterr().err.startswith(
        "warning: device=cuda: Triton fails, votes and medians"
    )


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="is the interpreter")
@pytest.mark.skipif(
    triton.__version__.startswith("3.6.") and np.lib.NumpyVersion(np.__version__) >= "2.5.0",
    reason="Triton 3.6's interpreter fails with NumPy 2.5: a loop's bound is an array there",
)
def test_the_same_in_the_interpreter():
    """Here, where there need be no GPU: the kernels' arithmetic, not their compilation."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", Path(__file__)],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
