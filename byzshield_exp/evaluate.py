"""How well the network does on pictures that it was not trained on."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

_CHUNK = 1000  # pictures at a time


@torch.no_grad()
def evaluate(
    network: nn.Module, images: Float[Tensor, "m c h w"], labels: Int[Tensor, " m"]
) -> tuple[float, float]:
    """Accuracy in [0, 1] and mean cross-entropy loss (nats) in evaluation mode."""
    was_training = network.training
    network.eval()
    correct, loss = 0, 0.0
    for pictures, classes in zip(images.split(_CHUNK), labels.split(_CHUNK), strict=True):
        scores = network(pictures)
        correct += int((scores.argmax(dim=1) == classes).sum())
        loss += float(cross_entropy(scores, classes, reduction="sum"))
    network.train(was_training)
    return correct / len(labels), loss / len(labels)
