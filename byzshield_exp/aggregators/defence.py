"""Pre-aggregators and a rule as one defence, without rows in between.

Mixings and weighings need only the inner products of the rows, so a chain of them costs one pass
for these and one for the result; a coordinate-wise rule has the mixed columns chunk by chunk.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from byzshield_exp.aggregators.geometry import Geometry, mixed_rows, weighted_sum
from byzshield_exp.aggregators.policy import Unclean, check_rows, set_aside
from byzshield_exp.aggregators.rule import rule_traits

_CHUNK = 1 << 20  # mixed columns made at a time, to bound the memory of the mixed rows


@dataclass(frozen=True, eq=False)
class DefencePlan:
    """What a defence does to rows of a given geometry: ``rule(weights @ rows)``.

    Attributes:
        weights: ``[m, n]``, None: the rows as they are.
        rule: None: ``m = 1`` and the mixed row is the result.
        is_whole: the rule needs all coordinates at once; otherwise it is coordinate-wise.
    """

    weights: Tensor | None
    rule: Callable[[Tensor], Tensor] | None
    is_whole: bool = False


@dataclass(frozen=True, eq=False)
class Defence:
    """``defence(rows, num_corrupt) -> [d]``.

    Attributes:
        rule: an aggregator with its options bound.
        before: pre-aggregators with their options bound, in the order in which they apply.
        make_generator: makes the generator of a step, always the same; None: no shuffling.
    """

    rule: "partial[Tensor]"
    before: "Sequence[partial[tuple[Tensor, int]]]" = ()
    make_generator: Callable[[], np.random.Generator] | None = None

    def for_rows(self, numbers: Sequence[int]) -> "Defence":
        """Adapt the defence to a subset of the rows: the trusted row is found at its new place.

        Args:
            numbers: of the rows that are left, in order.

        Raises:
            ValueError: if the trusted row is not among them.
        """
        trusted = self._trusted
        if trusted is None:
            return self
        if trusted not in numbers:
            raise ValueError(f"trusted={trusted} is not among the rows that are left")
        return replace(self, rule=partial(self.rule, trusted=list(numbers).index(trusted)))

    @property
    def _trusted(self) -> int | None:
        """The number of the row that the rule trusts, if it trusts one."""
        parameter = inspect.signature(self.rule.func).parameters.get("trusted")
        return None if parameter is None else self.rule.keywords.get("trusted", parameter.default)

    @property
    def is_previous_read(self) -> bool:
        """Whether the rule uses the result of the step before."""
        return "previous" in inspect.signature(self.rule.func).parameters

    @property
    def copies(self) -> int:
        """How many copies of all rows are made at most; a user's rule is taken to make none."""
        kind = rule_traits(self.rule).kind
        if not self.before:
            return int(kind == "choice")  # of the rows that are chosen
        is_whole = kind not in ("coordinate-wise", "weighing", "choice")
        return int(is_whole or not self._is_linear)

    def __call__(
        self,
        rows: Float[Tensor, "n d"],
        num_corrupt: int,
        previous: Float[Tensor, " d"] | None = None,
    ) -> Float[Tensor, " d"]:
        """Aggregate the rows.

        Args:
            rows: one gradient per row.
            num_corrupt: how many rows may be forged.
            previous: the aggregate of the step before, for rules that read it.

        Raises:
            ValueError: if a formula is undefined for these numbers.
            NonFiniteRows: if more rows than ``num_corrupt`` have NaN or Inf.
        """
        check_rows(rows, num_corrupt)
        if not self.before or not self._is_linear:
            return self._step_by_step(rows, num_corrupt, previous)
        with torch.no_grad():
            try:
                plan = self.plan(Geometry.of(rows), num_corrupt, previous)
                return _carry_out(plan, rows)
            except Unclean:
                kept, left = set_aside(rows, num_corrupt)
            rows, numbers = rows[kept], kept.nonzero().flatten().tolist()
            plan = self.for_rows(numbers).plan(Geometry.of(rows), left, previous)
            return _carry_out(plan, rows)

    def plan(
        self,
        geometry: Geometry,
        num_corrupt: int,
        previous: Tensor | None = None,
    ) -> DefencePlan:
        """Plan what happens to rows of this geometry; arguments and errors as for a call."""
        if not self._is_linear:
            whole = partial(self._step_by_step, num_corrupt=num_corrupt, previous=previous)
            return DefencePlan(None, whole, is_whole=True)
        generator = self.make_generator() if self.make_generator else None
        weights = None
        for step in self.before:
            mixed, num_corrupt = rule_traits(step).mix(  # type: ignore[misc]
                geometry, num_corrupt, **step.keywords, **_wanted(step, generator)
            )
            geometry = geometry.mixed(mixed)
            weights = mixed if weights is None else mixed @ weights
        traits = rule_traits(self.rule)
        rule = partial(self._bound(previous), num_corrupt=num_corrupt)
        if traits.weigh is None:
            return DefencePlan(weights, rule, is_whole=traits.kind != "coordinate-wise")
        options = self.rule.keywords
        chosen = traits.weigh(geometry, num_corrupt, **options)
        if traits.then is None:
            return DefencePlan((chosen if weights is None else chosen @ weights)[None], None)
        weights = torch.eye(len(chosen)).double() if weights is None else weights
        then = partial(traits.then, num_corrupt=num_corrupt, **options)
        return DefencePlan(weights[chosen > 0], then)

    @property
    def _is_linear(self) -> bool:
        """Whether all pre-aggregators are mixings: one of the user's own need not be."""
        return all(rule_traits(step).mix is not None for step in self.before)

    def _step_by_step(self, rows: Tensor, num_corrupt: int, previous: Tensor | None) -> Tensor:
        generator = self.make_generator() if self.make_generator else None
        for step in self.before:
            kept, num_corrupt = set_aside(rows, num_corrupt)
            rows = rows if bool(kept.all()) else rows[kept]
            rows, num_corrupt = step(rows, num_corrupt, **_wanted(step, generator))
        return self._bound(previous)(rows, num_corrupt)

    def _bound(self, previous: Tensor | None) -> Callable[..., Tensor]:
        def rule(rows: Tensor, num_corrupt: int) -> Tensor:
            generator = self.make_generator() if self.make_generator else None
            more = _wanted(self.rule, generator) | _wanted(self.rule, previous, "previous")
            if not rule_traits(self.rule).kind:  # a function of the user's
                kept, num_corrupt = set_aside(rows, num_corrupt)
                rows = rows if bool(kept.all()) else rows[kept]
            return self.rule(rows, num_corrupt, **more)

        return rule


def _wanted(step: "partial[Any]", value: Any, name: str = "generator") -> dict[str, Any]:
    return {name: value} if name in inspect.signature(step.func).parameters else {}


def _carry_out(plan: DefencePlan, rows: Tensor) -> Tensor:
    if plan.weights is None:
        raise ValueError("a plan without weights is the rule itself")
    if plan.rule is None:
        return weighted_sum(plan.weights[0], rows)
    if plan.is_whole:
        return plan.rule(mixed_rows(plan.weights, rows))
    parts = rows.split(_CHUNK, dim=1)
    return torch.cat([plan.rule(mixed_rows(plan.weights, part)) for part in parts])
