"""Your own pictures in folders: ``train/<class>/*`` and ``test/<class>/*``."""

import hashlib
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from byzshield_exp.datasets.dataset import Dataset, Pictures, divided
from byzshield_exp.datasets.pixels import Augment
from byzshield_exp.files import cache_folder

_PARTS = ("train", "test")
_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
_VERSION = 1  # of the reader: another version trusts none of the older caches


def image_folder(
    root: str = "data",
    size: int | None = None,
    num_validation: int = 0,
    augment: Augment = "none",
) -> Dataset:
    """Pictures in files, as torchvision's ``ImageFolder`` reads them: in colour, by class.

    The classes are the folders of ``train``, by name; ``test`` may lack some. They are
    standardised with the mean and the standard deviation of each channel of the training
    pictures. Decoded pictures are kept in the cache folder (``BYZSHIELD_CACHE``) and used again
    as long as names, sizes and times of the files are the same.

    Args:
        root: the folder above ``train`` and ``test``.
        size: height and width in pixels that other pictures are cropped (from the centre) and
            resized to; None: all must have one size.
        num_validation: training pictures that are held out.
        augment: of training pictures: ``crop_flip``: reflected by 4 pixels, cropped and mirrored;
            ``crop``: not mirrored.

    Raises:
        ValueError: if a folder is missing or empty, or a picture cannot be read or is of another
            size than the others.
    """
    if size is not None and size < 1:
        raise ValueError(f"size={size} must be at least 1 pixel")
    folder = Path(root)
    classes = _classes(folder)
    files = {part: list(_files(folder / part, classes)) for part in _PARTS}
    images = _cached(folder, files, size)
    train, test = (
        Pictures(images[part], torch.tensor([label for _, label in files[part]])) for part in _PARTS
    )
    return divided(train, test, len(classes), None, augment, num_validation)


def _classes(folder: Path) -> list[str]:
    for part in _PARTS:
        if not (folder / part).is_dir():
            raise ValueError(f"dataset.root={folder} has no folder {part}: it needs train and test")
    classes, tested = (
        sorted(one.name for one in (folder / part).iterdir() if one.is_dir()) for part in _PARTS
    )
    unknown = sorted(set(tested) - set(classes))
    if unknown:
        raise ValueError(f"{folder / 'test' / unknown[0]} is a class that {folder / 'train'} lacks")
    return classes


def _files(folder: Path, classes: list[str]) -> Iterator[tuple[Path, int]]:
    """The pictures of a part with their classes' numbers, by name.

    Raises:
        ValueError: if there are none, or none of a class to be learnt.
    """
    is_empty = True
    for label, name in enumerate(classes):
        paths = (path for path in (folder / name).rglob("*") if path.suffix.lower() in _SUFFIXES)
        found = sorted((path for path in paths if path.is_file()), key=str)
        if not found and folder.name == "train":
            raise ValueError(f"{folder / name} has no pictures")
        is_empty = is_empty and not found
        yield from ((path, label) for path in found)
    if is_empty:
        raise ValueError(f"{folder} has no pictures: they lie in a folder for each class")


def _cached(
    folder: Path, files: dict[str, list[tuple[Path, int]]], size: int | None
) -> dict[str, UInt8[Tensor, "_ 3 h w"]]:
    place = hashlib.sha256(f"{folder.resolve()} {size}".encode()).hexdigest()
    cache = cache_folder() / f"pictures-{place}.npz"
    paths = {part: [path for path, _ in files[part]] for part in _PARTS}
    fingerprint = _fingerprint(folder, [path for part in _PARTS for path in paths[part]])
    images = _read(cache, fingerprint)
    if images is None:
        images = _decoded(paths, size)
        _write(cache, fingerprint, images)
    return {part: torch.from_numpy(images[part]) for part in _PARTS}


def _fingerprint(folder: Path, paths: list[Path]) -> str:
    """A digest of what is there."""
    states = [(str(path.relative_to(folder)), path.stat()) for path in paths]
    entries = [(name, state.st_size, state.st_mtime_ns) for name, state in states]
    return hashlib.sha256(json.dumps([_VERSION, entries]).encode()).hexdigest()


def _read(cache: Path, fingerprint: str) -> dict[str, np.ndarray] | None:
    """The pictures, or None where they are missing, damaged or of other files."""
    try:
        with cache.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            is_same = str(content["fingerprint"]) == fingerprint
            return {part: content[part] for part in _PARTS} if is_same else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def _write(cache: Path, fingerprint: str, images: dict[str, np.ndarray]) -> None:
    """Keep the pictures; a folder that cannot be written costs only the next reading."""
    arrays: dict[str, Any] = {"fingerprint": np.array(fingerprint), **images}
    partial_path = None
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=cache.parent, prefix=".pictures-", delete=False
        ) as file:
            partial_path = Path(file.name)
            np.savez(file, **arrays)
        partial_path.replace(cache)
    except OSError:
        if partial_path is not None:
            partial_path.unlink(missing_ok=True)


def _decoded(paths: dict[str, list[Path]], size: int | None) -> dict[str, np.ndarray]:
    """``[n, 3, h, w]`` for each part; decoded in parallel threads."""
    first = paths["train"][0]
    side = _decode(first, size).shape[:2]
    images = {part: np.empty((len(paths[part]), 3, *side), np.uint8) for part in _PARTS}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for part in _PARTS:
            for place, picture in enumerate(pool.map(partial(_decode, size=size), paths[part])):
                if picture.shape[:2] != side:
                    pool.shutdown(cancel_futures=True)
                    raise ValueError(
                        f"{paths[part][place]} has {picture.shape[1]} x {picture.shape[0]} pixels, "
                        f"{first} has {side[1]} x {side[0]}: dataset.size=N makes all N x N"
                    )
                images[part][place] = picture.transpose(2, 0, 1)
    return images


def _decode(path: Path, size: int | None) -> UInt8[np.ndarray, "h w 3"]:
    from PIL import Image, ImageOps  # slow to import, and needed only here

    try:
        with Image.open(path) as file:
            picture = file.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if size is not None and picture.size != (size, size):
        picture = ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(picture)
