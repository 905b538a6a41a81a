"""Rows over NCCL, where there is a GPU for each rank: the bits of one process on a GPU."""

import pytest
import torch
from running import SMALL, summary_of, text_of

from byzshield_exp.clusters import run_ranks, start_forkserver
from byzshield_exp.launch.ranks import preload, run_rank

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() == 0, reason="needs a GPU"),
]


@pytest.mark.parametrize("vote", ["majority", "digest"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_every_number_of_gpus_ends_with_the_bits_of_one_process(
    tmp_path, run, plain_config, count, vote
):
    if torch.cuda.device_count() < count:
        pytest.skip(f"needs {count} GPUs")
    options = (*SMALL, "device=cuda", f"vote={vote}")
    alone = run(*options, small=False, folder=tmp_path / "alone")
    start_forkserver(preload())
    keys = (f"num_processes={count}", "backend=nccl", "server_plays=true")
    cluster = ("cluster=processes", *(f"cluster.{key}" for key in keys))
    config = plain_config(*options, *cluster, small=False)
    run_ranks(run_rank, count, text_of(config, tmp_path / "there"), preload())
    there = summary_of(tmp_path / "there")
    assert there["parameters_sha256"] == alone["parameters_sha256"]


def test_two_ranks_on_one_gpu_go_over_gloo_through_host_memory(tmp_path, run, plain_config):
    options = (*SMALL, "device=cuda", "vote=majority")
    alone = run(*options, small=False, folder=tmp_path / "alone")
    start_forkserver(preload())
    keys = ("num_processes=2", "backend=gloo", "server_plays=true")
    cluster = ("cluster=processes", *(f"cluster.{key}" for key in keys))
    config = plain_config(*options, *cluster, small=False)
    run_ranks(run_rank, 2, text_of(config, tmp_path / "there"), preload())
    there = summary_of(tmp_path / "there")
    assert there["parameters_sha256"] == alone["parameters_sha256"]
