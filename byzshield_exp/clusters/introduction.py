"""What a rank says of its host before the first step, and how that explains other bits.

It is text of a process that is not believed: short, printable ASCII, and only shown.
"""

from collections.abc import Iterable, Mapping

from byzshield_exp.clusters.fingerprint import BIT_VARIABLES
from byzshield_exp.clusters.wire import Rejected

MOST_BYTES = 2048  # of an introduction
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


def pack_introduction(entries: Entries) -> bytes:
    """Entries as text of at most :data:`MOST_BYTES` bytes; what is too long is cut."""
    lines = "\n".join(f"{name}={_plain(value)}" for name, value in entries.items())
    return lines.encode()[:MOST_BYTES]


def unpack_introduction(content: bytes) -> dict[str, str]:
    """Read what :func:`pack_introduction` made; whatever the bytes are, there is no other error.

    Raises:
        Rejected: if it is too long, or no printable ASCII.
    """
    if len(content) > MOST_BYTES:
        raise Rejected(f"an introduction of {len(content):,} bytes")
    text = content.decode("latin-1")
    lines = text.split("\n")
    if any(_plain(line, MOST_BYTES) != line for line in lines):
        raise Rejected("an introduction that is not printable ASCII")
    pairs = (line.partition("=") for line in lines)
    return {name: value[:_MOST_CHARACTERS] for name, _, value in pairs if name}


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
