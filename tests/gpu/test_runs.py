"""Whole runs with device=cuda: their bits, what they share with the CPU, resume, waits, memory."""

import warnings

import pytest
import torch
from running import SMALL

from byzshield_exp.results import checkpoint

# LeNet's pictures are MNIST's in size. Four samples a file for BatchNorm, which makes rough ones.
LENET = "dataset=synthetic dataset.size=28 dataset.num_train=300 dataset.num_test=50 network=lenet"
RGB = "dataset=synthetic dataset.channels=3 dataset.size=16 dataset.num_train=40 dataset.num_test=9"
FEW = "batch_size=20 K=5 q=1 approach=baseline"
SHORT = "steps=3 eval_every=3 attack=alie aggregator=median"
RUNS = {
    "lenet": f"{LENET} {SHORT} approach=mols",
    "batchnorm": f"{RGB} {FEW} {SHORT} network=resnet18 network.width=4 poison_statistics=true",
    "dropout": f"dataset=synthetic dataset.size=16 network=l46_net {SHORT}",
    "augment": f"{RGB} {FEW} {SHORT} dataset.num_test=50 network=resnet20 network.width=4",
    "transformer": f"{RGB} {FEW} {SHORT} network=vit network.dim=16 network.depth=1 "
    "network.heads=2",
    "alie": f"{' '.join(SMALL)} attack=alie aggregator=median",
    "krum": f"{' '.join(SMALL)} attack=reversed_gradient aggregator=krum pre_aggregator=nnm",
    "peers": f"{RGB} {SHORT} network=resnet18 network.width=4 batch_size=20 K=5 q=1 "
    "approach=btard aggregator=centered_clip_btard attack=delayed_gradient attack.delay=1",
    "digest": f"{' '.join(SMALL)} attack=min_max aggregator=trimmed_mean vote=digest",
}
HASHES = ("parameters_sha256", "buffers_sha256")


def params_of(folder):
    (checkpoints,) = folder.glob(f"*/{checkpoint.FOLDER}")
    return checkpoint.newest(checkpoints).state["params"]


@pytest.fixture
def done(run, tmp_path):
    """Do a run on the GPU in a folder of its own: its hashes, and its parameters."""

    def call(overrides, folder, device="cuda"):
        place = tmp_path / folder
        one_each = {given.partition("=")[0]: given for given in overrides.split()}
        said = run(*one_each.values(), f"device={device}", small=False, folder=place)
        return [said[name] for name in HASHES], params_of(place)

    return call


FEWER = ("lenet", "batchnorm", "alie", "peers")  # the others on each GPU, and here at times


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [name if name in FEWER else pytest.param(name, marks=pytest.mark.thorough) for name in RUNS],
)
def test_a_run_has_the_same_bits_twice(gpu, done, name):
    first, params = done(RUNS[name], "first")
    assert torch.isfinite(params).all()
    assert done(RUNS[name], "second")[0] == first


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lenet", "krum"])
def test_a_run_learns_what_one_on_the_cpu_does(gpu, done, name):
    """Gradients differ by 1e-6 of their size, ten times less than a step in three moves 1e-3."""
    _, here = done(RUNS[name], "gpu")
    _, there = done(RUNS[name], "cpu", device="cpu")
    torch.testing.assert_close(here, there, rtol=0, atol=1e-4)
    if not gpu.is_real:
        torch.testing.assert_close(here, there, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        "aggregator=centered_clip attack=mimic attack.warmup=2 worker_momentum=0.5",
        pytest.param(
            "aggregator=median attack=delayed_gradient attack.delay=2", marks=pytest.mark.thorough
        ),
        pytest.param(
            "approach=btard aggregator=centered_clip_btard attack=sign_flip",
            marks=pytest.mark.thorough,
        ),
    ],
)
def test_a_run_that_goes_on_later_ends_with_the_same_bits(gpu, done, more):
    overrides = f"{RGB} {FEW} eval_every=9 network=resnet20 network.width=4 {more}"
    whole, _ = done(f"{overrides} steps=4", "whole")
    done(f"{overrides} steps=2", "parts")
    assert done(f"{overrides} steps=4", "parts")[0] == whole


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() == 0, reason="needs a GPU")
@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_a_precision_has_bits_of_its_own_and_repeats_them(done, tmp_path, precision):
    overrides = f"{LENET} {SHORT} approach=mols"
    first, params = done(f"{overrides} precision={precision}", "first")
    assert done(f"{overrides} precision={precision}", "second")[0] == first
    exact, in_float32 = done(overrides, "float32")
    assert first != exact
    torch.testing.assert_close(params, in_float32, rtol=0, atol=1e-2)
    (folder,) = (tmp_path / "first").glob("*/config.yaml")
    assert f"precision: {precision}" in folder.read_text()
    assert not torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"


# Of a step: the losses; equal bytes; finite rows; the median's finiteness; the update's and the
# parameters' finiteness. With BatchNorm: which statistics are finite, and their trimmed mean. With
# distances: from which row they are measured, and the inner products; then the finiteness of what
# is mixed, or of the weighted sum in the median's place.
@pytest.mark.parametrize(
    ("name", "more", "most"),
    [
        pytest.param("alie", "", 6, marks=pytest.mark.slow),
        pytest.param("batchnorm", "", 8, marks=pytest.mark.slow),
        pytest.param("alie", "pre_aggregator=nnm", 9, marks=pytest.mark.slow),
        pytest.param("alie", "aggregator=geometric_median", 8, marks=pytest.mark.slow),
    ],
)
def test_a_step_waits_for_the_gpu_no_more_than_it_must(gpu, done, name, more, most):
    """The difference of two runs of unequal length leaves out what is done once."""
    overrides = f"{RUNS[name]} {more} eval_every=9"
    few, many = (waits_of(gpu, done, f"{overrides} steps={n}") for n in (2, 4))
    is_vote_left_out = not gpu.is_real and "approach=baseline" not in overrides
    assert 0 < many - few <= 2 * (most - is_vote_left_out)


def waits_of(gpu, done, overrides):
    """How often a run waits; on a real GPU torch warns of each time.

    The pretended one has no Triton: two rows at a time are compared, which is not counted.
    """
    if not gpu.is_real:
        gpu.waits.clear()
        done(overrides, overrides[-1])
        return sum(n for where, n in gpu.waits.items() if "same_bytes" not in where)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            done(overrides, overrides[-1])
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing CUDA operation" in str(one.message) for one in said)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() == 0, reason="needs a GPU")
def test_a_full_memory_ends_a_run_in_one_line(cli, tmp_path):
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    allowed = torch.cuda.memory_reserved() + 2**30
    torch.cuda.set_per_process_memory_fraction(allowed / total)
    try:  # 12 M parameters fit into a gigabyte, their gradients of 25 files do not
        code, _, err = cli(
            *SMALL, "network.hidden=[4000,3000]", "device=cuda", f"output_dir={tmp_path}",
        )  # fmt: skip
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert code == 1
    (line,) = [one for one in err.splitlines() if "memory" in one]
    assert line.startswith("byzshield_exp: device=cuda: CUDA out of memory. Tried to allocate")
    assert "Traceback" not in err


def test_a_full_memory_in_a_step_is_one_line(cli, tmp_path, monkeypatch):
    """The error is torch's own; that a GPU raises it is the test above."""
    (tmp_path / "greedy.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "class Greedy(nn.Linear):\n"
        "    calls = 0\n"
        "    def forward(self, pictures):\n"
        "        self.calls += 1\n"
        "        if self.calls > 5:\n"
        "            raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB."
        " GPU 0 has a total capacity of 1 GiB')\n"
        "        return super().forward(pictures.flatten(1))\n"
        "def greedy(shape, num_classes):\n"
        "    return Greedy(shape[0] * shape[1] * shape[2], num_classes)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    code, _, err = cli(
        "dataset=synthetic", "steps=4", "network=mlp", "~network.hidden",
        "network._target_=greedy.greedy", f"output_dir={tmp_path}",
    )  # fmt: skip
    assert code == 1, err
    assert err.strip().splitlines()[-1] == (
        "byzshield_exp: device=cuda: CUDA out of memory. Tried to allocate 2.00 GiB: try a smaller "
        "batch_size or network"
    )
    assert "Traceback" not in err
