"""Which replicas of a step win: presence, labels, and the places of the winners."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from byzshield_exp.assignments import Assignment
from byzshield_exp.clusters import Inbox
from byzshield_exp.errors import RunError, TooFewReplicas, located
from byzshield_exp.training.checks import check_labels
from byzshield_exp.training.experiment import Experiment
from byzshield_exp.training.tables import listed
from byzshield_exp.votes import ABSENT, NO_WINNER, is_finite, winners

MajorityOf = Literal["all", "present"]


@dataclass(frozen=True, eq=False)
class Outcome:
    """The vote of a step.

    Attributes:
        assignment: who computes what.
        labels: ``[f, r]``, equal label = equal replica.
        finite: ``[f, r]``, whether a replica has neither NaN nor Inf.
        places: ``[f]``, which replica of a file wins, or ``NO_WINNER``.
    """

    assignment: Assignment
    labels: Int[Tensor, "f r"]
    finite: Bool[Tensor, "f r"]
    places: Int[Tensor, " f"]

    @property
    def won(self) -> Bool[Tensor, " f"]:
        """The files that have a winner."""
        return self.places != NO_WINNER

    @property
    def bad(self) -> Bool[Tensor, " f"]:
        """The files whose winner has a NaN or Inf."""
        finite = self.finite.gather(1, self.places.clamp_min(0).unsqueeze(1)).squeeze(1)
        return self.won & ~finite

    def classes(self) -> dict[int, list[int]]:
        """Map each file that has a winner to the places of its class, the winner first."""
        classes = {}
        for file, place in enumerate(self.places.tolist()):
            if place != NO_WINNER:
                marks = self.labels[file].tolist()
                same = [at for at, mark in enumerate(marks) if mark == marks[place]]
                classes[file] = [place, *(at for at in same if at != place)]
        return classes

    def won_by(self, liars: Sequence[int]) -> Bool[Tensor, " f"]:
        """The files whose winning class has no honest member, if these workers lie."""
        workers = self.assignment.workers_of_file
        honest = ~torch.isin(workers, torch.tensor(liars, dtype=torch.int64))
        supported = ((self.labels == self._winning_labels()) & honest).any(dim=1)
        return ~supported & self.won

    def senders_of_bad(self, most: int = 5) -> str:
        """Name the workers that sent winners that are not finite, by file."""
        workers, won = self.assignment.workers_of_file, self._winning_labels()
        bad = self.bad.nonzero().flatten().tolist()
        named = [
            f"file {file} from workers {workers[file][self.labels[file] == won[file]].tolist()}"
            for file in bad[:most]
        ]
        more = f" and {len(bad) - most} files more" if len(bad) > most else ""
        return ", ".join(named) + more

    def without(self, files: Sequence[int]) -> "Outcome":
        """Return the same vote where nobody wins these files."""
        places = self.places.clone()
        places[list(files)] = NO_WINNER
        return Outcome(self.assignment, self.labels, self.finite, places)

    def _winning_labels(self) -> Int[Tensor, "f 1"]:
        return self.labels.gather(1, self.places.clamp_min(0).unsqueeze(1))


def vote(experiment: Experiment, inbox: Inbox, majority_of: MajorityOf, step: int) -> Outcome:
    """Find the winners of a step.

    Args:
        experiment: the parts.
        inbox: what came; replicas of absent workers are left out where ``present`` ones count.
        majority_of: whether a class needs a majority of all r replicas or of those that came.
        step: of the run.

    Raises:
        RunError: if the vote of the user's own is none.
        TooFewReplicas: where too few replicas of a file came to go on with.
    """
    assignment = experiment.assignment
    if majority_of == "present":  # num_corrupt is counted without them
        inbox.forget(inbox.absent, assignment.workers_of_file)
    try:
        labels = experiment.vote(inbox.replicas)
        check_labels(labels, assignment.num_files, assignment.replication)
    except ValueError as error:
        raise RunError(f"step {step + 1}: the vote {located(error)}") from error
    finite = is_finite(inbox.rows, labels) if inbox.finite is None else inbox.finite
    present = (labels != ABSENT).sum(dim=1)
    least = assignment.majority if majority_of == "all" else 1
    lost = (present < least).nonzero().flatten().tolist()
    if lost and inbox.absent:
        raise TooFewReplicas(
            f"step {step + 1}: without workers {listed(inbox.absent)} fewer than {least} of the "
            f"{assignment.replication} replicas are left of files {listed(lost)}"
        )
    needed = assignment.majority if majority_of == "all" else present // 2 + 1
    return Outcome(assignment, labels, finite, winners(labels, finite, needed))
