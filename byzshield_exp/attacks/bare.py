"""Gradients without a network, for attacks on bare tensors."""

from collections.abc import Callable, Iterable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from byzshield_exp.aggregators import Defence, mean
from byzshield_exp.assignments import Assignment, baseline
from byzshield_exp.attacks.knowledge import Knowledge


def knowledge_of(
    rows: Float[Tensor, "n d"],
    num_byzantine: int,
    defence: Defence | None = None,
    seed: int = 0,
    step: int = 0,
) -> Knowledge:
    """Make what liars know of bare rows, one per worker; an attack then returns the liars' rows.

    Args:
        rows: the true gradient of every worker, those of the liars last.
        num_byzantine: how many lie.
        defence: what they lie to; None: the mean.
        seed: of attacks that draw numbers; another step is another draw.
        step: from 0.

    Raises:
        ValueError: unless ``0 <= num_byzantine <= n``.

    Source: our own; one worker per row, as in libraries of rules without a placement.
    """
    count = len(rows)
    if not 0 <= num_byzantine <= count:
        raise ValueError(f"needs 0 <= num_byzantine <= n, got {num_byzantine=} n={count}")
    liars = tuple(range(count - num_byzantine, count))
    return Knowledge(
        truth=GivenRows(rows),
        assignment=baseline(count),
        liars=liars,
        files=liars,
        seed=seed,
        step=step,
        num_corrupt=num_byzantine,
        defence=defence or Defence(partial(mean)),
        past=_no_past,
    )


def check_attack(
    forge: Callable[..., Tensor],
    assignment: Assignment,
    liars: tuple[int, ...],
    num_corrupt: int,
    defence: Defence,
) -> None:
    """Try a bound attack on a few zeros, so that a bad argument shows before anything starts.

    Raises:
        ValueError: from the attack, or if it does not return one row per file.
    """
    held = assignment.files_of_worker[list(liars)].unique().tolist()
    knowledge = Knowledge(
        truth=_Zeros(torch.zeros(assignment.num_files, 4)), assignment=assignment, liars=liars,
        files=tuple(held), seed=0, step=0, num_corrupt=num_corrupt, defence=defence,
        past=lambda step: torch.zeros(4),
    )  # fmt: skip
    check_forged(forge(knowledge), len(held), 4)


def check_forged(rows: Tensor, count: int, width: int) -> None:
    """Check what an attack returns.

    Raises:
        ValueError: unless it is a float32 tensor ``[count, width]``.
    """
    is_tensor = isinstance(rows, Tensor)
    if not is_tensor or rows.shape != (count, width) or rows.dtype != torch.float32:
        got = f"{list(rows.shape)} {rows.dtype}" if is_tensor else type(rows).__name__
        raise ValueError(
            f"must return rows of shape [{count}, {width}] of torch.float32, got {got}"
        )


class GivenRows:
    """A truth made of a tensor: row i is the gradient of file i.

    Attributes:
        sizes: d in one part.
        num_classes: 0, there are no labels.
    """

    def __init__(self, rows: Float[Tensor, "f d"]) -> None:
        self._rows = rows
        self.sizes = [rows.shape[1]]
        self.num_classes = 0

    def rows(self, files: Iterable[int] | None = None) -> Float[Tensor, "m d"]:
        """The rows of ``files``; None: all, without a copy."""
        return self._rows if files is None else self._rows[list(files)]

    def blank_row(self) -> Float[Tensor, " d"]:
        """A new vector of a row's size, type and device; its entries are not set."""
        return self._rows.new_empty(self._rows.shape[1])

    def poisoned_rows(
        self, files: Iterable[int], poison: Callable[[Tensor, int], Tensor]
    ) -> Float[Tensor, "m d"]:
        """Refuse: labels need a network.

        Raises:
            ValueError: always.
        """
        raise ValueError("this attack changes labels: it needs a run, bare rows have none")

    def rows_at(
        self, step: int, params: Float[Tensor, " d"], files: Iterable[int]
    ) -> Float[Tensor, "m d"]:
        """Refuse: other steps need a network.

        Raises:
            ValueError: always.
        """
        raise ValueError("this attack looks at other steps: it needs a run, bare rows have none")


class _Zeros(GivenRows):
    """Zeros in place of every gradient."""

    def poisoned_rows(
        self, files: Iterable[int], poison: Callable[[Tensor, int], Tensor]
    ) -> Float[Tensor, "m d"]:
        return self.rows(files)

    def rows_at(
        self, step: int, params: Float[Tensor, " d"], files: Iterable[int]
    ) -> Float[Tensor, "m d"]:
        return self.rows(files)


def _no_past(step: int) -> Tensor:
    """Refuse: bare rows have no earlier steps.

    Raises:
        ValueError: always.
    """
    raise ValueError(f"this attack looks back at step {step}: it needs a run, bare rows have none")
