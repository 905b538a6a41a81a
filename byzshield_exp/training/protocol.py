"""What the loop and the learner know of any protocol."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from byzshield_exp.binding import bind

if TYPE_CHECKING:
    from byzshield_exp.training.experiment import Experiment
    from byzshield_exp.training.updates import Updates

_GIVEN = ("experiment", "config", "channel", "runs", "gpu_sharers")


@dataclass(frozen=True, eq=False)
class Report:
    """What rank 0 saw in a step.

    Attributes:
        loss: mean over files of the loss that is reported for them, in nats.
        byzantine: who lied.
        statistics: ``[s]``, the network's next running statistics.
        nonfinite: where the update is NaN as too many rows were not finite, a line about them.
        bytes_in: bytes that rank 0 received.
        files_computed: true gradients per rank since the start of the run.
        seconds: per phase, of rank 0, and of the slowest rank with workers.
        events: human-readable warnings.
        table: what only this protocol counts, for the record of the step.
        profile: seconds and bytes of every rank; None unless it was asked for.
        rows: norms or distances of honest and false rows, by name; None unless asked for.
    """

    loss: float
    byzantine: tuple[int, ...]
    statistics: Float[Tensor, " s"]
    nonfinite: str
    bytes_in: int
    files_computed: list[int]
    seconds: dict[str, float]
    events: list[str] = field(default_factory=list)
    table: dict[str, Any] = field(default_factory=dict)
    profile: dict[str, Any] | None = None
    rows: Mapping[str, list[float]] | None = None

    def record(self) -> dict[str, Any]:
        """Return what belongs into the record of a step, beside loss and seconds."""
        record = {"byzantine": self.byzantine, **self.table, "bytes_in": self.bytes_in}
        more = {"events": self.events or None, "profile": self.profile}
        return record | {name: value for name, value in more.items() if value is not None}


@runtime_checkable
class TrainingProtocol(Protocol):
    """How the processes of a run make one update of a step.

    Every rank calls ``prepare`` once, then ``begin`` and ``step`` in turn, and ``end``.

    Attributes:
        state: rank 0's tensors that outlive a step, for the checkpoint.
    """

    state: dict[str, Tensor]

    def prepare(self, updates: "Updates") -> None:
        """Meet the other ranks and compare what must be equal, before the first step.

        Args:
            updates: of this process; rank 0's may be those of a checkpoint.

        Raises:
            RunError: naming the ranks that differ, and why as far as they say it.
        """
        ...

    def begin(self, step: int | None) -> int | None:
        """Begin a step; every rank returns rank 0's number of it, None at the end of the run.

        Args:
            step: on rank 0 the next step, None to end the run; ignored on other ranks.
        """
        ...

    def step(self, step: int) -> tuple[Float[Tensor, " d"], Report] | None:
        """Do a step; the update and the report on rank 0, and on each rank that applies it.

        None where there is nothing to apply.

        Raises:
            RunError: if the run cannot go on; ``TooFewReplicas`` if too many ranks are gone.
        """
        ...

    def take_events(self) -> list[str]:
        """Human-readable warnings since the last report, once."""
        ...

    def before_evaluation(self) -> None:
        """On rank 0, bring the network's running statistics up to date."""
        ...

    def facts(self) -> dict[str, Any]:
        """What the summary says of this protocol alone."""
        ...

    def end(self) -> None:
        """Let the other ranks end as well; at the end, or after a failure."""
        ...


Check = Callable[["Experiment", Mapping[str, Any]], list[str]]


@dataclass(frozen=True)
class ProtocolTraits:
    """What a protocol's factory declares.

    Attributes:
        check: ``check(experiment, config) -> notes``, warnings for the user; raises
            ``ConfigError`` where the protocol cannot run it. None: it runs everything.
        has_server: whether rank 0 is trusted and aggregates; else it only follows.
    """

    check: Check | None = None
    has_server: bool = True


def protocol_traits(
    check: Check | None = None, has_server: bool = True
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare :class:`ProtocolTraits` of a protocol's factory."""

    def declare(factory: Callable[..., Any]) -> Callable[..., Any]:
        factory.protocol_traits = ProtocolTraits(check, has_server)  # type: ignore[attr-defined]
        return factory

    return declare


def bind_protocol(config: Mapping[str, Any]) -> "partial[TrainingProtocol]":
    """Bind the factory of the protocol that is chosen; it takes a run's parts.

    Raises:
        ConfigError: for an unknown key, or a value of a wrong type.
    """
    return bind("protocol", config["protocol"], _GIVEN)


def traits_of(config: Mapping[str, Any]) -> ProtocolTraits:
    """What the protocol that is chosen declares.

    Raises:
        ConfigError: as :func:`bind_protocol`.
    """
    found: ProtocolTraits = getattr(bind_protocol(config).func, "protocol_traits", ProtocolTraits())
    return found


def check_protocol(experiment: "Experiment", config: Mapping[str, Any]) -> list[str]:
    """Check an experiment for the protocol that is chosen; return notes for the user.

    Raises:
        ConfigError: in one line.
    """
    check = traits_of(config).check
    return check(experiment, config) if check else []
