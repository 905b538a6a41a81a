"""BTARD's protocol in one process, without records."""

import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import Any

import torch


def runs_apart(
    configs: list[dict[str, Any]], steps: int, until: int = sys.maxsize
) -> list[dict[str, Any]]:
    """Do runs in a process of their own, each up to a number of bans.

    The tests' type checks, which are not there, take three times as long as the protocol.
    """
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps({"configs": configs, "steps": steps, "until": until}),
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def run_alone(config: Mapping[str, Any], steps: int, until: int = sys.maxsize) -> dict[str, Any]:
    """Do steps in this process up to a number of bans; return what is known of the run."""
    from byzshield_exp.clusters import AloneChannel
    from byzshield_exp.training.btard.postings import params_digest
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
        if tables[-1]["banned"] >= until:
            break
    return {
        **protocol.facts(),
        "tables": tables,
        "loss": done[1].loss,
        "liars": experiment.choose.choose(step=0),
        "parameters": params_digest(experiment.params).hex(),
    }


def main() -> None:
    """Read configurations, do the runs, and write what became of them."""
    torch.set_num_threads(1)
    asked = json.load(sys.stdin)
    with redirect_stdout(sys.stderr):  # a run says what it calibrated
        runs = [run_alone(config, asked["steps"], asked["until"]) for config in asked["configs"]]
    json.dump(runs, sys.stdout)


if __name__ == "__main__":
    main()
