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
    correct, near, loss, count, num_classes = 0, 0, 0.0, 0, 0
    for pictures, classes in chunks:
        interrupts.check()
        scores = network(pictures)
        count += len(classes)
        num_classes = scores.shape[1]
        correct += int((scores.argmax(dim=1) == classes).sum())
        loss += float(cross_entropy(scores, classes, reduction="sum"))
        if num_classes >= 5:
            near += int((scores.topk(5, dim=1).indices == classes[:, None]).sum())
    network.train(was_training)
    return Evaluation(correct / count, loss / count, near / count if num_classes >= 5 else None)
