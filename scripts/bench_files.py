"""Compare ways to compute many files' gradients on one device: a loop, vmap, one batch, plain SGD.

    python scripts/bench_files.py
    python scripts/bench_files.py --device cuda
    python scripts/bench_files.py --networks resnet18 --width 8 --file-size 10

- ``plain``: the gradient of all samples at once with torch's defaults, as plain SGD computes it.
- ``batch``: the same with kernels and pictures in our layout (channels last).
- ``loop``: what a run does, file by file, ``--parallel`` of them at a time on a CPU.
- ``vmap``: ``torch.func`` over the files.

Networks with normalisation use group normalisation, as vmap supports no running statistics. The
modes take turns, so that noise on the machine affects all alike. Figures are medians; CPU seconds
are those of all threads. ``same bits`` says whether a file's gradient has the same bits when only
half of the files are computed. If not, workers that hold different files would disagree.
"""

import argparse
import inspect
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from byzshield_exp import networks
from byzshield_exp.datasets import Batches, Dataset, synthetic
from byzshield_exp.networks import flatten
from byzshield_exp.training.gradients import TrueGradients
from byzshield_exp.training.task import prepare_gpu


def main() -> None:
    """Measure, and print a table for each network."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="*", default=["lenet", "resnet18"])
    parser.add_argument("--width", type=int, help="of residual networks")
    parser.add_argument("--files", type=int, default=25)
    parser.add_argument("--file-size", type=int, default=30)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    if given.device == "cuda":
        prepare_gpu()
    for name in given.networks:
        _bench(name, given)


def _bench(name: str, given: argparse.Namespace) -> None:
    torch.set_num_threads(1)  # of each thread that computes a file
    shape = (1, 28, 28) if name == "lenet" else (3, 32, 32)
    make = getattr(networks, name)
    options = {"norm": "group"} if "norm" in inspect.signature(make).parameters else {}
    if given.width and "width" in inspect.signature(make).parameters:
        options["width"] = given.width
    made, plain = (make(shape, 10, **options).to(given.device) for _ in range(2))
    flatten(made)
    data = _data(shape, given.files * given.file_size, given.device)
    batches = Batches(data.num_train, data.num_train, given.files, seed=0)
    truth = TrueGradients(
        made, data, batches, given.files, given.parallel if given.device == "cpu" else 1
    )
    samples = torch.cat([batches.file(0, file) for file in range(given.files)])
    pictures, labels = data.train_batch(samples, batches.random(0, 0))
    modes: dict[str, Callable[[], object]] = {
        "plain": lambda: _gradients(plain, pictures.contiguous(), labels),
        "batch": lambda: _gradients(made, pictures, labels),
        "loop": lambda: _loop(truth, range(given.files)),
        "vmap": lambda: _vmap(made, pictures, labels, given.files),
    }
    seconds: dict[str, list[tuple[float, float]]] = {mode: [] for mode in modes}
    for turn in range(given.repeats + 1):
        for mode, work in modes.items():
            torch.set_num_threads(1 if mode == "loop" else given.parallel)
            start, cpu = time.perf_counter(), time.process_time()
            work()
            if given.device != "cpu":
                torch.cuda.synchronize()
            if turn:
                taken = time.perf_counter() - start, time.process_time() - cpu
                seconds[mode].append(taken)
    torch.set_num_threads(1)
    _report(name, given, seconds, _repeats(made, truth, pictures, labels, given.files))


def _report(
    name: str,
    given: argparse.Namespace,
    seconds: dict[str, list[tuple[float, float]]],
    repeats: dict[str, bool],
) -> None:
    print(f"{name}, {given.files} files of {given.file_size}, {given.device}")
    print("mode       s    of plain    CPU s    of plain    same bits")
    floor = [median(column) for column in zip(*seconds["plain"], strict=True)]
    for mode, taken in seconds.items():
        wall, cpu = (median(column) for column in zip(*taken, strict=True))
        same = {True: "yes", False: "no", None: ""}[repeats.get(mode)]
        ratios = f"{wall / floor[0]:10.2f}{cpu:10.3f}{cpu / floor[1]:10.2f}"
        print(f"{mode:<6}{wall:8.3f}{ratios}    {same}")


def _data(shape: tuple[int, int, int], count: int, device: str) -> Dataset:
    data = synthetic(num_train=count, num_test=1, channels=shape[0], size=shape[1])
    images, labels = data.train_images.to(device), data.train_labels.to(device)
    return Dataset(images, labels, images[:1], labels[:1], 10)


def _gradients(network: nn.Module, pictures: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    loss = cross_entropy(network(pictures), labels)
    return torch.autograd.grad(loss, list(network.parameters()))


def _loop(truth: TrueGradients, files: range) -> Tensor:
    truth.begin(0)
    truth.compute(files)
    return truth.table


def _vmap(network: nn.Module, pictures: Tensor, labels: Tensor, files: int) -> dict[str, Tensor]:
    parameters = {name: part.detach() for name, part in network.named_parameters()}

    def loss(parameters: dict[str, Tensor], images: Tensor, classes: Tensor) -> Tensor:
        return cross_entropy(functional_call(network, parameters, (images,)), classes)

    by_file = pictures.unflatten(0, (files, -1)), labels.unflatten(0, (files, -1))
    found: dict[str, Tensor] = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, *by_file)
    return found


def _repeats(
    network: nn.Module, truth: TrueGradients, pictures: Tensor, labels: Tensor, files: int
) -> dict[str, bool]:
    """Whether the first half of the files has the same bits when it is computed alone."""
    half = max(1, files // 2)
    table = _loop(truth, range(files))[:half].clone()
    truth.table.fill_(torch.nan)
    is_same = torch.equal(_loop(truth, range(half))[:half], table)
    many = len(labels) // files * half
    whole = _vmap(network, pictures, labels, files)
    part = _vmap(network, pictures[:many], labels[:many], half)
    return {
        "loop": is_same,
        "vmap": all(torch.equal(whole[name][:half], part[name]) for name in whole),
    }


if __name__ == "__main__":
    main()
