"""The one loop, on every rank of a run."""

from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import torch

from byzshield_exp import interrupts
from byzshield_exp.clusters import AloneChannel, Channel
from byzshield_exp.errors import LostRank, RunError, Stopped, TooFewReplicas
from byzshield_exp.training.experiment import Experiment
from byzshield_exp.training.gpu_memory import full_memory_named
from byzshield_exp.training.learner import Learner
from byzshield_exp.training.memory import keep_freed_memory
from byzshield_exp.training.protocol import TrainingProtocol, bind_protocol
from byzshield_exp.training.updates import Updates


@full_memory_named()
def train(
    experiment: Experiment,
    config: Mapping[str, Any],
    folder: Path,
    channel: Channel | None = None,
    runs: int = 1,
    gpu_sharers: int = 1,
) -> dict[str, Any] | None:
    """Train in this process; rank 0 returns the summary that it wrote, other ranks None.

    Args:
        experiment: the parts, built from ``config``.
        config: plain and resolved.
        folder: of the run; only rank 0 writes to it.
        channel: what connects this process with the others; None: it plays everybody.
        runs: that share this machine's cores.
        gpu_sharers: processes that share this one's GPU.

    Raises:
        ConfigError: if a GPU has too little memory.
        TooFewReplicas: if too many workers are gone; what was done is in a checkpoint.
        LostRank: if one is gone or late that the run cannot do without; as above.
        Stopped: at SIGTERM; what was done is in a checkpoint.
        RunError: if the run cannot go on for another reason.
    """
    torch.set_num_threads(config["threads"])
    keep_freed_memory()
    channel = channel or AloneChannel()
    protocol = bind_protocol(config)(experiment, config, channel, runs, gpu_sharers)
    is_server, learner = channel.rank == 0, None
    with interrupts.heard() if is_server else nullcontext():  # others wait for rank 0's word
        try:
            learner = _learner(experiment, protocol, config, folder) if is_server else None
            skips = config["on_nonfinite"] == "skip_step"
            updates = learner.updates if learner else Updates(experiment, skips)
            return _loop(protocol, learner, updates)
        except (Stopped, TooFewReplicas, LostRank) as error:
            if learner is None:
                raise
            saved, cause = learner.save_early(), _cause(error, protocol)
            raise type(cause)(f"{cause}; {saved}") from error
        finally:
            with suppress(LostRank):  # why the run ends is known already
                protocol.end()
            if learner:
                learner.close()


def _learner(
    experiment: Experiment, protocol: TrainingProtocol, config: Mapping[str, Any], folder: Path
) -> Learner:
    try:
        return Learner(experiment, protocol, config, folder)
    except Exception:
        with suppress(RunError, Stopped):  # the other ranks prepare, and hear then that it is over
            protocol.prepare(Updates(experiment, skips=False))
        raise


def _cause(error: RunError | Stopped, protocol: TrainingProtocol) -> RunError | Stopped:
    """End the run; return why: torchrun sends SIGTERM because a rank is lost."""
    try:
        protocol.end()
    except LostRank as lost:
        return lost
    return error


def _loop(
    protocol: TrainingProtocol, learner: Learner | None, updates: Updates
) -> dict[str, Any] | None:
    protocol.prepare(updates)
    while (step := protocol.begin(learner.next_step if learner else None)) is not None:
        interrupts.check()
        done = protocol.step(step)
        if learner and done:
            learner.finish_step(*done)
        elif done:  # a protocol whose ranks all hold the parameters
            updates.apply(done[0], done[1].statistics)
        del done  # with the update, before rows come again
    return learner.finish() if learner else None
