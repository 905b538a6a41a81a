"""What all peers know of a step, kept until validators have checked it."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from byzshield_exp.rows.finite import is_finite
from byzshield_exp.training.btard.lottery import directions
from byzshield_exp.training.btard.parts import parts
from byzshield_exp.training.btard.postings import part_digest
from byzshield_exp.training.btard.sums import numbers
from byzshield_exp.training.btard.verdicts import Recomputed

_NAMES = ("finite", "digests", "s", "nu")
_KEY = "btard_"  # of the state


@dataclass(frozen=True, eq=False)
class Posted:
    """What was posted in an attempt, and the aggregate.

    Attributes:
        step: of the run.
        attempt: of the step.
        active: who computed, in the order of their parts.
        drawn: what the secrets gave.
        tau: clipping radius.
        aggregate: ``[d]``, on the CPU.
        finite: ``[n, n]`` bool, whether a peer's row is finite in a part, as it said.
        digests: ``[n, n, 32]``, of the parts of each row.
        s: ``[n, n, k]``, as posted: a peer's sums in each part.
        nu: ``[n, n]``, as posted: its distances.
    """

    step: int
    attempt: int
    active: tuple[int, ...]
    drawn: bytes
    tau: float
    aggregate: Float[Tensor, " d"]
    finite: np.ndarray
    digests: np.ndarray
    s: np.ndarray
    nu: np.ndarray

    @cached_property
    def parts(self) -> list[slice]:
        """The parts of the vector."""
        return parts(len(self.aggregate), len(self.active))

    def directions(self, part: int) -> Float[Tensor, "k c"]:
        """In which the sums of a part were checked."""
        where = self.parts[part]
        return directions(self.drawn, part, self.s.shape[2], where.stop - where.start)

    def finding(self, peer: int, row: Float[Tensor, " d"]) -> Recomputed:
        """Compare what a peer posted with its true row, bit by bit.

        Args:
            peer: who was active.
            row: that it should have had, on the CPU.
        """
        place = self.active.index(peer)
        pieces = [row[where] for where in self.parts]
        for part, piece in enumerate(pieces):
            flag = is_finite(piece)
            digest = part_digest(self.step, self.attempt, peer, part, piece, flag)
            if flag != self.finite[place, part] or digest != self.digests[place, part].tobytes():
                return Recomputed(False)
        wrong_sums, wrong_norms = [], []
        for part, piece in enumerate(pieces):
            middle, finite = self.aggregate[self.parts[part]], bool(self.finite[place, part])
            s, nu = numbers([piece], [finite], middle, self.directions(part), self.tau)
            if s[0].tobytes() != self.s[place, part].tobytes():
                wrong_sums.append(part)
            if nu[0].tobytes() != self.nu[place, part].tobytes():
                wrong_norms.append(part)
        return Recomputed(True, tuple(wrong_sums), tuple(wrong_norms))

    def state(self) -> dict[str, Tensor]:
        """As tensors, for a checkpoint."""
        numbers = [self.step, self.attempt, *self.active]
        kept = {name: torch.from_numpy(np.array(getattr(self, name))) for name in _NAMES}
        kept |= {
            "numbers": torch.tensor(numbers),
            "drawn": torch.frombuffer(bytearray(self.drawn), dtype=torch.uint8),
            "tau": torch.tensor(self.tau, dtype=torch.float64),
            "aggregate": self.aggregate,
        }
        return {_KEY + name: value for name, value in kept.items()}

    @classmethod
    def of_state(cls, state: dict[str, Tensor]) -> "Posted | None":
        """Read it again; None where there is none."""
        if _KEY + "numbers" not in state:
            return None
        kept = {name.removeprefix(_KEY): value.cpu() for name, value in state.items()}
        step, attempt, *active = kept["numbers"].tolist()
        return cls(
            step, attempt, tuple(active), kept["drawn"].numpy().tobytes(), float(kept["tau"]),
            kept["aggregate"], *(kept[name].numpy() for name in _NAMES),
        )  # fmt: skip
