"""The truth: a table of gradient rows, one per file."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from byzshield_exp import interrupts
from byzshield_exp.datasets import Batches, Dataset
from byzshield_exp.networks import entries_of, views_of
from byzshield_exp.rows.message import Message
from byzshield_exp.streams import Stream, generator, torch_seeded
from byzshield_exp.training.copies import NetworkCopies, has_twin, statistics_of
from byzshield_exp.training.replay import Computed, Record, Replay


class TrueGradients:
    """The truth: the gradient of each file's mean loss, computed when it is first read in a step.

    Different files are computed in parallel Python threads, each with as many of torch's
    threads as the one that made this, so the bits depend neither on these threads nor on which
    files are computed here.

    A network with running statistics (BatchNorm) starts from the published ones in every file; what
    they are then is sent behind the gradient. Each thread has a twin of the network, which shares
    the parameters. A network that draws random numbers (dropout) is given those of (seed, step,
    file), one file at a time, as torch has one generator a process; and so is one without a twin.

    Args:
        network: its parameters and statistics are the published ones.
        dataset: pictures.
        batches: which of them make up a file.
        num_files: f.
        num_threads: files computed at a time.
        seed: of the run, for random numbers within the network; None: it draws none.
        precision: of products and convolutions: ``float32``, ``tf32`` (a GPU's) or ``bf16``
            (torch's autocast).
        record: records a file's operations to replay them for other files; None, and for a network
            that draws random numbers: they are started one by one.

    Attributes:
        losses: ``[f]``, the mean loss of each computed file of this step, NaN elsewhere.
        num_computed: files computed since the start of the run; what an attacker computes at other
            labels, parameters or steps is not counted.
        sizes: entries of each parameter tensor.
        num_classes: C.
        num_threads: files computed at a time.
        num_statistics: s.
        precision: as given.
    """

    def __init__(
        self,
        network: nn.Module,
        dataset: Dataset,
        batches: Batches,
        num_files: int,
        num_threads: int = 1,
        seed: int | None = None,
        precision: str = "float32",
        record: Record | None = None,
    ) -> None:
        self._network, self._seed, self.precision = network, seed, precision
        self._parameters = list(network.parameters())
        self._published = statistics_of(network)
        self._dataset = dataset
        self._batches = batches
        if seed is not None or (num_threads > 1 and not has_twin(network)):
            num_threads = 1
        self._pool = _pool_of(num_threads) if num_threads > 1 else None
        self._networks = NetworkCopies(
            network, is_shared=not self._published and self._pool is None
        )
        self._replay = Replay(self._operations, record if seed is None else None)
        self.sizes = [parameter.numel() for parameter in self._parameters]
        self._size = sum(self.sizes)
        self.num_classes = dataset.num_classes
        self.num_threads = num_threads
        self.num_statistics = sum(part.numel() for part in self._published)
        self.losses = torch.full((num_files,), torch.nan)
        self._rows: dict[int, Tensor] = {}  # for messages; a GPU has no memory to spare
        self._table: Tensor | None = None
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
        losses = self._for_each(self._compute, todo)
        if losses:
            self.losses[todo] = torch.stack(losses).to(self.losses)  # a GPU was not waited for
        self._computed.update(todo)
        self.num_computed += len(todo)

    def message(self, file: int) -> Message:
        """The gradient of one file, the running statistics after it, and its loss."""
        self.compute([file])
        return Message(self._row(file), self._size, float(self.losses[file]))

    @property
    def table(self) -> Float[Tensor, "f d_plus_s"]:
        """Where the messages of a step are, as far as they are computed."""
        if self._table is None:
            self._table = self._new(len(self.losses), self._size + self.num_statistics)
            for file, row in self._rows.items():
                self._table[file].copy_(row)
            self._rows = dict(enumerate(self._table))
        return self._table

    def _row(self, file: int) -> Float[Tensor, " d_plus_s"]:
        if file not in self._rows:
            self._rows[file] = self._new(1, self._size + self.num_statistics)[0]
        return self._rows[file]

    def rows(self, files: Iterable[int] | None = None) -> Float[Tensor, "m d"]:
        """The gradients of ``files``, or without a copy those of all files."""
        if files is None:
            table = self.table
            self.compute(range(len(table)))
            return table[:, : self._size]
        chosen = list(files)
        self.compute(chosen)
        found = self._new(len(chosen), self._size)
        for place, file in enumerate(chosen):
            found[place] = self._row(file)[: self._size]
        return found

    def blank_row(self) -> Float[Tensor, " d"]:
        """A new vector of a row's size, type and device; its entries are not set."""
        return self._new(1, self._size)[0]

    def poisoned_rows(
        self, files: Iterable[int], poison: Callable[[Tensor, int], Tensor]
    ) -> Float[Tensor, "m d"]:
        """The rows of files whose labels are ``poison(labels [b], file)``; a new tensor."""
        chosen = list(files)
        self.load(chosen)
        rows = self._new(len(chosen), self._size)

        def compute(place: int) -> Tensor:
            file = chosen[place]
            images, labels = self._loaded[file]
            with self._dropout_rng(self._step, file):
                return self._gradient(images, poison(labels, file), rows[place])

        self._for_each(compute, range(len(chosen)))
        return rows

    def rows_at(
        self, step: int, params: Float[Tensor, " d"], files: Iterable[int]
    ) -> Float[Tensor, "m d"]:
        """The true rows of another step's files at other parameters; a new tensor."""
        chosen = list(files)
        batch = [self._samples(step, file) for file in chosen]
        rows = self._new(len(chosen), self._size)

        def compute(place: int) -> Tensor:
            with self._dropout_rng(step, chosen[place]):
                return self._gradient(*batch[place], rows[place])

        with _set_to(self._parameters, params):
            self._for_each(compute, range(len(rows)))
        return rows

    def _new(self, count: int, size: int) -> Float[Tensor, "m size"]:
        return self._parameters[0].new_empty((count, size), requires_grad=False)

    def _samples(self, step: int, file: int) -> tuple[Float[Tensor, "b c h w"], Int[Tensor, " b"]]:
        samples, random = self._batches.file(step, file), self._batches.random(step, file)
        return self._dataset.train_batch(samples, random)

    def _for_each(self, work: Callable[[int], Tensor], items: Iterable[int]) -> list[Tensor]:
        return list(map(work, items) if self._pool is None else self._pool.map(work, items))

    def _compute(self, file: int) -> Tensor:
        interrupts.check()
        gradient, statistics = self._row(file).split([self._size, self.num_statistics])
        with self._dropout_rng(self._step, file):
            loss = self._gradient(*self._loaded[file], gradient)
        if self._published:
            torch.cat([part.reshape(-1) for part in self._networks.mine()[1]], out=statistics)
        return loss

    def _gradient(self, images: Tensor, labels: Tensor, out: Float[Tensor, " d"]) -> Tensor:
        """Write the gradient of the mean loss; return the loss."""
        loss, entries = self._replay(images, labels)
        torch.cat(entries, out=out)
        return loss

    def _operations(self, images: Tensor, labels: Tensor) -> Computed:
        """Compute a file; :class:`Replay` says what these operations may be."""
        network, statistics = self._networks.mine()
        for mine, published in zip(statistics, self._published, strict=True):
            mine.copy_(published)
        rounds = self.precision == "bf16"
        with _tf32() if self.precision == "tf32" else nullcontext():
            with torch.autocast(images.device.type, torch.bfloat16, enabled=rounds):
                loss = cross_entropy(network(images), labels)
            gradients = torch.autograd.grad(loss, self._parameters)
        return Computed(loss.detach(), [entries_of(gradient) for gradient in gradients])

    def _dropout_rng(self, step: int, file: int) -> AbstractContextManager[None]:
        """Seed torch for (seed, step, file)."""
        if self._seed is None:
            return nullcontext()
        random = generator(self._seed, Stream.DROPOUT, step, file)
        return torch_seeded(random, self._parameters[0].device)


def _pool_of(num_threads: int) -> ThreadPoolExecutor:
    """Threads that have as many of torch's threads as the one that makes them.

    A new thread would do its first product with as many of MKL's threads as there are cores.
    """
    streams = torch.get_num_threads()
    return ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(streams,))


@contextmanager
def _tf32() -> Iterator[None]:
    """Allow TF32 for the network alone: rules multiply as well."""
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False


@contextmanager
def _set_to(parameters: Iterable[nn.Parameter], params: Float[Tensor, " d"]) -> Iterator[None]:
    """Give parameters other values for a while."""
    mine = [parameter.detach() for parameter in parameters]
    before = [parameter.clone() for parameter in mine]
    try:
        for parameter, other in zip(mine, views_of(params, mine), strict=True):
            parameter.copy_(other)
        yield
    finally:
        for parameter, value in zip(mine, before, strict=True):
            parameter.copy_(value)
