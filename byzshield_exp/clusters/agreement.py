"""Check that all ranks compute the same bits from the same data."""

from byzshield_exp.clusters.introduction import DATA, Introduction, explain
from byzshield_exp.clusters.transport import Transport
from byzshield_exp.errors import RunError


class Agreement:
    """What the server knows of the other ranks' bits.

    Args of the constructor:
        own: the server's introduction; its digest is not compared.
    """

    def __init__(self, own: Introduction) -> None:
        self._own = Introduction.unpack(own.pack()).entries  # cut like those of the others
        self._said: dict[int, Introduction] = {}

    def check(self, transport: Transport, said: dict[int, bytes]) -> None:
        """Compare all ranks before the first step.

        Raises:
            RunError: naming the ranks that differ and what they say of themselves, or if no rank
                introduces itself.
        """
        self._note(transport, said)
        if not self._said:
            raise RunError("no rank with workers answers before the first step")
        other_data = self._with_other_data()
        odd = sorted({*other_data, *self._dissenting_ranks()})
        if odd:
            what = (
                "read other data than the server"
                if odd == other_data
                else "computed other bits for file 0 than the rest, so replicas cannot agree"
            )
            raise RunError(f"ranks {odd} {what}; {self._explain(odd)}")

    def check_late(self, transport: Transport, said: dict[int, bytes]) -> None:
        """Drop ranks that introduce themselves after the first step and differ from the rest."""
        if not said:
            return
        self._note(transport, said)
        earlier = [one.digest for rank, one in self._said.items() if rank not in said]
        common = _most_common(earlier or [one.digest for one in self._said.values()])
        for rank in sorted(self._said.keys() & said.keys()):
            if self._said[rank].digest == common:
                continue
            why = self._explain([rank])
            del self._said[rank]
            transport.drop(rank, f"it computed other bits for file 0 than the rest; {why}")

    def _note(self, transport: Transport, said: dict[int, bytes]) -> None:
        for rank, content in said.items():
            try:
                self._said[rank] = Introduction.unpack(content)
            except ValueError as error:
                transport.drop(rank, f"it sent {error}")

    def _with_other_data(self) -> list[int]:
        data = self._own.get(DATA)
        return sorted(rank for rank, one in self._said.items() if one.entries.get(DATA) != data)

    def _dissenting_ranks(self) -> list[int]:
        """Return the ranks whose digest is not the most common one."""
        digests = {rank: one.digest for rank, one in self._said.items()}
        common = _most_common(list(digests.values()))
        return sorted(rank for rank, digest in digests.items() if digest != common)

    def _explain(self, odd: list[int]) -> str:
        return explain(odd, {rank: one.entries for rank, one in self._said.items()}, self._own)


def _most_common(digests: list[bytes]) -> bytes:
    return max(digests, key=digests.count)
