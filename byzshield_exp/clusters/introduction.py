"""What a rank says of its host before the first step, and how that explains other bits.

It is text of a process that is not believed: short, printable ASCII, and only shown.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from byzshield_exp.clusters.fingerprint import BIT_VARIABLES
from byzshield_exp.rows.digests import DIGEST_BYTES

_MOST_TEXT = 2048  # bytes
MOST_INTRODUCTION = DIGEST_BYTES + _MOST_TEXT  # bytes
HOST, DATA = "host", "data"
_MOST_CHARACTERS = 64  # of a value
_NAMED = 5  # groups of ranks in a message
_SAME = "set the same " + ", ".join(BIT_VARIABLES[:3]) + " on all machines"
_ADVICE = {
    DATA: "let all machines read the same files (dataset.root) with the same versions",
    "threads": "give all ranks the same threads=",
    **dict.fromkeys(("torch", "numpy", "byzshield_exp"), "install the same versions everywhere"),
    **dict.fromkeys(("cpu", "capability", *BIT_VARIABLES), _SAME),
    **dict.fromkeys(("gpu", "cuda", "cudnn"), "take GPUs of one model with the same CUDA"),
    "precision": "give all ranks the same precision=",
}
_OTHERWISE = "use the same processor type, versions and data on all machines"

Entries = Mapping[str, str]


@dataclass(frozen=True)
class Introduction:
    """What a rank says of itself before the first step.

    Attributes:
        digest: 32 bytes: of file 0's gradient and the data; zeros on a rank that computes none.
        entries: of its host and data, by name.
    """

    digest: bytes
    entries: Entries

    def pack(self) -> bytes:
        """At most :data:`MOST_INTRODUCTION` bytes; entries that are too long are cut."""
        lines = "\n".join(f"{name}={_plain(value)}" for name, value in self.entries.items())
        return self.digest + lines.encode()[:_MOST_TEXT]

    @classmethod
    def unpack(cls, content: bytes) -> "Introduction":
        """Read what :meth:`pack` made; whatever the bytes are, there is no other error.

        Raises:
            ValueError: if it has another length, or is no printable ASCII.
        """
        digest, text = content[:DIGEST_BYTES], content[DIGEST_BYTES:].decode("latin-1")
        if len(digest) < DIGEST_BYTES or len(text) > _MOST_TEXT:
            raise ValueError(f"an introduction of {len(content):,} bytes")
        lines = text.split("\n")
        if any(_plain(line, _MOST_TEXT) != line for line in lines):
            raise ValueError("an introduction that is not printable ASCII")
        pairs = (line.partition("=") for line in lines)
        return cls(digest, {name: value[:_MOST_CHARACTERS] for name, _, value in pairs if name})


def _plain(text: str, most: int = _MOST_CHARACTERS) -> str:
    return "".join(sign if " " <= sign <= "~" else "?" for sign in text[:most])


def explain(odd: Iterable[int], said: Mapping[int, Entries], own: Entries) -> str:
    """Why ranks computed other bits, as far as they say it, and what to do; one line.

    Args:
        odd: the ranks.
        said: by rank, what all of them say.
        own: the same of the server.
    """
    odd = sorted(odd)
    found = _differences(odd, said, own) or _differences(sorted(said.keys() - odd), said, own)
    hosts = sorted({said[rank].get(HOST, "?") for rank in odd})
    reasons = [_told(ranks, *reason, own) for reason, ranks in list(found.items())[:_NAMED]]
    if len(found) > _NAMED:
        reasons.append(f"and {len(found) - _NAMED} groups of ranks more")
    if not reasons:
        reasons = [f"they are on {_listed(hosts)} and state nothing else than the server does"]
    names = {name for _, differing in found for name, _ in differing}
    advice = list(dict.fromkeys(text for name, text in _ADVICE.items() if name in names))
    if not names <= {DATA}:
        advice.append("or take vote=tolerant")
    return f"{'; '.join(reasons)}: {', '.join(advice or [_OTHERWISE, 'or take vote=tolerant'])}"


def _differences(
    ranks: Iterable[int], said: Mapping[int, Entries], own: Entries
) -> dict[tuple[str, tuple[tuple[str, str], ...]], list[int]]:
    """The ranks by host and by the entries in which they differ from the server."""
    found: dict[tuple[str, tuple[tuple[str, str], ...]], list[int]] = {}
    for rank in ranks:
        entries = said[rank]
        differing = tuple(
            (name, entries.get(name, "not said"))
            for name, value in own.items()
            if name != HOST and entries.get(name) != value
        )
        if differing:
            found.setdefault((entries.get(HOST, "?"), differing), []).append(rank)
    return found


def _told(ranks: list[int], host: str, differing: tuple[tuple[str, str], ...], own: Entries) -> str:
    where = f"ranks {_listed(map(str, ranks))}" if len(ranks) > 1 else f"rank {ranks[0]}"
    entries = [f"{name}={value} (server: {own[name]})" for name, value in differing]
    return f"{where} on host {host}: {', '.join(entries)}"


def _listed(names: Iterable[str]) -> str:
    named = list(names)
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return ", ".join(named[:_NAMED]) + more
