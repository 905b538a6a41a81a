"""Attacks whose strength is tuned, at every step, against the defence itself.

The forged row moves along a line. Its distance from the honest mean after the defence is found
without the defence's passes over all rows: choices and weights follow from inner products, which
are known for the whole line once they are known for its ends; coordinate-wise rules, and rules that
are neither, are tried on a sample of the coordinates.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from byzshield_exp.aggregators import DefencePlan, Geometry
from byzshield_exp.attacks.attack import attack_traits
from byzshield_exp.attacks.knowledge import Knowledge
from byzshield_exp.rows.parallel import chunk_for, each

_CHUNK = 1 << 15
_SAMPLE = 1 << 11  # coordinates at least, or one in 256


@attack_traits()
def alie_optimised(
    knowledge: Knowledge, highest: float = 10.0, evaluations: int = 20
) -> Float[Tensor, "m d"]:
    """Mean plus ``z`` standard deviations with the ``z`` that hurts the defence most.

    Mean and deviation run over what honest workers send. The harm is the distance of the aggregate
    from the mean of the files that the liars do not win. Only the server knows the result of the
    step before and worker momentum, so the defence is taken without them.

    Formula: row = mu + z sigma, z = argmax over (0, highest] of ||defence(z) - mu_clean||.

    Knows: the defence.

    Args:
        knowledge: what the attacker knows.
        highest: ``z`` is looked for in ``(0, highest]``.
        evaluations: of the defence, at least 4.

    Raises:
        ValueError: unless ``highest > 0`` and ``evaluations >= 4``.

    Source: the optimised ALIE of Allouah et al., "Fixing by Mixing", AISTATS 2023, Appendix; of
    Baruch et al., NeurIPS 2019. ByzFL tries 20 values too.
    """
    points = _mean_and_deviation(knowledge.all_rows(), knowledge.honest_weights())
    return _strongest(knowledge, points, lambda z: [1.0, z], highest, evaluations)


@attack_traits()
def ipm_optimised(
    knowledge: Knowledge, highest: float = 10.0, evaluations: int = 20
) -> Float[Tensor, "m d"]:
    """``-epsilon`` times the honest mean with the ``epsilon`` that hurts the defence most.

    As :func:`alie_optimised`.

    Formula: row = -epsilon mu, epsilon = argmax over (0, highest] of ||defence(epsilon) -
        mu_clean||.

    Knows: the defence.

    Args:
        knowledge: what the attacker knows.
        highest: ``epsilon`` is looked for in ``(0, highest]``.
        evaluations: of the defence, at least 4.

    Raises:
        ValueError: unless ``highest > 0`` and ``evaluations >= 4``.

    Source: the optimised FOE of Allouah et al., AISTATS 2023, Appendix; of Xie et al., UAI 2019.
    """
    points = knowledge.honest_mean()[None]
    return _strongest(knowledge, points, lambda epsilon: [-epsilon], highest, evaluations)


@dataclass(frozen=True)
class Answer:
    """A defence's answer to forged rows.

    Attributes:
        harm: the distance of the aggregate from the honest mean.
        trust: weight of the forged rows in it; 0 where the defence does not weigh rows.
    """

    harm: float
    trust: float


@dataclass(frozen=True, eq=False)
class ForgedLine:
    """The defence's answer to forged rows on a line.

    Attributes:
        knowledge: what the attacker knows.
        points: ``[e, d]``; the forged row is ``weights_at(strength) @ points``.
        weights_at: of a strength, e numbers.
    """

    knowledge: Knowledge
    points: Tensor
    weights_at: Callable[[float], list[float]]

    def row(self, strength: float) -> Float[Tensor, " d"]:
        """The forged row."""
        return self.points.new_tensor(self.weights_at(strength)) @ self.points

    def harm(self, strength: float) -> Answer:
        """How the defence answers the forged row of this strength."""
        mix = self._mix(strength)
        plan = self.knowledge.defence.plan(self._geometry.mixed(mix), self.knowledge.num_corrupt)
        if plan.rule is None and plan.weights is not None:
            moved = plan.weights[0].to(mix) @ mix - self._target
            moved = torch.cat([moved, -moved.sum()[None]])
            harm = float((moved @ self._geometry.gram @ moved).clamp_min(0).sqrt())
            return Answer(harm, float(plan.weights[0, self._won].sum()))
        return Answer(self._harm_on_sample(plan, strength), 0.0)

    def _harm_on_sample(self, plan: DefencePlan, strength: float) -> float:
        """Apply the plan to a sample of the coordinates; lengths are scaled up to all of them."""
        seen, points, stretch = self._sample
        rows = seen.clone()
        rows[self._won] = points.new_tensor(self.weights_at(strength)) @ points
        rows = rows if plan.weights is None else plan.weights.to(rows) @ rows
        rule = plan.rule or torch.squeeze
        result = rule(rows * stretch) / stretch if plan.is_whole else rule(rows)
        honest = self._target[: len(seen)].to(seen) @ seen
        return float((result - honest).norm()) * stretch

    @cached_property
    def _rows(self) -> Float[Tensor, "n d"]:
        """The true rows of the files that are sent, which the defence would be given."""
        rows = self.knowledge.all_rows()
        return rows[self.knowledge.sent_files] if self.knowledge.absent else rows

    @cached_property
    def _won(self) -> list[int]:
        """Which of these rows liars forge."""
        won = self.knowledge.won_files
        return [place for place, file in enumerate(self.knowledge.sent_files) if file in won]

    @cached_property
    def _geometry(self) -> Geometry:
        return Geometry.of(self._rows, self.points)

    @cached_property
    def _target(self) -> Float[Tensor, " n_and_e"]:
        """Weights that give the mean of the files that liars do not win; of all if they win all."""
        weights = torch.ones(len(self._rows), dtype=torch.float64)
        if len(self._won) < len(weights):
            weights[self._won] = 0
        return torch.cat([weights / weights.sum(), weights.new_zeros(len(self.points))])

    @cached_property
    def _sample(self) -> tuple[Tensor, Tensor, float]:
        """Evenly spread columns of rows and points; the factor by which lengths shrink there."""
        rows = self._rows
        step = max(1, min(rows.shape[1] // _SAMPLE, 256))
        seen = rows[:, ::step].contiguous()
        return seen, self.points[:, ::step].contiguous(), (rows.shape[1] / seen.shape[1]) ** 0.5

    def _mix(self, strength: float) -> Float[Tensor, "n n_and_e"]:
        """Weights that make the rows the defence is given from true rows and points."""
        count = len(self._rows)
        mix = torch.eye(count, count + len(self.points)).double()
        mix[self._won, :count] = 0
        mix[self._won, count:] = mix.new_tensor(self.weights_at(strength))
        return mix


def _strongest(
    knowledge: Knowledge,
    points: Float[Tensor, "e d"],
    weights_at: Callable[[float], list[float]],
    highest: float,
    evaluations: int,
) -> Float[Tensor, "m d"]:
    """The forged row whose strength does most harm.

    Tries a geometric grid, then bisects where the defence stops trusting the forged rows, then
    around the best strength.
    """
    if not highest > 0 or evaluations < 4:
        raise ValueError(f"needs highest > 0 and evaluations >= 4, got {highest=} {evaluations=}")
    line = ForgedLine(knowledge, points, weights_at)
    tried = {strength: line.harm(strength) for strength in _grid(highest, evaluations // 2)}
    while len(tried) < evaluations:
        edge = _edge(tried) if len(tried) < 3 * evaluations // 4 else []
        new = [strength for strength in edge or _around_best(tried) if strength not in tried]
        if not new:
            break
        tried.update(
            {strength: line.harm(strength) for strength in new[: evaluations - len(tried)]}
        )
    best = max(tried, key=lambda strength: tried[strength].harm)
    return line.row(best).expand(len(knowledge.files), -1)


def _edge(tried: dict[float, Answer]) -> list[float]:
    """Bisect where a defence stops trusting forged rows: harm grows up to there."""
    order = sorted(tried)
    drops = {
        (below, above): tried[below].trust - tried[above].trust for below, above in pairwise(order)
    }
    below, above = max(drops, key=lambda pair: drops[pair])
    return [(below + above) / 2] if drops[below, above] > 0 else []


def _around_best(tried: dict[float, Answer]) -> list[float]:
    best = max(tried, key=lambda strength: tried[strength].harm)
    below = max((at for at in tried if at < best), default=best / 2)
    above = min((at for at in tried if at > best), default=best)
    return sorted({(below + best) / 2, (best + above) / 2} - {best})


def _grid(highest: float, count: int) -> list[float]:
    return [highest * 2.0**-at for at in range(count)]


def _mean_and_deviation(
    rows: Float[Tensor, "f d"], weights: Float[Tensor, " f"]
) -> Float[Tensor, "2 d"]:
    """Mean and population standard deviation of what honest workers send."""
    share = (weights / weights.sum().clamp_min(1)).to(rows)
    made = rows.new_empty((2, rows.shape[1]))
    chunk = chunk_for(rows.device, _CHUNK)

    def fill(start: int) -> None:
        part = rows[:, start : start + chunk]
        centre = share @ part
        made[0, start : start + chunk] = centre
        made[1, start : start + chunk] = (share @ (part - centre).square_()).sqrt_()

    each(fill, range(0, rows.shape[1], chunk), rows.device)
    return made
