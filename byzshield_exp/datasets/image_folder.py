"""Your own pictures in folders: ``train/<class>/*`` and ``test/<class>/*``."""

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from byzshield_exp.datasets.dataset import Dataset, Pictures, divided
from byzshield_exp.datasets.pixels import Augment
from byzshield_exp.errors import first_line
from byzshield_exp.files import atomic_file, cache_folder, expand_user

_PARTS = ("train", "test")
_VERSION = 1  # of the reader: a higher one makes older caches invalid


def image_folder(
    root: str = "data",
    size: int | None = None,
    num_validation: int = 0,
    augment: Augment = "none",
) -> Dataset:
    """Pictures in files, as torchvision's ``ImageFolder`` reads them: in colour, by class.

    The classes are the folders of ``train``, by name; ``test`` may lack some. Pictures are
    standardised with the mean and the standard deviation of each channel of the training
    pictures. Decoded pictures are kept in the cache folder (``BYZSHIELD_CACHE``) and used again
    as long as names, sizes and times of the files, and Pillow's version, are the same. Files and
    folders whose names start with a dot are ignored.

    Args:
        root: the folder above ``train`` and ``test``.
        size: height and width in pixels; pictures of another size are cropped from the centre
            and resized. None: all must have one size.
        num_validation: training pictures that are held out.
        augment: ``crop_flip``: training pictures are reflected by 4 pixels, cropped and mirrored;
            ``crop``: they are not mirrored; ``none``: they stay as they are.

    Raises:
        ValueError: if a folder is missing or empty, or a file is not a picture, has more than 8
            bits per channel, or differs in size.
    """
    if size is not None and size < 1:
        raise ValueError(f"dataset.size={size} must be at least 1 pixel")
    folder = expand_user(root)
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
        sorted(one.name for one in (folder / part).iterdir() if one.is_dir() and _is_seen(one.name))
        for part in _PARTS
    )
    unknown = sorted(set(tested) - set(classes))
    if unknown:
        raise ValueError(f"{folder / 'test' / unknown[0]} is a class that {folder / 'train'} lacks")
    return classes


def _files(folder: Path, classes: list[str]) -> Iterator[tuple[Path, int]]:
    """Yield the pictures of a part with the numbers of their classes, sorted by name.

    Raises:
        ValueError: if there are none, a class has no training pictures, or a file is not a picture.
    """
    suffixes, is_empty = _suffixes(), True
    for label, name in enumerate(classes):
        found = sorted(_below(folder / name), key=str)
        other = next((path for path in found if path.suffix.lower() not in suffixes), None)
        if other is not None:
            raise ValueError(
                f"{other} is of no kind that Pillow reads: remove it, or start its name with a dot"
            )
        if not found and folder.name == "train":
            raise ValueError(f"{folder / name} has no pictures")
        is_empty = is_empty and not found
        yield from ((path, label) for path in found)
    if is_empty:
        raise ValueError(f"{folder} has no pictures: they lie in a folder for each class")


def _below(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder and of the folders in it; links are followed."""
    read = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in read:
            raise ValueError(f"{place} is a link to a folder that {folder} has already")
        read.add(real)
        folders[:] = filter(_is_seen, folders)
        yield from (Path(place, name) for name in filter(_is_seen, names))


def _is_seen(name: str) -> bool:
    """Return False for hidden names, which notebooks and other systems leave behind."""
    return not name.startswith(".")


def _suffixes() -> set[str]:
    """Return the suffixes of the files that Pillow reads."""
    from PIL import Image  # slow to import, and needed only here

    formats = Image.registered_extensions()  # includes formats that it can only write
    return {suffix for suffix, name in formats.items() if name in Image.OPEN}


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
    """Return a digest of the files' names, sizes and times, and of Pillow's version."""
    from PIL import __version__

    states = [(str(path.relative_to(folder)), path.stat()) for path in paths]
    entries = [(name, state.st_size, state.st_mtime_ns) for name, state in states]
    return hashlib.sha256(json.dumps([_VERSION, __version__, entries]).encode()).hexdigest()


def _read(cache: Path, fingerprint: str) -> dict[str, np.ndarray] | None:
    """Read the cached pictures; None if the cache is missing, damaged or of other files."""
    try:
        with cache.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            is_same = str(content["fingerprint"]) == fingerprint
            return {part: content[part] for part in _PARTS} if is_same else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def _write(cache: Path, fingerprint: str, images: dict[str, np.ndarray]) -> None:
    """Cache the pictures; if that fails, the next run decodes them again."""
    arrays: dict[str, Any] = {"fingerprint": np.array(fingerprint), **images}
    with suppress(OSError), atomic_file(cache, shared=True) as file:
        np.savez(file, **arrays)


def _decoded(paths: dict[str, list[Path]], size: int | None) -> dict[str, np.ndarray]:
    """Decode the pictures of each part, ``[n, 3, h, w]``, in parallel threads."""
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
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            mode = file.mode
            # Pillow warns if a palette with transparent colours is converted to RGB directly
            picture = (file.convert("RGBA") if mode == "P" else file).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read: {first_line(error)}") from error
    if mode.startswith("I") or mode == "F":  # converting cut values above 255 off
        raise ValueError(f"{path} has more than 8 bits per channel (Pillow's mode {mode})")
    if size is not None and picture.size != (size, size):
        picture = ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(picture)
