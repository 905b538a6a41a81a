"""A data set in memory, and how its pictures reach the network."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from blake3 import blake3
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from byzshield_exp.datasets.pixels import PAD, Augment, Statistics, augmented, measured
from byzshield_exp.rows.parallel import sent

Part = Literal["validation", "test"]
EVALUATED_AT_ONCE = 200  # pictures


class Pictures(NamedTuple):
    """Pictures and their classes.

    Attributes:
        images: ``[n, c, h, w]``, bytes or floats.
        labels: ``[n]``, in ``0..num_classes-1``.
    """

    images: Shaped[Tensor, "n c h w"]
    labels: Int[Tensor, " n"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Pictures as they are stored; :meth:`train_batch` and :meth:`chunks` standardise them.

    Attributes:
        train_images: ``[n, c, h, w]``, bytes or floats.
        train_labels: ``[n]``, in ``0..num_classes-1``.
        test_images: ``[m, c, h, w]``.
        test_labels: ``[m]``.
        num_classes: C.
        validation_images: ``[v, c, h, w]``, training pictures that are held out, or None.
        validation_labels: ``[v]``.
        mean: ``[c]``, subtracted from pixels (bytes are scaled to [0, 1] first); None: nothing is.
        std: ``[c]``, the difference is divided by it.
        augment: how training pictures are augmented.
    """

    train_images: Shaped[Tensor, "n c h w"]
    train_labels: Int[Tensor, " n"]
    test_images: Shaped[Tensor, "m c h w"]
    test_labels: Int[Tensor, " m"]
    num_classes: int
    validation_images: Shaped[Tensor, "v c h w"] | None = None
    validation_labels: Int[Tensor, " v"] | None = None
    mean: Float[Tensor, " c"] | None = None
    std: Float[Tensor, " c"] | None = None
    augment: Augment = "none"

    @property
    def shape(self) -> tuple[int, int, int]:
        """The channels, height and width of a picture."""
        channels, height, width = self.train_images.shape[1:]
        return channels, height, width

    @property
    def num_train(self) -> int:
        """The number of training pictures, n."""
        return len(self.train_labels)

    def check(self) -> None:
        """Check the form of pictures and labels.

        Raises:
            ValueError: naming the first that is wrong, and what it must be.
        """
        for part in ("train", "test", "validation"):
            images, labels = (getattr(self, f"{part}_{what}") for what in ("images", "labels"))
            if part == "validation" and images is None and labels is None:
                continue
            wrong = _wrong_images(images) or _wrong_labels(labels, len(images), self.num_classes)
            if wrong:
                raise ValueError(f"{part}_{wrong}")

    @cached_property
    def digest(self) -> bytes:
        """BLAKE3 of all pictures and labels: equal digests mean the same data."""
        hasher = blake3()
        for name, value in sorted(vars(self).items()):
            if isinstance(value, Tensor):
                content = np.ascontiguousarray(value.cpu().numpy())
                hasher.update(f"{name} {content.dtype} {content.shape}".encode())
                hasher.update(content.reshape(-1).view(np.uint8).data)
        return hasher.digest()

    @property
    def eval_split(self) -> Part:
        """The part that a run is evaluated on: ``validation`` where pictures are held out."""
        return "test" if self.validation_labels is None else "validation"

    def train_batch(
        self, samples: Int[Tensor, " b"], random: np.random.Generator
    ) -> tuple[Float[Tensor, "b c h w"], Int[Tensor, " b"]]:
        """Return training pictures as the network sees them, augmented with ``random``."""
        samples = sent(samples, self.train_images.device)
        images = augmented(self.train_images[samples], self.augment, random)
        return self._standardised(images), self.train_labels[samples]

    def chunks(self, part: Part) -> Iterator[tuple[Float[Tensor, "b c h w"], Int[Tensor, " b"]]]:
        """Yield the pictures of a part as the network sees them, 200 at a time, not augmented.

        Raises:
            ValueError: if ``part`` is ``validation`` and no pictures are held out.
        """
        images, labels = self.test_images, self.test_labels
        if part == "validation":
            if self.validation_images is None or self.validation_labels is None:
                raise ValueError("dataset.num_validation=0: no pictures are held out")
            images, labels = self.validation_images, self.validation_labels
        for pictures, classes in zip(
            images.split(EVALUATED_AT_ONCE), labels.split(EVALUATED_AT_ONCE), strict=True
        ):
            yield self._standardised(pictures), classes

    def _standardised(self, images: Shaped[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        pixels = images if images.is_floating_point() else images.float() / 255
        if self.mean is not None and self.std is not None:
            pixels = (pixels - self.mean[:, None, None]) / self.std[:, None, None]
        return pixels.contiguous(memory_format=torch.channels_last)  # convolutions are faster


def divided(
    train: Pictures,
    test: Pictures,
    num_classes: int,
    statistics: Statistics | None = None,
    augment: Augment = "none",
    num_validation: int = 0,
) -> Dataset:
    """Make a data set of training and test pictures.

    Args:
        train: for training and validation.
        test: for the test alone.
        num_classes: C.
        statistics: to standardise with; None: measured on the pictures that are trained on.
        augment: how pictures that are trained on are augmented.
        num_validation: how many of ``train`` are held out: the first of a permutation that
            depends only on the number of pictures. The others stay in their order.

    Raises:
        ValueError: if there are too few pictures or classes, the test pictures have another shape
            or type, or pictures are too small to be cropped.
    """
    if not len(train.labels) or not len(test.labels):
        raise ValueError(f"{len(train.labels)} training and {len(test.labels)} test pictures")
    if num_classes < 2:
        raise ValueError(f"there must be at least 2 classes, got {num_classes}")
    if _kind(train.images) != _kind(test.images):
        raise ValueError(
            f"training pictures are {_kind(train.images)}, test pictures {_kind(test.images)}"
        )
    if not 0 <= num_validation < len(train.labels):
        raise ValueError(
            f"dataset.num_validation={num_validation} must lie between 0 and "
            f"{len(train.labels) - 1}: there are {len(train.labels)} training pictures"
        )
    if augment != "none" and min(train.images.shape[2:]) <= PAD:
        height, width = train.images.shape[2:]
        raise ValueError(
            f"dataset.augment={augment} needs pictures above {PAD} x {PAD} pixels, "
            f"got {height} x {width}"
        )
    train, validation = _held_out(train, num_validation)
    mean, std = statistics or measured(train.images)
    return Dataset(
        *train,
        *test,
        num_classes=num_classes,
        validation_images=validation.images if validation else None,
        validation_labels=validation.labels if validation else None,
        mean=torch.tensor(mean),
        std=torch.tensor(std),
        augment=augment,
    )


def _wrong_images(images: Any) -> str:
    is_tensor = isinstance(images, Tensor)
    if (
        is_tensor
        and images.ndim == 4
        and (images.is_floating_point() or images.dtype == torch.uint8)
    ):
        return ""
    got = f"{list(images.shape)} {images.dtype}" if is_tensor else f"a {type(images).__name__}"
    return f"images must be a tensor [n, c, h, w] of bytes or floats, got {got}"


def _wrong_labels(labels: Any, count: int, num_classes: int) -> str:
    is_tensor = isinstance(labels, Tensor)
    if is_tensor and count and labels.shape == (count,) and labels.dtype == torch.int64:
        low, high = int(labels.min()), int(labels.max())
        if low >= 0 and high < num_classes:
            return ""
        got = f"{low} to {high}"
    else:
        got = f"{list(labels.shape)} {labels.dtype}" if is_tensor else f"a {type(labels).__name__}"
    return f"labels must be a tensor [{count}] of torch.int64 in 0..{num_classes - 1}, got {got}"


def _kind(images: Shaped[Tensor, "n c h w"]) -> str:
    return f"{list(images.shape[1:])} {str(images.dtype).removeprefix('torch.')}"


def _held_out(pictures: Pictures, count: int) -> tuple[Pictures, Pictures | None]:
    """Split ``count`` pictures off: return the others, and them (None where ``count`` is 0)."""
    if count == 0:
        return pictures, None
    held = np.random.default_rng(0).permutation(len(pictures.labels))[:count]
    is_left = torch.ones(len(pictures.labels), dtype=torch.bool)
    is_left[held] = False
    left = Pictures(pictures.images[is_left], pictures.labels[is_left])
    return left, Pictures(pictures.images[held], pictures.labels[held])
