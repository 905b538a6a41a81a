"""What ``cluster.backend=auto`` and ``cluster.server_plays=auto`` are, on which machine."""

import pytest
import torch

from byzshield_exp.clusters import backend
from byzshield_exp.errors import ConfigError


def config(device="cpu", cluster="processes", **keys):
    plain = {"num_processes": 4, "backend": "auto", "server_plays": "auto", "majority_of": "all"}
    return {"K": 15, "device": device, "choices": {"cluster": cluster}, "cluster": plain | keys}


@pytest.mark.parametrize(
    ("asked", "under_torchrun", "gpus", "expected"),
    [
        (config(), False, 0, ("sockets", False)),
        (config(), True, 0, ("gloo", False)),
        (config(device="cuda"), True, 4, ("nccl", True)),
        (config(device="cuda", num_processes=16), True, 16, ("nccl", False)),  # K+1 ranks
        (config(device="cuda"), True, 3, ("gloo", False)),  # through host memory
        (config(device="cuda"), False, 4, ("sockets", False)),
        (config(device="cuda", backend="nccl"), False, 4, ("nccl", True)),
        (config(server_plays=True), False, 0, ("gloo", True)),
        (config(backend="gloo", server_plays=True), False, 0, ("gloo", True)),
        (config(backend="sockets"), True, 0, ("sockets", False)),
        (config(majority_of="present"), True, 0, ("sockets", False)),  # gloo bears no loss
        (config(cluster="local", num_processes=1), False, 0, ("alone", False)),
    ],
)
def test_what_is_chosen(monkeypatch, asked, under_torchrun, gpus, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(backend, "is_nccl_available", lambda: True)
    if under_torchrun:
        count = str(asked["cluster"]["num_processes"])
        for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
            monkeypatch.setenv(name, count)
        monkeypatch.setenv("RANK", "0")
    chosen = backend.chosen_backend(asked)
    assert (chosen, backend.server_plays(asked, chosen)) == expected
    resolved = backend.resolved(asked)
    if chosen != "alone":
        assert (resolved["cluster"]["backend"], resolved["cluster"]["server_plays"]) == expected
        assert backend.resolved(resolved) == resolved


def test_nccl_needs_a_gpu_for_each_process_of_this_machine(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    asked = config(device="cuda", backend="nccl")
    with pytest.raises(ConfigError, match="each of the 4 processes on this machine, there are 2"):
        backend.resolved(asked)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # the others are on another one
    monkeypatch.setattr(backend, "is_nccl_available", lambda: True)
    assert backend.resolved(asked)["cluster"]["backend"] == "nccl"
