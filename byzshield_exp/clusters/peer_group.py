"""Posts and vectors between peers over torch.distributed; for a liar there are only values here."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import P2POp, Work

from byzshield_exp.clusters.bundle import Key, Pair, check, pack, unpack
from byzshield_exp.clusters.seats import Seats
from byzshield_exp.clusters.vigil import Waitable, all_of, finish, start

_VECTOR, _POSTS = 3, 4  # tags, beside those of rows


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
        here = self._rank, self._rank
        found = came | {pair: vectors[pair] for pair in vectors if ranks[pair] == here}
        return {pair: found[pair] for pair in expected if pair in found}

    def _gather(
        self, owners: Mapping[Key, int], posts: Mapping[Key, bytes], size: int
    ) -> dict[Key, bytes]:
        """Return what all ranks post, in the order of the keys, which all ranks know."""
        keys: dict[int, list[Key]] = {rank: [] for rank in range(self._seats.world_size)}
        for key, rank in owners.items():
            keys[rank].append(key)
        sizes = [len(of_rank) * (1 + size) for of_rank in keys.values()]
        bundle = torch.zeros(sum(sizes), dtype=torch.uint8)
        parts = bundle.split(sizes)
        parts[self._rank].copy_(torch.from_numpy(pack(posts, keys[self._rank], size).reshape(-1)))
        if len(bundle):
            self._do(lambda: self._through_rank_0(bundle, parts))
        found: dict[Key, bytes] = {}
        for rank, cells in enumerate(parts):
            found |= unpack(cells.numpy(), keys[rank], size)
        return {key: found[key] for key in owners if key in found}

    def _through_rank_0(self, bundle: Tensor, parts: Sequence[Tensor]) -> list[Waitable]:
        """Send this rank's part to rank 0, which broadcasts all of them."""
        others = [rank for rank, part in enumerate(parts) if rank > 0 and len(part)]
        sending: list[Work | None] = []
        if self._rank == 0:
            finish([dist.irecv(parts[rank], rank, tag=_POSTS) for rank in others])
            self.bytes_in += sum(parts[rank].nbytes for rank in others)
            self.bytes_out += bundle.nbytes * (len(parts) - 1)
        else:
            if self._rank in others:  # it is there before the broadcast writes the same bytes
                sending = [dist.isend(parts[self._rank], 0, tag=_POSTS)]
            self.bytes_in += bundle.nbytes
            self.bytes_out += parts[self._rank].nbytes
        return all_of([*sending, dist.broadcast(bundle, 0, async_op=True)], bundle)
