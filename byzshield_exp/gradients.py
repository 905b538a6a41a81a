"""Truth and lies: the two tables of gradient rows, one row per file."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from byzshield_exp import interrupts
from byzshield_exp.datasets import Batches, Dataset


@runtime_checkable
class Table(Protocol):
    """One gradient row per file."""

    def row(self, file: int) -> Float[Tensor, " d"]:
        """The row of one file."""
        ...


@runtime_checkable
class Truth(Protocol):
    """What an attacker reads of the true gradients.

    Attributes:
        sizes: entries of each parameter tensor, in ``parameters()`` order; their sum is d.
        num_classes: C.
    """

    sizes: list[int]
    num_classes: int

    def rows(self, files: Iterable[int] | None = None) -> Float[Tensor, "m d"]:
        """The rows of some files, None: of all; not to be written to."""
        ...

    def blank_row(self) -> Float[Tensor, " d"]:
        """A new vector of a row's size, type and device; its entries are not set."""
        ...

    def poisoned_rows(
        self, files: Iterable[int], poison: Callable[[Tensor, int], Tensor]
    ) -> Float[Tensor, "m d"]:
        """The rows of files whose labels are ``poison(labels [b], file)``; a new tensor."""
        ...

    def rows_at(
        self, step: int, params: Float[Tensor, " d"], files: Iterable[int]
    ) -> Float[Tensor, "m d"]:
        """The true rows of another step's files at other parameters; a new tensor."""
        ...


class TrueGradients:
    """The truth: the gradient of each file's mean loss, computed when it is first read in a step.

    Different files are computed in parallel Python threads, each with as many of torch's
    threads as the one that made this, so the bits depend neither on these threads nor on which
    files are computed here.

    Attributes:
        losses: ``[f]``, the mean loss of each computed file of this step, NaN elsewhere.
        num_computed: files computed since the start of the run; what only an attacker computes
            is not counted.
        sizes: entries of each parameter tensor.
        num_classes: C.
        num_threads: files computed at a time.
        table: ``[f, d]``, where the rows of a step are, as far as they are computed.
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
        # a new thread would do its first product with as many of MKL's threads as there are cores
        streams = torch.get_num_threads()
        self._pool = (
            ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(streams,))
            if num_threads > 1
            else None
        )
        self.sizes = [parameter.numel() for parameter in self._parameters]
        self.num_classes = dataset.num_classes
        self.num_threads = num_threads
        self.table: Tensor = self._new_rows(num_files)
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
            self._loaded[file] = self._samples(self._step, file)

    def compute(self, files: Iterable[int]) -> None:
        """Compute the rows of files that are not there yet."""
        todo = sorted(set(files) - self._computed)
        self.load(todo)
        self._for_each(self._compute, todo)
        self._computed.update(todo)
        self.num_computed += len(todo)

    def row(self, file: int) -> Float[Tensor, " d"]:
        """The row of one file."""
        self.compute([file])
        return self.table[file]

    def rows(self, files: Iterable[int] | None = None) -> Float[Tensor, "m d"]:
        """The rows of ``files``, or without a copy the rows of all files."""
        if files is None:
            self.compute(range(len(self.table)))
            return self.table
        chosen = list(files)
        self.compute(chosen)
        return self.table[chosen]

    def blank_row(self) -> Float[Tensor, " d"]:
        """A new vector of a row's size, type and device; its entries are not set."""
        return torch.empty_like(self.table[0])

    def poisoned_rows(
        self, files: Iterable[int], poison: Callable[[Tensor, int], Tensor]
    ) -> Float[Tensor, "m d"]:
        """The rows of files whose labels are ``poison(labels [b], file)``; a new tensor."""
        chosen = list(files)
        self.load(chosen)
        rows = self._new_rows(len(chosen))

        def compute(place: int) -> None:
            images, labels = self._loaded[chosen[place]]
            self._gradient(images, poison(labels, chosen[place]), rows[place])

        self._for_each(compute, range(len(chosen)))
        return rows

    def rows_at(
        self, step: int, params: Float[Tensor, " d"], files: Iterable[int]
    ) -> Float[Tensor, "m d"]:
        """The true rows of another step's files at other parameters; a new tensor."""
        chosen = list(files)
        batch = [self._samples(step, file) for file in chosen]
        rows = self._new_rows(len(chosen))
        with self._parameters_set_to(params):
            self._for_each(
                lambda place: self._gradient(*batch[place], rows[place]), range(len(rows))
            )
        return rows

    @contextmanager
    def _parameters_set_to(self, params: Float[Tensor, " d"]) -> Iterator[None]:
        mine = [parameter.detach() for parameter in self._parameters]
        before = [parameter.clone() for parameter in mine]
        try:
            for parameter, other in zip(mine, params.split(self.sizes), strict=True):
                parameter.copy_(other.view_as(parameter))
            yield
        finally:
            for parameter, value in zip(mine, before, strict=True):
                parameter.copy_(value)

    def _new_rows(self, count: int) -> Float[Tensor, "m d"]:
        return self._parameters[0].new_empty((count, sum(self.sizes)), requires_grad=False)

    def _samples(self, step: int, file: int) -> tuple[Float[Tensor, "b c h w"], Int[Tensor, " b"]]:
        samples, random = self._batches.file(step, file), self._batches.random(step, file)
        return self._dataset.train_batch(samples, random)

    def _for_each(self, work: Callable[[int], object], items: Iterable[int]) -> None:
        if self._pool is None:
            for item in items:
                work(item)
        else:
            list(self._pool.map(work, items))

    def _compute(self, file: int) -> None:
        interrupts.check()
        self.losses[file] = self._gradient(*self._loaded[file], self.table[file])

    def _gradient(self, images: Tensor, labels: Tensor, out: Float[Tensor, " d"]) -> Tensor:
        """Write the gradient of the mean loss; return the loss."""
        loss = cross_entropy(self._network(images), labels)
        gradients = torch.autograd.grad(loss, self._parameters)
        torch.cat([gradient.reshape(-1) for gradient in gradients], out=out)
        return loss.detach()


class Lies:
    """What the liars of this process send: the forged row of each file that one of them holds."""

    def __init__(self, files: Iterable[int], rows: Float[Tensor, "m d"]) -> None:
        self._rows: dict[int, Tensor] = dict(zip(files, rows, strict=True))

    def row(self, file: int) -> Float[Tensor, " d"]:
        """The forged row of one file."""
        return self._rows[file]
