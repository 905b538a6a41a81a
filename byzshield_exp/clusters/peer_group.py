"""Posts and vectors between peers over torch.distributed; for a liar there are only values here."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import P2POp

from byzshield_exp.clusters.bundle import Key, Pair, check, pack, unpack
from byzshield_exp.clusters.seats import Seats
from byzshield_exp.clusters.vigil import Waitable, all_of, start

_VECTOR = 3  # a tag, beside those of rows


class PeerGroup:
    """What :class:`~byzshield_exp.clusters.process_group.ProcessGroup` carries between peers.

    Args of the constructor:
        seats: who plays whom.
        rank: of this process.
        device: that vectors travel from and to.
        do: starts operations and waits for them.

    Attributes:
        bytes_in: received since :meth:`begin`.
        bytes_out: sent since then.
    """

    def __init__(
        self,
        seats: Seats,
        rank: int,
        device: torch.device,
        do: Callable[[Callable[[], Iterable[Waitable | None]]], None],
    ) -> None:
        self._seats, self._rank, self._device, self._do = seats, rank, device, do
        self.bytes_in = self.bytes_out = 0

    def begin(self) -> None:
        """Begin a step."""
        self.bytes_in = self.bytes_out = 0

    def round(
        self, posts: Mapping[int, bytes], expected: Sequence[int], size: int
    ) -> dict[int, bytes]:
        """Gather the posts of all ranks on each."""
        return self._gather({one: self._seats.rank_of_id(one) for one in expected}, posts, size)

    def swap(
        self, vectors: Mapping[Pair, Tensor], expected: Mapping[Pair, int]
    ) -> dict[Pair, Tensor]:
        """Send and receive those vectors that there are: a flag for each goes to all ranks before.

        Raises:
            RunError: if this rank would send a vector of another type or size.
        """
        ranks = {pair: tuple(map(self._seats.rank_of_id, pair)) for pair in expected}
        check(vectors, expected)
        senders = {pair: sender for pair, (sender, receiver) in ranks.items() if sender != receiver}
        there = self._gather(senders, dict.fromkeys(vectors, b""), 0)
        travels = {pair: expected[pair] for pair in there if self._rank in ranks[pair]}
        sent = {
            pair: vectors[pair].to(self._device).contiguous()
            for pair in travels
            if ranks[pair][0] == self._rank
        }
        sizes = [size for pair, size in travels.items() if pair not in sent]
        rooms = torch.empty(sum(sizes), dtype=torch.float32, device=self._device).split(sizes)
        came = dict(zip((pair for pair in travels if pair not in sent), rooms, strict=True))
        operations = [
            P2POp(dist.isend, sent[pair], ranks[pair][1], tag=_VECTOR)
            if pair in sent
            else P2POp(dist.irecv, came[pair], ranks[pair][0], tag=_VECTOR)
            for pair, size in travels.items()
            if size
        ]
        if operations:
            self._do(lambda: start(operations))
        self.bytes_in += sum(vector.nbytes for vector in came.values())
        self.bytes_out += sum(vector.nbytes for vector in sent.values())
        own = {pair: vectors[pair] for pair in vectors if ranks[pair] == (self._rank, self._rank)}
        return {pair: (came | own)[pair] for pair in expected if pair in came or pair in own}

    def _gather(
        self, owners: Mapping[Key, int], posts: Mapping[Key, bytes], size: int
    ) -> dict[Key, bytes]:
        """Return what all ranks post, in the order of the keys, which all ranks know."""
        keys: dict[int, list[Key]] = {rank: [] for rank in range(self._seats.world_size)}
        for key, rank in owners.items():
            keys[rank].append(key)
        mine = torch.zeros(max(map(len, keys.values())) * (1 + size), dtype=torch.uint8)
        if not len(mine):
            return {}
        packed = pack(posts, keys[self._rank], size).reshape(-1)
        mine[: len(packed)] = torch.from_numpy(packed)
        came = [torch.empty_like(mine) for _ in keys]
        self._do(lambda: all_of([dist.all_gather(came, mine, async_op=True)], mine))
        self.bytes_in += mine.nbytes * (len(keys) - 1)
        self.bytes_out += mine.nbytes * (len(keys) - 1)
        found: dict[Key, bytes] = {}
        for rank, cells in enumerate(came):
            found |= unpack(cells.numpy(), keys[rank], size)
        return {key: found[key] for key in owners if key in found}
