"""Random lies. All liars send the same noise for a file, so that their replicas agree."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from byzshield_exp.attacks.attack import attack_traits
from byzshield_exp.attacks.knowledge import Knowledge
from byzshield_exp.streams import Stream, generator

Scope = Literal["tensor", "global"]
_DIRECTION = "random_direction"


@attack_traits()
def gaussian(knowledge: Knowledge, mean: float = 0.0, std: float = 200.0) -> Float[Tensor, "m d"]:
    """Independent normal numbers, new for every file and step.

    Formula: row[k] ~ N(mean, std^2).

    Knows: nothing.

    Args:
        knowledge: what the attacker knows.
        mean: of every entry.
        std: of every entry, not negative.

    Raises:
        ValueError: unless ``std >= 0``.

    Source: Blanchard et al., "Machine Learning with Adversaries", NIPS 2017, Section 5 (standard
    deviation 200).
    """
    if not std >= 0:
        raise ValueError(f"needs std >= 0, got {std=}")
    return knowledge.row_by_row(lambda file: mean + std * _normal(knowledge, file))


@attack_traits()
def gaussian_noise(
    knowledge: Knowledge, sigma: float = 100.0, relative: bool = False
) -> Float[Tensor, "m d"]:
    """The file's true gradient plus independent normal noise in every entry.

    Formula: row[k] ~ g_f[k] + N(0, sigma^2).

    Knows: own gradients.

    Args:
        knowledge: what the attacker knows.
        sigma: standard deviation of the noise, not negative.
        relative: ``sigma`` counts in root mean squares of the row.

    Raises:
        ValueError: unless ``sigma >= 0``.

    Source: the "noise addition" that users of BTARD describe (sigma 100); :func:`scalar_noise` is
    what their code does.
    """
    if not sigma >= 0:
        raise ValueError(f"needs sigma >= 0, got {sigma=}")

    def forge(file: int) -> Tensor:
        row = knowledge.truth.rows([file])[0]
        scale = sigma * row.square().mean().sqrt() if relative else sigma
        return row + scale * _normal(knowledge, file)

    return knowledge.row_by_row(forge)


@attack_traits()
def scalar_noise(knowledge: Knowledge, sigma: float = 100.0) -> Float[Tensor, "m d"]:
    """The true gradient, each weight tensor shifted by one normal number.

    Parameter tensors with an even index are shifted: the weights, not the biases, where the two
    alternate. The shift is new for every tensor, file and step.

    Formula: row[k] = g_f[k] + u_t for the entries k of tensor t, u_t ~ N(0, sigma^2) for even t
        and 0 for odd t.

    Knows: own gradients.

    Args:
        knowledge: what the attacker knows.
        sigma: standard deviation of the shift, not negative.

    Source: the "GaussianNoiseAdder" added to BTARD's attacks, which draws one number for a whole
    tensor; its liars draw for themselves, here colluders share the draw of a file.
    """

    def forge(file: int) -> Tensor:
        row, random = knowledge.truth.rows([file])[0].clone(), knowledge.generator(file)
        for part in row.split(knowledge.truth.sizes)[::2]:
            part += sigma * random.standard_normal()
        return row

    return knowledge.row_by_row(forge)


@attack_traits()
def random_direction(
    knowledge: Knowledge, scale: float = 1000.0, scope: Scope = "tensor"
) -> Float[Tensor, "m d"]:
    """``scale`` times the length of the true gradient, in a random direction fixed for the run.

    The direction follows from the seed and is the same for all liars, files and steps.

    Formula: row = scale ||g_f|| u, where u is a random vector of length 1; per tensor or global.

    Knows: own gradients.

    Args:
        knowledge: what the attacker knows.
        scale: of the length.
        scope: lengths are kept and directions drawn per parameter ``tensor``, or ``global``: for
            the whole vector.

    Source: Gorbunov et al., "Secure Distributed Training at Scale" (BTARD), ICML 2022; per tensor
    as in its code ("ConstantDirection", scale 1000).
    """
    sizes = knowledge.truth.sizes
    sizes = sizes if scope == "tensor" else [sum(sizes)]
    if _DIRECTION not in knowledge.memory:
        knowledge.memory[_DIRECTION] = _direction(knowledge, sizes)
    units = knowledge.memory[_DIRECTION].split(sizes)

    def forge(file: int) -> Tensor:
        parts = knowledge.truth.rows([file])[0].split(sizes)
        pairs = zip(parts, units, strict=True)
        return torch.cat([scale * part.norm() * unit for part, unit in pairs])

    return knowledge.row_by_row(forge)


def _normal(knowledge: Knowledge, file: int) -> Float[Tensor, " d"]:
    """Standard normal numbers of one file of this step."""
    blank = knowledge.truth.blank_row()
    numbers = knowledge.generator(file).standard_normal(len(blank), dtype="float32")
    return blank.copy_(torch.from_numpy(numbers))


def _direction(knowledge: Knowledge, sizes: list[int]) -> Float[Tensor, " d"]:
    """A random vector whose parts have length 1."""
    random = generator(knowledge.seed, Stream.ATTACK_ONCE)
    parts = [torch.from_numpy(random.standard_normal(size, dtype="float32")) for size in sizes]
    return knowledge.truth.blank_row().copy_(torch.cat([part / part.norm() for part in parts]))
