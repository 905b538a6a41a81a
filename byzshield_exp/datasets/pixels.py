"""Augmentation of pictures, and the statistics that standardise them."""

from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor

from byzshield_exp.rows.parallel import sent

Augment = Literal["none", "crop", "crop_flip"]
PAD = 4  # pixels on each side before a crop of the old size
_CHUNK = 2**20  # pixels measured at a time


class Statistics(NamedTuple):
    """Mean and standard deviation per channel; bytes count as pixels in [0, 1].

    Attributes:
        mean: of each channel.
        std: of each channel, above 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


def measured(images: Shaped[Tensor, "n c h w"]) -> Statistics:
    """Measure the statistics of pictures in float64; a channel of one value has ``std`` 1."""
    moments = _moments_of_floats if images.is_floating_point() else _moments_of_bytes
    channels = [moments(images[:, channel]) for channel in range(images.shape[1])]
    mean, std = zip(*channels, strict=True)
    return Statistics(mean, std)


def augmented(
    images: Shaped[Tensor, "b c h w"], augment: Augment, random: np.random.Generator
) -> Shaped[Tensor, "b c h w"]:
    """Reflect each picture by 4 pixels at its borders, crop it to its old size, and mirror it.

    Args:
        images: larger than 4 x 4.
        augment: ``crop`` draws one of the 81 places of the crop for each picture; ``crop_flip``
            draws also whether it is mirrored left to right; ``none`` changes nothing.
        random: draws the places of all pictures, then which ones are mirrored.

    Source: the ByzShield code's ``util.py`` (reflect padding, ``RandomCrop``,
    ``RandomHorizontalFlip``); the crop is He et al., "Deep Residual Learning for Image
    Recognition", CVPR 2016, Section 4.2, which pads with zeros.
    """
    if augment == "none":
        return images
    count, _, height, width = images.shape
    places = random.integers(2 * PAD + 1, size=(2, count))
    rows, columns = _reflected(places[0], height), _reflected(places[1], width)
    if augment == "crop_flip":
        is_flipped = random.integers(2, size=count) == 1
        columns = np.where(is_flipped[:, None], columns[:, ::-1], columns)
    return _picked(images, torch.from_numpy(rows), torch.from_numpy(columns))


def _moments_of_bytes(pixels: UInt8[Tensor, "n h w"]) -> tuple[float, float]:
    """Return the mean and the sample standard deviation of one channel."""
    values, counts = np.arange(256) / 255, torch.bincount(pixels.flatten(), minlength=256)
    occurs = counts.double().numpy()
    mean = float((occurs * values).sum() / pixels.numel())
    if counts.count_nonzero() == 1:
        return mean, 1.0
    variance = (occurs * (values - mean) ** 2).sum() / (pixels.numel() - 1)
    return mean, float(np.sqrt(variance))


def _moments_of_floats(pixels: Float[Tensor, "n h w"]) -> tuple[float, float]:
    """Return the same of floats, a few pictures at a time: in float64 all would take too much.

    NumPy's sums do not depend on the number of threads.
    """
    parts = pixels.split(max(1, _CHUNK // pixels[0].numel()))
    mean = sum(float(part.double().numpy().sum()) for part in parts) / pixels.numel()
    low, high = pixels.aminmax()
    if low == high:
        return mean, 1.0
    squares = (((part.double().numpy() - mean) ** 2).sum() for part in parts)
    return mean, float(np.sqrt(sum(squares) / (pixels.numel() - 1)))


def _reflected(places: Int[np.ndarray, " b"], size: int) -> Int[np.ndarray, "b size"]:
    """Return ``[b, size]``, the source of each pixel of a crop; place 4 is the middle."""
    index: np.ndarray = np.abs(places[:, None] + np.arange(size) - PAD)
    mirrored: np.ndarray = size - 1 - np.abs(size - 1 - index)
    return mirrored


def _picked(
    images: Shaped[Tensor, "b c h w"], rows: Int[Tensor, "b h"], columns: Int[Tensor, "b w"]
) -> Shaped[Tensor, "b c h w"]:
    """Put pixel ``(rows[i], columns[j])`` of each picture at ``(i, j)``."""
    places = (rows[:, :, None] * images.shape[3] + columns[:, None, :]).flatten(1)
    places = sent(places, images.device)[:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, places).view(images.shape)
