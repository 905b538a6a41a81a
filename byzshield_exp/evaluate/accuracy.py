"""How well the network does on pictures that it was not trained on."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from byzshield_exp import interrupts

_CHUNK = 200  # pictures at a time


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
    network: nn.Module, images: Float[Tensor, "m c h w"], labels: Int[Tensor, " m"]
) -> Evaluation:
    """Accuracy and loss in evaluation mode.

    Raises:
        Stopped: when the process is asked to stop.
    """
    was_training = network.training
    network.eval()
    correct, near, loss, num_classes = 0, 0, 0.0, 0
    for pictures, classes in zip(images.split(_CHUNK), labels.split(_CHUNK), strict=True):
        interrupts.check()
        scores = network(pictures)
        num_classes = scores.shape[1]
        correct += int((scores.argmax(dim=1) == classes).sum())
        loss += float(cross_entropy(scores, classes, reduction="sum"))
        if num_classes >= 5:
            near += int((scores.topk(5, dim=1).indices == classes[:, None]).sum())
    network.train(was_training)
    count = len(labels)
    return Evaluation(correct / count, loss / count, near / count if num_classes >= 5 else None)
