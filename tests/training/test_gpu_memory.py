"""What a run needs of a GPU, and the refusal of one that cannot fit: all without a GPU."""

import sys
from dataclasses import replace
from functools import partial

import pytest

from byzshield_exp.clusters import AloneChannel, Seats
from byzshield_exp.errors import ConfigError, RunError
from byzshield_exp.launch.job import LauncherTraits, describe
from byzshield_exp.launch.ranks import play, rank_job
from byzshield_exp.training.activations import Activations
from byzshield_exp.training.experiment import build
from byzshield_exp.training.gpu_memory import GpuMemory, GpuNeed, count_sharers, gpu_need

GIB = 2**30
D = 64 * 16 + 16 + 16 * 10 + 10  # the small perceptron
WITHOUT_ATTACK = ("attack=none", "aggregator=median", "K=15", "approach=mols")


@pytest.fixture
def need(plain_config):
    """``need(*overrides, world_size, rank, backend)`` of a small run."""

    def call(*overrides, world_size=1, rank=0, backend="alone"):
        config = plain_config(*WITHOUT_ATTACK, *overrides)
        experiment = build(config)
        return gpu_need(experiment, config, Seats(experiment.assignment, world_size), rank, backend)

    return call


@pytest.mark.parametrize(
    ("overrides", "tables"),
    [
        ((), 1),
        (("aggregator=multi_krum",), 1),
        (("pre_aggregator=nnm",), 1),
        (("aggregator=bulyan", "q=2"), 2),
        (("worker_momentum=0.9",), 2),
        (("pre_aggregator=nnm", "aggregator=centered_clip"), 2),
        (("attack=alie", "q=2"), 34 / 25),  # two workers of five files have one in common
        (("attack=none", "q=2"), 1),
    ],
)
def test_tables_of_rows_in_one_process(need, overrides, tables):
    found = need(*overrides)
    assert found.table == 25 * 4 * D
    assert found.tables == tables


def test_ranks_hold_winners_only_on_the_server(need):
    assert need(world_size=4, backend="gloo").tables == 1
    assert need(world_size=4, backend="nccl").tables == 1 + 2 * 3 / 25
    worker = need(world_size=16, rank=1, backend="gloo")
    assert worker.tables == 5 / 25
    assert worker.network < need(world_size=16, backend="gloo").network


@pytest.mark.slow
def test_a_rank_with_a_liar_has_the_rows_of_all_files(need):
    found = [
        need("attack=alie", "q=2", world_size=16, rank=rank, backend="gloo").tables
        for rank in range(1, 16)
    ]
    assert sorted(found) == [5 / 25] * 13 + [(25 + 5) / 25] * 2


def test_the_optimizer_counts_by_its_state(need):
    with_momentum, without = need(), need("optimizer.momentum=0.0")
    assert with_momentum.network - without.network == 4 * D


def test_a_recorded_file_keeps_its_memory_beside_evaluation(plain_config):
    config = plain_config(*WITHOUT_ATTACK)
    tried = Activations(samples=1, saved=10 * GIB, largest=GIB // 100)
    experiment = replace(build(config), activations=tried)
    seats = Seats(experiment.assignment)
    recorded, started = (
        gpu_need(replace(experiment, is_stochastic=draws), config, seats, 0, "alone").network
        for draws in (False, True)
    )
    assert recorded - started == tried.of_evaluation(200) < tried.of_file(1)


def test_pictures_are_counted_once(need):
    assert need().data == (2000 + 500) * (64 * 4 + 8) + 2 * 4  # and a mean and a deviation
    assert need().there == 0  # it was built on the CPU


def test_the_line_has_all_numbers():
    found = GpuNeed(table=GIB, tables=2.0, network=2 * GIB, data=GIB // 4)
    rest = "GiB of GPU memory: rows 2 x 1.00, network and activations 2.00, data 0.25"
    assert found.line() == f"needs 4.25 {rest}"
    assert found.line(GpuMemory(GIB, 79 * GIB)) == f"needs 4.25 of 79.00 {rest}"


def test_what_cannot_fit_is_refused_with_the_numbers():
    found = GpuNeed(table=GIB, tables=2.0, network=2 * GIB, data=GIB, there=GIB)
    found.check(GpuMemory(free=4 * GIB, total=5 * GIB))  # one of five is there
    found.check(GpuMemory(free=8 * GIB, total=11 * GIB), sharers=2)
    line = "device=cuda: needs 5.00 of {} GiB of GPU memory: rows 2 x 1.00, network and activations"
    for memory, sharers, total, why in (
        (GpuMemory(4 * GIB - 1, 5 * GIB), 1, "5.00", "; 4.00 GiB more are free"),
        (
            GpuMemory(9 * GIB, 11 * GIB - 2),
            2,
            "11.00",
            "; 2 processes share it, each with 0.50 for CUDA's context",
        ),
        (GpuMemory(3 * GIB, 4 * GIB), 1, "4.00", "; 3.00 GiB more are free"),
    ):
        with pytest.raises(ConfigError) as error:
            found.check(memory, sharers)
        assert str(error.value) == line.format(total) + " 2.00, data 1.00" + why


def test_processes_that_share_a_gpu():
    assert [count_sharers(*given) for given in ((1, 1, 1), (4, 1, 4), (5, 1, 4), (2, 3, 2))] == [
        1, 1, 2, 3,
    ]  # fmt: skip


def test_the_headline_says_it_for_a_gpu_elsewhere_and_not_for_a_cpu(plain_config):
    say = partial(describe, name="run", where=LauncherTraits(runs_locally=False))
    assert not any("GPU" in line for line in say(plain_config()).job.lines)
    line = say(plain_config("device=cuda")).job.lines[-1]
    assert line.startswith("needs 0.2")  # the libraries' work space, here
    assert "GiB of GPU memory: rows 1" in line


FULL = """
from byzshield_exp.networks import mlp
built = []
def fits_once(shape, num_classes):
    built.append(shape)
    if len(built) > 1:
        raise {error}
    return mlp(shape, num_classes, hidden=[4])
"""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            "torch.OutOfMemoryError('CUDA out of memory. Tried 2 GiB. More')",
            "CUDA out of memory. T",
        ),
        ("RuntimeError('CUDA error: out of memory\\nMore')", "CUDA error: out of memory: try a"),
    ],
)
def test_a_full_memory_while_the_parts_are_built_is_one_line(
    plain_config, tmp_path, monkeypatch, error, said
):
    (tmp_path / "narrow.py").write_text("import torch\n" + FULL.format(error=error))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "narrow", raising=False)
    config = plain_config("~network.hidden", "network._target_=narrow.fits_once")
    job = describe(config, "run").job
    for build_again in (
        partial(describe, config, "run"),
        partial(play, AloneChannel(), rank_job(job).text),
    ):
        with pytest.raises(RunError) as raised:
            build_again()
        assert str(raised.value).startswith(f"device=cuda: {said}")
        assert "More" not in str(raised.value)
