"""From the winners of a step to its update: momentum, statistics, defence."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from byzshield_exp.aggregators import NonFiniteRows, trimmed_mean
from byzshield_exp.errors import RunError, located
from byzshield_exp.networks import are_variances
from byzshield_exp.training.checks import check_aggregate
from byzshield_exp.training.experiment import Experiment


class Aggregation:
    """What the server does with the winning rows.

    Args of the constructor:
        experiment: the parts.
        state: tensors that outlive a step: worker momentum, and the update before.
    """

    def __init__(self, experiment: Experiment, state: dict[str, Tensor]) -> None:
        self._experiment, self._state = experiment, state
        self._are_variances = are_variances(experiment.network).to(experiment.params.device)

    def update(
        self,
        rows: Float[Tensor, "n d"],
        files: list[int],
        bad: Bool[Tensor, " f"],
        num_corrupt: int,
        step: int,
    ) -> Float[Tensor, " d"]:
        """Return the aggregate of the winning rows.

        Args:
            rows: the winners; overwritten.
            files: of ``rows``, ascending.
            bad: files whose winner is not finite.
            num_corrupt: the most rows that may be forged.
            step: of the run.

        Raises:
            NonFiniteRows: if more rows are not finite than may be forged.
            RunError: if there is no row, or the rule cannot be applied.
        """
        if not files:
            raise RunError(f"step {step + 1}: no file has a majority of equal replicas")
        rows = self._with_momentum(rows, files, bad)
        defence, previous = self._experiment.defence_at(step), self._state.get("previous_update")
        try:
            update = defence.for_rows(files)(rows, num_corrupt, previous)
            check_aggregate(update, rows.shape[1], rows.dtype)
        except NonFiniteRows:
            raise
        except ValueError as error:
            lost = len(bad) - len(files)
            ties = f"; {lost} files have no majority" if lost else ""
            raise RunError(f"step {step + 1}: the aggregator {located(error)}{ties}") from error
        if defence.is_previous_read:
            self._state["previous_update"] = update.clone()
        return update

    def statistics(self, statistics: Float[Tensor, "n s"], num_corrupt: int) -> Float[Tensor, " s"]:
        """Return the coordinate-wise trimmed mean of the finite winners; no variance is below 0.

        The variance of few samples is skewed: its median would be too small, its mean is not.
        """
        if statistics.numel() == 0:
            return self._experiment.flat.statistics.clone()
        usable = statistics[statistics.isfinite().all(dim=1)]
        if usable.numel() == 0:
            return self._experiment.flat.statistics.clone()
        left = max(0, num_corrupt - len(statistics) + len(usable))
        trimmed = min(left, (len(usable) - 1) // 2)  # at most to the median
        found = trimmed_mean(usable, trimmed)
        return torch.where(self._are_variances, found.clamp_min(0), found)

    def _with_momentum(
        self, rows: Float[Tensor, "n d"], files: list[int], bad: Bool[Tensor, " f"]
    ) -> Float[Tensor, "n d"]:
        """Apply worker momentum, kept per file after the vote: ``m <- beta m + (1 - beta) row``.

        A row that is not finite leaves the memory of its file as it was, and is passed on.
        """
        beta = self._experiment.worker_momentum
        if beta == 0:
            return rows
        if "worker_momentum" not in self._state:
            shape = (self._experiment.assignment.num_files, rows.shape[1])
            self._state["worker_momentum"] = rows.new_zeros(shape)
        memory = self._state["worker_momentum"]
        for place, file in enumerate(files):
            if not bad[file]:
                memory[file].mul_(beta).add_(rows[place], alpha=1 - beta)
                rows[place] = memory[file]
        return rows
