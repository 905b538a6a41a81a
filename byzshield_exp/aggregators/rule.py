"""What makes a function a rule: its kind, what it promises, and one policy for bad rows.

A rule is called as ``rule(rows [n, d], num_corrupt, **options) -> [d]``, whatever its kind, with a
tensor, an array, or a list of them, which becomes a tensor first; the result is a tensor. Kinds:

* a *coordinate-wise* rule treats any slice of the coordinates alike;
* a *weighing* sees the rows through their :class:`Geometry` and returns one weight per row;
* a *choice* weighs, and then a coordinate-wise rule aggregates the rows of positive weight;
* any other rule needs all rows at once.

The kinds let a defence run on parts of the rows (``Defence``); a caller need not know them.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from byzshield_exp.aggregators.geometry import Geometry, mixed_rows, weighted_sum
from byzshield_exp.aggregators.policy import Unclean, check_rows, place_of, set_aside
from byzshield_exp.rows.finite import finite_rows
from byzshield_exp.rows.parallel import new_rows, sent

P = ParamSpec("P")
Bound = Callable[[int, int], float]
Rows = Tensor | np.ndarray | Sequence[Tensor] | Sequence[np.ndarray]

PROPERTIES = ("permutation", "equal rows", "translation", "scale", "bound")


@dataclass(frozen=True)
class RuleTraits:
    """What a rule or a pre-aggregator declares.

    Attributes:
        kind: ``coordinate-wise``, ``weighing``, ``choice``, ``whole`` or ``mixing``; ``""`` where
            nothing is declared.
        properties: those of :data:`PROPERTIES` that a rule has.
        bound: ``bound(n, num_corrupt)`` as for :func:`coordinate_wise`.
        weigh: of a weighing or a choice.
        then: of a choice.
        mix: of a mixing.
    """

    kind: str = ""
    properties: tuple[str, ...] = ()
    bound: Bound | None = None
    weigh: Callable[..., Tensor] | None = None
    then: Callable[..., Tensor] | None = None
    mix: Callable[..., tuple[Tensor, int]] | None = None


_UNDECLARED = RuleTraits()


def rule_traits(function: Callable[..., Any] | None) -> RuleTraits:
    """What a rule or a pre-aggregator declares, its options bound or not."""
    traits: RuleTraits = getattr(getattr(function, "func", function), "rule_traits", _UNDECLARED)
    return traits


@runtime_checkable
class Rule(Protocol[P]):
    """A rule as type checkers see it; ``P`` is ``num_corrupt`` and the options."""

    def __call__(self, rows: Rows, *args: P.args, **options: P.kwargs) -> Tensor: ...


@runtime_checkable
class Mixing(Protocol[P]):
    """A pre-aggregator as type checkers see it; ``P`` is ``num_corrupt`` and the options."""

    def __call__(self, rows: Rows, *args: P.args, **options: P.kwargs) -> tuple[Tensor, int]: ...


Columns = Callable[Concatenate[Tensor, P], Tensor]  # rows [n, d] -> [d]
Weigh = Callable[Concatenate[Geometry, P], Tensor]  # what it sees of the rows -> weights [n]


def as_rows(rows: Any) -> Tensor:  # of any type, as it is the one to say what is wrong
    """Return rows as one tensor; a tensor as it is.

    Args:
        rows: ``[n, d]``, or n vectors ``[d]`` of one type and device.

    Raises:
        ValueError: if the vectors differ in length, type or device, or are none.
    """
    if isinstance(rows, Tensor):
        return rows
    try:
        if isinstance(rows, np.ndarray):
            return torch.as_tensor(rows)
        given = [torch.as_tensor(row) for row in rows]
        kinds = {(tuple(row.shape), row.dtype, row.device) for row in given}
        if len(kinds) == 1:
            return torch.stack(given)
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"rows: {error}") from error
    found = ", ".join(f"{[*shape]} {kind}" for shape, kind, _ in sorted(kinds, key=str))
    raise ValueError(f"needs rows of one length, type and device, got {found or 'none'}")


def coordinate_wise(
    bound: Bound | None = None, lacks: tuple[str, ...] = (), raises_unclean: bool = False
) -> Callable[[Columns[P]], Rule[P]]:
    """Make a rule of a function of columns.

    Args:
        bound: ``bound(n, num_corrupt)``: the result stays within this many times R of the honest
            mean, where R is the largest distance of an honest row to it. None: no promise.
        lacks: which of :data:`PROPERTIES` the rule does not have.
        raises_unclean: whether the rule raises ``Unclean`` itself for a row that is not finite, as
            ours do while they read the rows; else all rows are looked at before.
    """
    return lambda function: _finish(
        function, function, "coordinate-wise", bound, lacks, raises_unclean
    )


def whole(
    bound: Bound | None = None, lacks: tuple[str, ...] = (), raises_unclean: bool = False
) -> Callable[[Columns[P]], Rule[P]]:
    """Make a rule of a function that needs all rows at once; arguments as above."""
    return lambda function: _finish(function, function, "whole", bound, lacks, raises_unclean)


def weighing(
    bound: Bound | None = None, lacks: tuple[str, ...] = (), raises_unclean: bool = False
) -> Callable[[Weigh[P]], Rule[P]]:
    """Make a rule of ``weigh(geometry, num_corrupt) -> weights [n]``; arguments as above."""

    def make(weigh: Weigh[P]) -> Rule[P]:
        @wraps(weigh)
        def rule(rows: Tensor, /, *args: P.args, **options: P.kwargs) -> Tensor:
            return weighted_sum(weigh(Geometry.of(rows), *args, **options), rows)

        return _finish(rule, weigh, "weighing", bound, lacks, raises_unclean, weigh=weigh)

    return make


def choice(
    then: Callable[..., Tensor],
    bound: Bound | None = None,
    lacks: tuple[str, ...] = (),
    raises_unclean: bool = False,
) -> Callable[[Weigh[P]], Rule[P]]:
    """Make a rule of a weighing that chooses rows and ``then(chosen, num_corrupt) -> [d]``.

    ``then`` is coordinate-wise and gets the rule's options too; other arguments as above.
    """

    def make(weigh: Weigh[P]) -> Rule[P]:
        @wraps(weigh)
        def rule(rows: Tensor, /, *args: P.args, **options: P.kwargs) -> Tensor:
            chosen = weigh(Geometry.of(rows), *args, **options) > 0
            kept = chosen.nonzero().flatten()
            picked = torch.index_select(
                rows, 0, sent(kept, rows.device), out=new_rows(len(kept), rows)
            )
            return then(picked, *args, **options)

        return _finish(rule, weigh, "choice", bound, lacks, raises_unclean, weigh=weigh, then=then)

    return make


def mixing(mix: Callable[Concatenate[Geometry, P], tuple[Tensor, int]]) -> Mixing[P]:
    """Make a pre-rule ``(rows, num_corrupt) -> (rows, num_corrupt)`` of a mixing.

    ``mix(geometry, num_corrupt) -> (weights [m, n], num_corrupt)``: the new rows are
    ``weights @ rows``.
    """
    signature = inspect.signature(mix)
    weigh: Callable[..., tuple[Tensor, int]] = mix

    @wraps(mix)
    def apply(*args: Any, **options: Any) -> tuple[Tensor, int]:
        given = _bound(mix, signature, args, options).arguments
        rows, num_corrupt = as_rows(given.pop("rows")), given.pop("num_corrupt")
        check_rows(rows, num_corrupt)
        with torch.no_grad():
            try:
                weights, left = weigh(Geometry.of(rows), num_corrupt, **given)
                return mixed_rows(weights, rows), left
            except Unclean:
                kept, left = set_aside(rows, num_corrupt)
            rows = rows[kept]
            weights, left = weigh(Geometry.of(rows), left, **given)
            return mixed_rows(weights, rows), left

    apply.rule_traits = RuleTraits(kind="mixing", mix=mix)  # type: ignore[attr-defined]
    made: Mixing[P] = _shown(apply, signature, tuple[Float[Tensor, "m d"], int])
    return made


def _bound(
    function: Callable[..., Any],
    signature: inspect.Signature,
    args: Sequence[Any],
    options: dict[str, Any],
) -> inspect.BoundArguments:
    """Bind arguments, or say as Python does which function lacks which."""
    try:
        return signature.bind(*args, **options)
    except TypeError as error:
        raise TypeError(f"{function.__name__}() {error}") from None


def _finish(
    rule: Columns[P],
    written: Callable[..., Tensor],
    kind: str,
    bound: Bound | None,
    lacks: tuple[str, ...],
    raises_unclean: bool,
    **parts: Any,
) -> Rule[P]:
    """Add the checks, the policy for rows that are not finite, and the declaration to a rule."""
    signature = inspect.signature(written)

    @wraps(written)
    def apply(*args: Any, **options: Any) -> Tensor:
        given = _bound(written, signature, args, options)
        given.apply_defaults()
        given.arguments["rows"] = rows = as_rows(given.arguments["rows"])
        num_corrupt = given.arguments["num_corrupt"]
        check_rows(rows, num_corrupt)
        with torch.no_grad():
            try:
                if not raises_unclean and not bool(finite_rows(rows).all()):
                    raise Unclean
                return rule(*given.args, **given.kwargs)
            except Unclean:
                kept, left = set_aside(rows, num_corrupt)
            if "trusted" in given.arguments:
                given.arguments["trusted"] = place_of(given.arguments["trusted"], kept, num_corrupt)
            given.arguments.update(rows=rows[kept], num_corrupt=left)
            return rule(*given.args, **given.kwargs)

    lacking = set(lacks) | (set() if bound else {"bound"})
    properties = tuple(name for name in PROPERTIES if name not in lacking)
    apply.rule_traits = RuleTraits(kind, properties, bound, **parts)  # type: ignore[attr-defined]
    made: Rule[P] = _shown(apply, signature, Float[Tensor, " d"])
    return made


def _shown(apply: Any, written: inspect.Signature, result: Any) -> Any:
    """Let ``help`` show what the rule takes, not what the function that it was made of sees."""
    rows = written.parameters["rows"].replace(annotation=Float[Tensor, "n d"])
    others = [one for name, one in written.parameters.items() if name != "rows"]
    apply.__signature__ = written.replace(parameters=[rows, *others], return_annotation=result)
    apply.__annotations__ = apply.__annotations__ | {"rows": rows.annotation, "return": result}
    return apply
