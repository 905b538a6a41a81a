"""What an attacker knows."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from byzshield_exp.aggregators import Defence
from byzshield_exp.assignments import Assignment
from byzshield_exp.attacks.truth import Truth
from byzshield_exp.rows.parallel import chunk_for
from byzshield_exp.streams import Stream, generator

_CHUNK = 1 << 14  # coordinates at a time, so that the rows of a chunk stay in the cache


def _nothing_kept(step: int) -> Tensor:
    raise ValueError(
        f"the parameters of step {step} are not kept: the attack must declare "
        "recent_steps or is_initial_read"
    )


@dataclass(frozen=True, eq=False)
class Knowledge:
    """What a liar knows when it forges its rows: everything, since the data are no secret.

    Attributes:
        truth: the true gradients; rows are computed when read, so an attack that reads only its
            own files pays only for these.
        assignment: the placement.
        liars: the Byzantine workers of this step.
        files: the files to forge a row for, in this order.
        seed: of the run.
        step: from 0.
        num_corrupt: the most files that the liars can win.
        defence: ``defence(rows, num_corrupt) -> [d]``, with the random buckets of this step.
        past: ``past(step) -> [d]``, the parameters at the beginning of an earlier step, of those
            that the attack declares to read.
        memory: what an attack keeps for its next step. It belongs to this process and may be
            lost at any time, so keep only what can be computed again.
        absent: workers who send nothing at this step, neither truth nor lies.
    """

    truth: Truth
    assignment: Assignment
    liars: tuple[int, ...]
    files: tuple[int, ...]
    seed: int
    step: int
    num_corrupt: int
    defence: Defence
    past: Callable[[int], Tensor] = _nothing_kept
    memory: dict[str, Any] = field(default_factory=dict)
    absent: tuple[int, ...] = ()

    @property
    def num_workers(self) -> int:
        """How many workers send something at this step; K without absent ones."""
        return self.assignment.num_workers - len(self.absent)

    @property
    def sent(self) -> Bool[Tensor, " f"]:
        """Which files some worker sends at this step."""
        return _held(self.assignment, self.absent) < self.assignment.replication

    @property
    def sent_files(self) -> list[int]:
        """The files that some worker sends at this step."""
        return self.sent.nonzero().flatten().tolist()

    @cached_property
    def won_files(self) -> tuple[int, ...]:
        """The files of the whole placement that the liars win when they all send the same."""
        return won_files(self.assignment, self.liars)

    @cached_property
    def honest_files(self) -> tuple[int, ...]:
        """The files that some honest worker sends; all that are sent, if all lie."""
        held = self.honest_weights().nonzero().flatten().tolist()
        return tuple(held or self.sent_files)

    def own_rows(self) -> Float[Tensor, "m d"]:
        """The true rows of :attr:`files`, not to be written to."""
        return self.truth.rows(self.files)

    def all_rows(self) -> Float[Tensor, "f d"]:
        """The true rows of all files, not to be written to."""
        return self.truth.rows()

    def chunks(self) -> tuple[Float[Tensor, "f c"], ...]:
        """The true rows of all files, some coordinates at a time; not to be written to.

        The sizes are fixed, so that sums over chunks have the same bits everywhere.
        """
        rows = self.all_rows()
        return tuple(rows.split(chunk_for(rows.device, _CHUNK), dim=1))

    def by_coordinate(self, make: Callable[[Tensor], Tensor]) -> Float[Tensor, " d"]:
        """``make(rows [f, c]) -> [c]`` of every chunk, put together."""
        made, chunks = self.truth.blank_row(), self.chunks()
        parts = made.split([rows.shape[1] for rows in chunks])
        for rows, part in zip(chunks, parts, strict=True):
            part.copy_(make(rows))
        return made

    def one_row(self, make: Callable[[Tensor], Tensor]) -> Float[Tensor, "m d"]:
        """The same row for all of :attr:`files`, made as by :meth:`by_coordinate`."""
        return self.by_coordinate(make).expand(len(self.files), -1)

    def row_by_row(self, make: Callable[[int], Tensor]) -> Float[Tensor, "m d"]:
        """``make(file) -> [d]`` for each of :attr:`files`."""
        blank = self.truth.blank_row()
        forged = blank.new_empty((len(self.files), len(blank)))
        for place, file in enumerate(self.files):
            forged[place] = make(file)
        return forged

    def honest_weights(self) -> Float[Tensor, " f"]:
        """How many honest workers hold each file, in float64.

        Weighted by it, a sum over files runs over what honest workers send: over (file, honest
        holder) pairs, and without redundancy over the honest workers.
        """
        others = _held(self.assignment, (*self.liars, *self.absent))
        return (self.assignment.replication - others).double()

    def honest_mean(self) -> Float[Tensor, " d"]:
        """The mean of what honest workers send."""
        rows = self.all_rows()
        weights = self.honest_weights().to(rows)
        return (weights @ rows) / weights.sum().clamp_min(1)

    def generator(self, file: int) -> np.random.Generator:
        """The generator that all colluders share for one file of this step."""
        return generator(self.seed, Stream.ATTACK, self.step, file)


def won_files(assignment: Assignment, liars: tuple[int, ...]) -> tuple[int, ...]:
    """The files of which these workers hold a majority of the replicas."""
    won = _held(assignment, liars) >= assignment.majority
    return tuple(won.nonzero().flatten().tolist())


def _held(assignment: Assignment, workers: tuple[int, ...]) -> Tensor:
    """``[f]``: how many of these workers hold each file."""
    chosen = torch.tensor(workers, dtype=torch.int64)
    return assignment.incidence[chosen].sum(dim=0)
