"""What happens to pictures between the store and the network: augmentation and its numbers."""

from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Int, Shaped
from torch import Tensor

Augment = Literal["none", "crop", "crop_flip"]
PAD = 4  # pixels on each side before a crop of the old size


class Statistics(NamedTuple):
    """What pictures are standardised with; of pixels in [0, 1] where these are bytes.

    Attributes:
        mean: of each channel.
        std: of each channel, above 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


def measured(images: Shaped[Tensor, "n c h w"]) -> Statistics:
    """The statistics of pictures, computed in float64; a channel of one value has ``std`` 1."""
    moments = [_moments(images[:, channel].flatten()) for channel in range(images.shape[1])]
    mean, std = zip(*moments, strict=True)
    return Statistics(mean, tuple(one if one > 0 else 1.0 for one in std))


def augmented(
    images: Shaped[Tensor, "b c h w"], augment: Augment, random: np.random.Generator
) -> Shaped[Tensor, "b c h w"]:
    """Each picture reflected by 4 pixels at its borders, cropped to its old size, and flipped.

    Args:
        images: larger than 4 x 4.
        augment: ``crop`` draws one of the 81 places of the crop for each picture, ``crop_flip``
            also whether it is mirrored left to right; ``none`` changes nothing.
        random: draws the places of all pictures, then the mirrored ones.

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


def _moments(pixels: Shaped[Tensor, " m"]) -> tuple[float, float]:
    """Mean and standard deviation (of a sample) of one channel."""
    if pixels.is_floating_point():  # NumPy's sums do not depend on the number of threads
        values, counts = pixels.double().numpy(), np.ones(1)
    else:  # bytes, of which there are many, are counted
        values = np.arange(256) / 255
        counts = torch.bincount(pixels, minlength=256).double().numpy()
    mean = float((counts * values).sum() / len(pixels))
    variance = (counts * (values - mean) ** 2).sum() / max(1, len(pixels) - 1)
    return mean, float(np.sqrt(variance))


def _reflected(places: Int[np.ndarray, " b"], size: int) -> Int[np.ndarray, "b size"]:
    """``[b, size]``: where the pixels of a crop come from; a place of 4 is the middle."""
    index: np.ndarray = np.abs(places[:, None] + np.arange(size) - PAD)
    mirrored: np.ndarray = size - 1 - np.abs(size - 1 - index)
    return mirrored


def _picked(
    images: Shaped[Tensor, "b c h w"], rows: Int[Tensor, "b h"], columns: Int[Tensor, "b w"]
) -> Shaped[Tensor, "b c h w"]:
    """Pixel ``(rows[i], columns[j])`` of each picture at ``(i, j)``."""
    places = (rows[:, :, None] * images.shape[3] + columns[:, None, :]).flatten(1)
    places = places.to(images.device)[:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, places).view(images.shape)
