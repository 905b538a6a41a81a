"""Data sets with official files, which torchvision reads.

torchvision is imported only in the functions that need it: that takes two seconds.
"""

import shlex
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from byzshield_exp.datasets.dataset import Pictures
from byzshield_exp.errors import first_line
from byzshield_exp.files import expand_user


@dataclass(frozen=True)
class Official:
    """The facts about a data set that need no reading.

    Attributes:
        class_name: of its reader in ``torchvision.datasets``.
        num_train: training pictures.
        num_test: test pictures.
        shape: channels, height and width of a picture.
        num_classes: C.
    """

    class_name: str
    num_train: int
    num_test: int
    shape: tuple[int, int, int]
    num_classes: int


OFFICIAL = {
    "mnist": Official("MNIST", 60_000, 10_000, (1, 28, 28), 10),
    "fashion_mnist": Official("FashionMNIST", 60_000, 10_000, (1, 28, 28), 10),
    "cifar10": Official("CIFAR10", 50_000, 10_000, (3, 32, 32), 10),
    "cifar100": Official("CIFAR100", 50_000, 10_000, (3, 32, 32), 100),
    "svhn": Official("SVHN", 73_257, 26_032, (3, 32, 32), 10),
}
SVHN_EXTRA = 531_131


def has_known_pictures(dataset: str) -> bool:
    """Whether the name of a data set and its arguments say which pictures it has."""
    return dataset in (*OFFICIAL, "digits", "synthetic")


def reader(dataset: str) -> Any:
    """Return the class in ``torchvision.datasets`` that reads a data set."""
    import torchvision.datasets

    return getattr(torchvision.datasets, OFFICIAL[dataset].class_name)


def svhn_folder(root: Path) -> Path:
    """Return the folder of SVHN's files: ``root``, as torchvision has them, or ``root/SVHN``."""
    return root if (root / "train_32x32.mat").is_file() else root / "SVHN"


def stored_files(dataset: str, root: Path, extra: bool = False) -> dict[Path, str | None]:
    """List the files that torchvision reads, and the MD5 that it insists on.

    Args:
        dataset: a key of ``OFFICIAL``.
        root: ``dataset.root``.
        extra: whether SVHN's further training pictures are needed.

    Returns:
        None for an MD5 that torchvision does not check: those of MNIST's unpacked files.
    """
    source = reader(dataset)
    if dataset == "svhn":
        splits = ["train", "test", *(["extra"] if extra else [])]
        listed = [source.split_list[split] for split in splits]
        return {svhn_folder(root) / name: md5 for _, name, md5 in listed}
    if hasattr(source, "resources"):
        raw = root / source.__name__ / "raw"
        return {raw / name.removesuffix(".gz"): None for name, _ in source.resources}
    listed = [*source.train_list, *source.test_list, (source.meta["filename"], source.meta["md5"])]
    return {root / source.base_folder / name: md5 for name, md5 in listed}


def is_missing(dataset: str, root: str) -> bool:
    """Return whether a data set that can be fetched is not in a folder."""
    if dataset not in OFFICIAL:
        return False
    return not all(path.is_file() for path in stored_files(dataset, expand_user(root)))


def read(dataset: str, root: str, extra: bool = False) -> tuple[Pictures, Pictures]:
    """Read the training and the test pictures.

    Args:
        dataset: a key of ``OFFICIAL``.
        root: ``dataset.root``.
        extra: whether SVHN's further training pictures follow the others.

    Raises:
        ValueError: if a file is missing, with the command that fetches it, or is damaged.
    """
    folder = expand_user(root)
    files = stored_files(dataset, folder, extra)
    command = f"byzshield prepare dataset={dataset} dataset.root={shlex.quote(root)}"
    command += " dataset.extra=true" if extra else ""
    for path in files:
        if not path.is_file():
            missing = path.relative_to(folder)
            raise ValueError(f"dataset.root={root} has no {missing}: fetch it once with {command}")
    try:
        train, test = _part(dataset, folder, "train"), _part(dataset, folder, "test")
        if extra:
            pairs = zip(train, _part(dataset, folder, "extra"), strict=True)
            train = Pictures(*(torch.cat(pair) for pair in pairs))
    except MemoryError:
        raise
    except Exception as error:  # torchvision's readers fail on damaged files in many ways
        wrong = _fault(files, first_line(error))
        raise ValueError(f"{wrong}: delete it and do {command}") from error
    return train, test


def _part(dataset: str, root: Path, part: str) -> Pictures:
    """Read the ``train``, ``test`` or ``extra`` part."""
    source = reader(dataset)
    with quiet():
        if dataset == "svhn":
            content = source(svhn_folder(root), split=part)
        else:
            content = source(root, train=part == "train")
    labels = torch.as_tensor(content.labels if dataset == "svhn" else content.targets)
    images = np.asarray(content.data)
    if images.ndim == 3:
        images = images[:, None]
    elif dataset != "svhn":
        images = images.transpose(0, 3, 1, 2)
    pictures = Pictures(torch.from_numpy(np.ascontiguousarray(images)), labels)
    _check(OFFICIAL[dataset], part, pictures)
    return pictures


def _check(official: Official, part: str, pictures: Pictures) -> None:
    """Refuse wrong shapes and labels: torchvision takes any unpacked file of MNIST."""
    images, labels = pictures
    sizes, bound = list(images.shape), official.num_classes - 1
    if not len(images) or sizes != [len(labels), *official.shape]:
        raise ValueError(f"{part}: pictures {sizes} and labels {list(labels.shape)}")
    if not 0 <= int(labels.min()) <= int(labels.max()) <= bound:
        raise ValueError(f"{part}: the class {int(labels.max())}, the bound is {bound}")


def _fault(files: dict[Path, str | None], reason: str) -> str:
    """Say which file is not the official one, or else why the folder cannot be read."""
    from torchvision.datasets.utils import check_integrity

    for path, md5 in files.items():
        if not check_integrity(path, md5):
            return f"{path} is not the official file (another MD5)"
    return f"{next(iter(files)).parent} is damaged ({reason})"


@contextmanager
def quiet() -> Iterator[None]:
    """Hide warnings that are about torchvision's code and not about the user's."""
    with warnings.catch_warnings():
        # NumPy 2.4.0 to 2.4.4 object to how CIFAR was pickled, Python 3.12 to how it is unpacked
        warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
