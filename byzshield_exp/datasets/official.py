"""The files of the known data sets: where they lie, whence they come, what they must be."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from byzshield_exp.files import expand_user


@dataclass(frozen=True)
class Download:
    """One file of a data set's site.

    Attributes:
        urls: of the same file, in the order in which they are tried.
        size: in bytes.
        sha256: of the file.
        gives: what the data set needs of it, below ``dataset.root``: the file itself, or members
            of a tar archive, which have the same names there.
        unpacked: the sizes of these, in bytes; of a ``.gz`` that of what is in it.
    """

    urls: tuple[str, ...]
    size: int
    sha256: str
    gives: tuple[str, ...]
    unpacked: tuple[int, ...]

    @property
    def name(self) -> str:
        """The name of the file."""
        return self.urls[0].rpartition("/")[2]

    @property
    def is_archive(self) -> bool:
        """Whether it has to be unpacked."""
        return self.name.endswith(".tar.gz")


def _idx_files(
    folder: str, sites: tuple[str, ...], files: dict[str, tuple[int, str]]
) -> tuple[Download, ...]:
    return tuple(
        Download(
            urls=tuple(f"{site}/{name}-ubyte.gz" for site in sites),
            size=size,
            sha256=sha256,
            gives=(f"{folder}/{name}-ubyte.gz",),
            unpacked=(_IDX_SIZES[name],),
        )
        for name, (size, sha256) in files.items()
    )


def _cifar(name: str, size: int, sha256: str, gives: dict[str, int]) -> tuple[Download, ...]:
    url = f"https://www.cs.toronto.edu/~kriz/{name}"
    return (Download((url,), size, sha256, tuple(gives), tuple(gives.values())),)


def _svhn(part: str, size: int, sha256: str) -> Download:
    name = f"{part}_32x32.mat"
    url = f"http://ufldl.stanford.edu/housenumbers/{name}"  # it has no https
    return Download((url,), size, sha256, (f"SVHN/{name}",), (size,))


CIFAR10_TRAIN = tuple(f"cifar-10-batches-bin/data_batch_{i}.bin" for i in range(1, 6))
CIFAR10_TEST = "cifar-10-batches-bin/test_batch.bin"
CIFAR100_TRAIN = ("cifar-100-binary/train.bin",)
CIFAR100_TEST = "cifar-100-binary/test.bin"

_CIFAR10_SIZES = dict.fromkeys((*CIFAR10_TRAIN, CIFAR10_TEST), 10_000 * (1 + 3072))
_CIFAR100_SIZES = {CIFAR100_TRAIN[0]: 50_000 * (2 + 3072), CIFAR100_TEST: 10_000 * (2 + 3072)}
_IDX_SIZES = {
    "train-images-idx3": 16 + 60_000 * 28 * 28,
    "train-labels-idx1": 8 + 60_000,
    "t10k-images-idx3": 16 + 10_000 * 28 * 28,
    "t10k-labels-idx1": 8 + 10_000,
}

# Sizes and SHA-256 as TensorFlow Datasets keeps them (url_checksums/*.txt).
DOWNLOADS: dict[str, tuple[Download, ...]] = {
    "mnist": _idx_files(
        "MNIST/raw",
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist",
            "https://storage.googleapis.com/cvdf-datasets/mnist",
        ),
        {
            "train-images-idx3": (
                9_912_422,
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            "train-labels-idx1": (
                28_881,
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            ),
            "t10k-images-idx3": (
                1_648_877,
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            ),
            "t10k-labels-idx1": (
                4_542,
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        },
    ),
    "fashion_mnist": _idx_files(
        "FashionMNIST/raw",
        (
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        ),
        {
            "train-images-idx3": (
                26_421_880,
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            ),
            "train-labels-idx1": (
                29_515,
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            ),
            "t10k-images-idx3": (
                4_422_102,
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            ),
            "t10k-labels-idx1": (
                5_148,
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            ),
        },
    ),
    "cifar10": _cifar(
        "cifar-10-binary.tar.gz",
        170_052_171,
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        _CIFAR10_SIZES,
    ),
    "cifar100": _cifar(
        "cifar-100-binary.tar.gz",
        168_513_733,
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        _CIFAR100_SIZES,
    ),
    "svhn": (
        _svhn(
            "train",
            182_040_794,
            "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
        ),
        _svhn(
            "test",
            64_275_384,
            "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
        ),
    ),
}
SVHN_EXTRA = _svhn(
    "extra",
    1_329_278_602,
    "a133a4beb38a00fcdda90c9489e0c04f900b660ce8a316a5e854838379a71eb3",
)


def found(root: Path, path: str) -> Path | None:
    """A file below ``dataset.root``, of a ``.gz`` also what it unpacks to; None: it is missing."""
    candidates = (root / path, root / path.removesuffix(".gz"))
    return next((one for one in candidates if one.is_file()), None)


def required(root: str, path: str, dataset: str, more: str = "") -> Path:
    """A file below ``dataset.root`` that a data set needs.

    Args:
        root: ``dataset.root``.
        path: below it.
        dataset: as it is typed.
        more: further arguments for the command that fetches it, after a blank.

    Raises:
        ValueError: if it is missing, with the command that fetches it.
    """
    there = found(expand_user(root), path)
    if there is None:
        raise ValueError(
            f"dataset.root={root} has no {path}: fetch it once with byzshield "
            f"prepare dataset={dataset} dataset.root={shlex.quote(root)}{more}"
        )
    return there
