"""What a run on a GPU takes, against what it says before."""

import pytest
import torch

from byzshield_exp.clusters import Seats
from byzshield_exp.errors import ConfigError
from byzshield_exp.training.experiment import build
from byzshield_exp.training.gpu_memory import GpuMemory, gpu_need
from byzshield_exp.training.loop import train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() == 0, reason="needs a GPU"),
]

PICTURES = ("dataset=synthetic", "dataset.channels=3", "dataset.size=32", "device=cuda")
RESNET = (*PICTURES, "network=resnet18", "batch_size=750", "steps=2", "eval_every=2")


@pytest.mark.parametrize(
    "options",
    [
        ("network.norm=group", "attack=none"),
        ("network.norm=batch", "attack=alie"),
        ("network.norm=group", "attack=alie", "worker_momentum=0.9"),
        ("network.norm=group", "attack=none", "aggregator=bulyan", "q=2"),
    ],
)
def test_a_run_takes_what_it_says_or_a_little_less(plain_config, tmp_path, options):
    """A recorded file's memory is reserved for it alone, and counts as allocated only at first."""
    config = plain_config(*RESNET, *options, small=False)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    torch.cuda.reset_peak_memory_stats()
    experiment = build(config)
    need = gpu_need(experiment, config, Seats(experiment.assignment), 0, "alone")
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((before + need.total) / total)
    try:  # where less is free, torch gives back what it has reserved and does not use
        train(experiment, config, tmp_path)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    reserved = torch.cuda.max_memory_reserved() - before
    assert need.total / 2 < reserved <= need.total, f"{need.line()}, took {reserved / 2**30:.2f}"


def test_a_run_that_cannot_fit_is_refused_before_the_first_step(plain_config, tmp_path):
    config = plain_config(*RESNET, small=False)
    experiment = build(config)
    need = gpu_need(experiment, config, Seats(experiment.assignment), 0, "alone")
    sharers = int(GpuMemory.here().total / need.total) + 1
    with pytest.raises(ConfigError, match=rf"{sharers} processes share it"):
        train(experiment, config, tmp_path, gpu_sharers=sharers)
    assert not list(tmp_path.iterdir())
