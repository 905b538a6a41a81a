"""Truth and lies: the two tables of gradient rows, one row per file."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from byzshield_exp.datasets import Batches, Dataset


@runtime_checkable
class Table(Protocol):
    """One gradient row per file."""

    def row(self, file: int) -> Float[Tensor, " d"]:
        """The row of one file."""
        ...


@runtime_checkable
class Truth(Protocol):
    """What an attacker reads of the true gradients."""

    def rows(self, files: Iterable[int] | None = None) -> Float[Tensor, "m d"]:
        """The rows of some files, None: of all; not to be written to."""
        ...

    def blank_row(self) -> Float[Tensor, " d"]:
        """A new vector of a row's size, type and device; its entries are not set."""
        ...


class TrueGradients:
    """The truth: the gradient of each file's mean loss, computed when it is first read in a step.

    Different files are computed in parallel Python threads, each with one intra-op stream of
    arithmetic, so the bits depend neither on the threads nor on which files are computed here.

    Attributes:
        losses: ``[f]``, the mean loss of each computed file of this step, NaN elsewhere.
        num_computed: files computed since the start of the run.
    """

    def __init__(
        self,
        network: nn.Module,
        dataset: Dataset,
        batches: Batches,
        num_files: int,
        num_threads: int = 1,
    ) -> None:
        self._network = network
        self._parameters = list(network.parameters())
        self._dataset = dataset
        self._batches = batches
        self._pool = ThreadPoolExecutor(num_threads) if num_threads > 1 else None
        size = sum(parameter.numel() for parameter in self._parameters)
        self._rows: Tensor = self._parameters[0].new_empty((num_files, size), requires_grad=False)
        self.losses = torch.full((num_files,), torch.nan)
        self.num_computed = 0
        self._step = 0
        self._loaded: dict[int, tuple[Tensor, Tensor]] = {}
        self._computed: set[int] = set()

    def begin(self, step: int) -> None:
        """Forget the rows of the step before."""
        self._step = step
        self._loaded.clear()
        self._computed.clear()
        self.losses.fill_(torch.nan)

    def load(self, files: Iterable[int]) -> None:
        """Fetch the samples of files that are not there yet."""
        for file in set(files) - self._loaded.keys():
            samples = self._batches.file(self._step, file)
            data = self._dataset
            self._loaded[file] = (data.train_images[samples], data.train_labels[samples])

    def compute(self, files: Iterable[int]) -> None:
        """Compute the rows of files that are not there yet."""
        todo = sorted(set(files) - self._computed)
        self.load(todo)
        if self._pool is None:
            for file in todo:
                self._compute(file)
        else:
            list(self._pool.map(self._compute, todo))
        self._computed.update(todo)
        self.num_computed += len(todo)

    def row(self, file: int) -> Float[Tensor, " d"]:
        """The row of one file."""
        self.compute([file])
        return self._rows[file]

    def rows(self, files: Iterable[int] | None = None) -> Float[Tensor, "m d"]:
        """The rows of ``files``, or without a copy the rows of all files."""
        if files is None:
            self.compute(range(len(self._rows)))
            return self._rows
        chosen = list(files)
        self.compute(chosen)
        return self._rows[chosen]

    def blank_row(self) -> Float[Tensor, " d"]:
        """A new vector of a row's size, type and device; its entries are not set."""
        return torch.empty_like(self._rows[0])

    def _compute(self, file: int) -> None:
        images, labels = self._loaded[file]
        loss = cross_entropy(self._network(images), labels)
        gradients = torch.autograd.grad(loss, self._parameters)
        torch.cat([gradient.reshape(-1) for gradient in gradients], out=self._rows[file])
        self.losses[file] = loss.detach()


class Lies:
    """What the liars of this process send: the forged row of each file that one of them holds."""

    def __init__(self, files: Iterable[int], rows: Float[Tensor, "m d"]) -> None:
        self._rows: dict[int, Tensor] = dict(zip(files, rows, strict=True))

    def row(self, file: int) -> Float[Tensor, " d"]:
        """The forged row of one file."""
        return self._rows[file]
