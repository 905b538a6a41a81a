"""Accuracy and loss on pictures that the network was not trained on."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from byzshield_exp import interrupts


class Evaluation(NamedTuple):
    """What a network does on some pictures.

    Attributes:
        accuracy: the share of pictures whose class has the highest score, in [0, 1].
        loss: mean cross-entropy (nats).
        top5: the share whose class is among the five highest; None with fewer than five classes.
    """

    accuracy: float
    loss: float
    top5: float | None


@torch.no_grad()
def evaluate(
    network: nn.Module, chunks: Iterable[tuple[Float[Tensor, "b c h w"], Int[Tensor, " b"]]]
) -> Evaluation:
    """Measure accuracy and loss in evaluation mode.

    Args:
        network: as it was afterwards.
        chunks: pictures and their classes, some at a time; at least one picture.

    Raises:
        Stopped: when the process is asked to stop.
    """
    was_training = network.training
    network.eval()
    found, count, num_classes = [], 0, 0
    for pictures, classes in chunks:
        interrupts.check()
        scores = network(pictures)
        count += len(classes)
        num_classes = scores.shape[1]
        loss = cross_entropy(scores, classes, reduction="sum")
        nearest = scores.topk(min(5, num_classes), dim=1).indices == classes[:, None]
        is_first = scores.argmax(dim=1) == classes
        found.append(torch.stack([part.double() for part in (is_first.sum(), loss, nearest.sum())]))
    network.train(was_training)
    correct, total, near = (sum(part) / count for part in torch.stack(found).T.tolist())
    return Evaluation(correct, total, near if num_classes >= 5 else None)
