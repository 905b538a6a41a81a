"""Fetch one file: resumed where it was cut, and under its name only when it is the right one."""

import hashlib
import os
from http.client import HTTPException
from pathlib import Path
from time import monotonic, sleep
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from byzshield_exp.datasets.official import Download
from byzshield_exp.errors import ConfigError, RunError
from byzshield_exp.notices import say

_TRIES = 3  # of each address
_PAUSE_S = 2.0  # before the second try of an address, twice as long before the third
_TIMEOUT_S = 60.0  # without a byte
_TOLD_EVERY_S = 20.0
_CHUNK = 2**20  # bytes
_WRONG = "its checksum (SHA-256) is wrong"


def fetch(download: Download, partial: Path) -> None:
    """Bring a file to ``partial``, whole and with the right checksum; what is there is used.

    Raises:
        RunError: if no address gives it.
    """
    partial.parent.mkdir(parents=True, exist_ok=True)
    problems: dict[str, str] = {}
    for attempt in range(_TRIES):
        if attempt:
            sleep(_PAUSE_S * 2 ** (attempt - 1))
        for url in download.urls:
            if problems.get(url) == _WRONG:
                continue
            problem = _attempt(download, url, partial)
            if not problem:
                return
            problems[url] = problem
        if set(problems.values()) == {_WRONG}:
            break
    told = "; ".join(f"{url}: {problem}" for url, problem in problems.items())
    raise RunError(f"{download.name} cannot be fetched ({told}): the same command goes on")


def check(path: Path, size: int, sha256: str | None = None) -> None:
    """Compare a file that is there with the official one, as far as that is known.

    Raises:
        ConfigError: if it is another one.
    """
    there = path.stat().st_size
    problem = f"{there} bytes instead of {size}" if there != size else ""
    if not problem and sha256 and _sha256(path) != sha256:
        problem = "another SHA-256"
    if problem:
        raise ConfigError(
            f"{path} is not the official file ({problem}): delete it to have that one fetched; "
            "a run reads what is there"
        )


def megabytes(size: int) -> str:
    """A number of bytes for a person."""
    return f"{size / 1e6:,.1f} MB"


def _attempt(download: Download, url: str, partial: Path) -> str:
    """Try one address; what is wrong, or nothing."""
    resumed = _size(partial) > 0
    try:
        _receive(download, url, partial)
    except (OSError, HTTPException) as error:
        return str(error) or type(error).__name__
    if _size(partial) < download.size:
        return f"cut after {megabytes(_size(partial))} of {megabytes(download.size)}"
    if _sha256(partial) == download.sha256:
        return ""
    partial.unlink()
    return _attempt(download, url, partial) if resumed else _WRONG


def _receive(download: Download, url: str, partial: Path) -> None:
    """Append what is missing of a file, or all of it where the server knows no ranges.

    Raises:
        OSError: if the server or the disk fails; what came stays.
        HTTPException: if the server's answer cannot be understood; likewise.
    """
    have = _size(partial)
    if have >= download.size:
        return
    request = Request(url, headers={"User-Agent": "byzshield_exp"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        answer = urlopen(request, timeout=_TIMEOUT_S)
    except HTTPError as error:
        error.close()
        raise
    with answer:
        place = answer.headers.get("Content-Range", "")
        goes_on = answer.status == 206 and place.startswith(f"bytes {have}-")
        left = download.size - (have if goes_on else 0)
        if answer.length not in (None, left):
            raise OSError(f"another file: {answer.length} bytes come instead of {left}")
        with partial.open("ab" if goes_on else "wb") as file:
            whence = f", from {megabytes(file.tell())}" if file.tell() else ""
            say(f"fetching {url} ({megabytes(download.size)}{whence})")
            told_at = monotonic()
            while file.tell() <= download.size and (content := answer.read(_CHUNK)):
                file.write(content)
                if monotonic() - told_at > _TOLD_EVERY_S:
                    told_at = monotonic()
                    say(f"  {megabytes(file.tell())} of {megabytes(download.size)}")
            file.flush()
            os.fsync(file.fileno())


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
