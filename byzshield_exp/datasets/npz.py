"""Your own pictures as arrays in one .npz file."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from byzshield_exp.datasets.dataset import Dataset, Pictures, divided
from byzshield_exp.datasets.pixels import Augment
from byzshield_exp.errors import first_line
from byzshield_exp.files import expand_user


def npz(
    file: str, root: str = "data", num_validation: int = 0, augment: Augment = "none"
) -> Dataset:
    """Arrays ``train_images``, ``train_labels``, ``test_images`` and ``test_labels``.

    Pictures are ``[n, c, h, w]``, or ``[n, h, w]`` for grey ones, of bytes (uint8) or floats.
    Labels are ``[n]``, whole numbers from 0, each of which occurs in training. Pictures are
    standardised with the mean and the standard deviation of each channel of the training
    pictures. Nothing is unpickled.

    Args:
        file: the name of the .npz file, below ``root``.
        root: a folder.
        num_validation: training pictures that are held out.
        augment: ``crop_flip``: training pictures are reflected by 4 pixels, cropped and mirrored;
            ``crop``: they are not mirrored; ``none``: they stay as they are.

    Raises:
        ValueError: if the file cannot be read, or an array is missing or of a wrong shape or type.
    """
    path = expand_user(root) / file
    if not path.is_file():
        raise ValueError(f"dataset.file={file}: no such file below dataset.root={root}")
    arrays = _arrays(path)
    train, test = (_pictures(path, part, arrays) for part in ("train", "test"))
    num_classes = _num_classes(path, arrays["train_labels"], arrays["test_labels"])
    return divided(train, test, num_classes, None, augment, num_validation)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    names = [f"{part}_{what}" for part in ("train", "test") for what in ("images", "labels")]
    try:
        with path.open("rb") as opened:
            content = np.load(opened, allow_pickle=False)
            if isinstance(content, np.ndarray):
                raise ValueError("it is a .npy file, not a .npz file")
            return {name: content[name] for name in names}
    except KeyError as error:
        missing = str(error).strip("'\"")
        raise ValueError(
            f"{path} cannot be used: {missing}; it needs {', '.join(names)}"
        ) from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} cannot be read: {first_line(error)}") from error


def _pictures(path: Path, part: str, arrays: dict[str, np.ndarray]) -> Pictures:
    """Take the pictures of a part out of ``arrays``, so that memory holds them once."""
    images, labels = arrays.pop(f"{part}_images"), arrays[f"{part}_labels"]
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4 or not images.size:
        raise ValueError(f"{path}: {part}_images must be [n, c, h, w], got {list(images.shape)}")
    if images.shape[3] < min(images.shape[1:3]):
        raise ValueError(
            f"{path}: {part}_images {list(images.shape)} has its channels last: "
            "images.transpose(0, 3, 1, 2) is [n, c, h, w]"
        )
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise ValueError(f"{path}: {part}_images must be uint8 or floats, got {images.dtype}")
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{path}: {part}_labels must be {len(images)} whole numbers, got "
            f"{list(labels.shape)} {labels.dtype}"
        )
    return Pictures(_tensor(path, part, images), torch.from_numpy(labels.astype(np.int64)))


def _num_classes(path: Path, train: np.ndarray, test: np.ndarray) -> int:
    """Return C. Labels have the file's type: converted to int64, large ones could wrap around."""
    for part, labels in (("train", train), ("test", test)):
        if labels.min() < 0:
            raise ValueError(f"{path}: {part}_labels has the class {labels.min()}, the bound is 0")
    classes = np.unique(train)
    is_missing = classes != np.arange(len(classes))
    if is_missing.any():
        raise ValueError(
            f"{path}: train_labels goes up to {classes[-1]} and has no class {is_missing.argmax()}"
        )
    if test.max() > classes[-1]:
        raise ValueError(
            f"{path}: test_labels has the class {test.max()}, the bound is {classes[-1]}, the "
            "highest of train_labels"
        )
    return len(classes)


def _tensor(path: Path, part: str, images: np.ndarray) -> Tensor:
    if images.dtype != np.uint8:
        with np.errstate(over="ignore"):
            images = images.astype(np.float32, copy=False)
        if not np.isfinite([images.min(), images.max()]).all():
            raise ValueError(f"{path}: {part}_images has NaN, Inf or what float32 does not hold")
    return torch.from_numpy(np.ascontiguousarray(images))
