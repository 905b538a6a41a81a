"""Lies as far from the honest mean as honest gradients are from each other."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from byzshield_exp.aggregators import squared_distances
from byzshield_exp.attacks.attack import attack_traits
from byzshield_exp.attacks.knowledge import Knowledge

Direction = Literal["std", "unit", "sign"]


@attack_traits()
def min_max(knowledge: Knowledge, direction: Direction = "std") -> Float[Tensor, "m d"]:
    """``mean + gamma * p``: no farther from any honest row than two honest rows are apart.

    Honest rows are those that honest workers hold; the mean counts a row once per honest holder.
    The largest such ``gamma >= 0`` is the least root of one quadratic per honest row; the authors
    search for it by bisection.

    Formula: row = mu + gamma p with the largest gamma for which max_i ||row - x_i|| <= max over i,
        j of ||x_i - x_j||.

    Knows: all honest gradients.

    Args:
        knowledge: what the attacker knows.
        direction: of p: ``std``, minus the standard deviation; ``unit``, minus the mean;
            ``sign``, minus the mean's sign.

    Source: Shejwalkar and Houmansadr, "Manipulating the Byzantine", NDSS 2021, Section IV-C.
    """
    view = _look(knowledge, direction)
    gamma = _largest(view.length, view.slopes, view.offsets - view.squared.max()).min()
    return _at(knowledge, direction, gamma)


@attack_traits()
def min_sum(knowledge: Knowledge, direction: Direction = "std") -> Float[Tensor, "m d"]:
    """``mean + gamma * p``: its squared distances sum to no more than any honest row's do.

    As :func:`min_max`, with sums over what honest workers send; one quadratic.

    Formula: row = mu + gamma p with the largest gamma for which sum_i ||row - x_i||^2 <= max over
        i of sum_j ||x_i - x_j||^2.

    Knows: all honest gradients.

    Args:
        knowledge: what the attacker knows.
        direction: of p, as for :func:`min_max`.

    Source: Shejwalkar and Houmansadr, NDSS 2021, Section IV-C.
    """
    view = _look(knowledge, direction)
    weights = view.weights
    excess = weights @ view.offsets - (view.squared @ weights).max()
    gamma = _largest(weights.sum() * view.length, weights @ view.slopes, excess)
    return _at(knowledge, direction, gamma)


@dataclass(frozen=True, eq=False)
class _View:
    """What decides gamma, in float64, for n honest rows x, their mean and the direction p.

    Attributes:
        weights: honest holders of each row.
        squared: squared distances between honest rows.
        offsets: ``||mean - x||^2``.
        slopes: ``p . (mean - x)``.
        length: ``||p||^2``.
    """

    weights: Float[Tensor, " n"]
    squared: Float[Tensor, "n n"]
    offsets: Float[Tensor, " n"]
    slopes: Float[Tensor, " n"]
    length: Float[Tensor, ""]


def _look(knowledge: Knowledge, direction: Direction) -> _View:
    files, weights = _honest(knowledge)
    offsets, slopes = torch.zeros_like(weights), torch.zeros_like(weights)
    length = weights.new_zeros(())
    for rows in knowledge.chunks():
        centre, push = _centre_and_push(rows, files, weights, direction)
        gaps = centre - rows[files].double()
        offsets += gaps.square().sum(dim=1)
        slopes += gaps @ push
        length += push @ push
    squared = squared_distances(knowledge.all_rows())[files][:, files]
    return _View(weights, squared, offsets, slopes, length)


def _honest(knowledge: Knowledge) -> tuple[list[int], Float[Tensor, " n"]]:
    files = list(knowledge.honest_files)
    weights = knowledge.honest_weights()[files].clamp_min(1)
    return files, weights.to(knowledge.all_rows().device)


def _centre_and_push(
    rows: Float[Tensor, "f c"], files: list[int], weights: Float[Tensor, " n"], direction: Direction
) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"]]:
    """Mean and p, in float64; p up to a positive factor, which gamma makes up for."""
    honest, shares = rows[files].double(), weights / weights.sum()
    centre = shares @ honest
    if direction == "std":
        return centre, -(shares @ (honest - centre).square()).sqrt()
    return centre, -(centre if direction == "unit" else centre.sign())


def _largest(
    a: Float[Tensor, ""], b: Float[Tensor, "..."], c: Float[Tensor, "..."]
) -> Float[Tensor, "..."]:
    """The largest root of ``a g^2 + 2 b g + c``, 0 where even ``g = 0`` is too far."""
    if float(a) == 0:
        return torch.zeros_like(b)
    c = c.clamp_max(0)
    spread = (b.square() - a * c).sqrt()
    return torch.where(b > 0, -c / (b + spread), (spread - b) / a)


def _at(
    knowledge: Knowledge, direction: Direction, gamma: Float[Tensor, ""]
) -> Float[Tensor, "m d"]:
    files, weights = _honest(knowledge)

    def forge(rows: Tensor) -> Tensor:
        centre, push = _centre_and_push(rows, files, weights, direction)
        return centre + gamma * push

    return knowledge.one_row(forge)
