"""BTARD's protocol in this process, without records; as a program for many short runs.

    python peers_alone.py < {"configs": [...], "steps": 100, "until": 1} > [run, ...]

A process of its own, as the tests' type checks take three times as long as the protocol.
"""

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch


def run_alone(
    config: Mapping[str, Any], steps: int, until: Callable[[int], bool] = lambda banned: False
) -> dict[str, Any]:
    """Do up to ``steps`` steps in this process, to ``until(banned)``; return bans and steps."""
    from byzshield_exp.clusters import AloneChannel
    from byzshield_exp.training.experiment import build
    from byzshield_exp.training.protocol import bind_protocol
    from byzshield_exp.training.updates import Updates

    experiment = build(config)
    channel, runs = AloneChannel(), 64  # as if many shared this machine: no threads
    protocol = bind_protocol(config)(experiment, config, channel, runs, 1)
    updates = Updates(experiment, skips=False)
    protocol.prepare(updates)
    tables = []
    for step in range(steps):
        done = protocol.step(protocol.begin(step))
        assert done is not None
        updates.apply(done[0], done[1].statistics)
        tables.append(done[1].table)
        if until(tables[-1]["banned"]):
            break
    params = experiment.params.clone()
    return {
        **protocol.facts(),
        "tables": tables,
        "liars": experiment.choose.choose(step=0),
        "params": params,
    }


def main() -> None:
    """Read configurations, do the runs, and write what became of them."""
    torch.set_num_threads(1)
    asked = json.load(sys.stdin)
    runs = [
        run_alone(config, asked["steps"], lambda banned: banned >= asked["until"])
        for config in asked["configs"]
    ]
    json.dump([{**run, "params": None} for run in runs], sys.stdout)


if __name__ == "__main__":
    main()
