"""Lies about the data: honest gradients of files whose labels the liar has changed."""

import torch
from jaxtyping import Float
from torch import Tensor

from byzshield_exp.attacks.attack import attack_traits
from byzshield_exp.attacks.knowledge import Knowledge


@attack_traits()
def label_flip(knowledge: Knowledge) -> Float[Tensor, "m d"]:
    """The gradient of the file with every label ``y`` replaced by ``C - 1 - y``.

    Formula: row = the gradient of the loss at (x, C - 1 - y) for the samples (x, y) of file f.

    Knows: own gradients.

    Source: Fang et al., "Local Model Poisoning Attacks", USENIX Security 2020, Section 4.1;
    BTARD's code has 9 for ``C - 1``.
    """
    last = knowledge.truth.num_classes - 1
    return knowledge.truth.poisoned_rows(knowledge.files, lambda labels, file: last - labels)


@attack_traits()
def label_shuffle(knowledge: Knowledge) -> Float[Tensor, "m d"]:
    """The gradient of the file with its labels permuted among its samples, anew at every step.

    Formula: row = the gradient of the loss at (x_i, y_pi(i)) for the samples of file f, pi random.

    Knows: own gradients.

    Source: the "label shuffle" added to BTARD's attacks, which permutes the worker's minibatch;
    here the permutation belongs to the file, so that colluders agree.
    """

    def shuffle(labels: Tensor, file: int) -> Tensor:
        return labels[torch.from_numpy(knowledge.generator(file).permutation(len(labels)))]

    return knowledge.truth.poisoned_rows(knowledge.files, shuffle)
