"""A GPU for each test, and, where there is none, one that is pretended."""

import os
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
import torch
from pretended_gpu import pretended_gpu

from byzshield_exp.training.task import prepare_gpu

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at the first product of all


@dataclass(frozen=True)
class Gpu:
    """What a test runs on.

    Attributes:
        is_real: whether there is one.
        width: entries of a row; on a real GPU rows are cut into two chunks.
        waits: of the CPU for the pretended GPU, by place.
    """

    is_real: bool
    width: int
    waits: Counter[str] = field(default_factory=Counter)


_real = pytest.param(
    Gpu(True, (1 << 20) + 7),
    id="cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(torch.cuda.device_count() == 0, reason="needs a GPU"),
    ],
)


@pytest.fixture(params=[pytest.param(Gpu(False, 999), id="pretended"), _real])
def gpu(request):
    """A deterministic GPU, as a run makes it; ``device="cuda"`` is it, or the pretended one."""
    was = torch.are_deterministic_algorithms_enabled()
    if request.param.is_real:
        prepare_gpu()
        yield request.param
    else:
        with pretended_gpu() as waits:
            prepare_gpu()
            yield replace(request.param, waits=waits)
    torch.use_deterministic_algorithms(was)
