"""Answer a shell at Tab. The user waits, so nothing here imports torch or Hydra."""

import shlex
from collections.abc import Iterable, Iterator
from importlib import import_module

from byzshield_exp.commands.verbs import VERBS


def answers(line: str) -> list[str]:
    """List the words that may replace the last, half-typed word of a command line.

    Args:
        line: the line up to the cursor, with the program's name.
    """
    *before, word = _words(line)
    if len(before) < 2:
        return _fitting([*VERBS, "--help", "--version"], word)
    if before[1] not in VERBS:
        return []
    module = import_module(f"byzshield_exp.commands.{before[1]}")
    given = {argument.partition("=")[0] for argument in before[2:] if "=" in argument}
    return _fitting(_not_given([*module.words(before[2:]), "--help"], given), word)


def _words(line: str) -> list[str]:
    try:
        words = shlex.split(line)
    except ValueError:  # a quotation mark is still open
        words = line.split()
    return [*words, ""] if not words or line[-1:].isspace() else words


def _not_given(candidates: Iterable[str], given: set[str]) -> Iterator[str]:
    for candidate in candidates:
        key, equals, _ = candidate.partition("=")
        if not equals or key not in given:
            yield candidate


def _fitting(candidates: Iterable[str], word: str) -> list[str]:
    """Return the candidates that begin with a word; only ``key=`` while the word has no ``=``.

    The keys of a group (``attack.z``) appear after its dot. In a list each value is completed.
    """
    key, equals, value = word.partition("=")
    if equals:
        at = max(value.rfind(","), value.rfind("[")) + 1
        earlier = f"{key}={value[:at]}"
        ends = [one.partition("=")[2] for one in candidates if one.startswith(f"{key}=")]
        return sorted({earlier + end for end in ends if end and end.startswith(value[at:])})
    found = {
        "".join(one.partition("=")[:2])
        for one in candidates
        if one.startswith(word) and (word or not one.startswith("-"))
    }
    groups = {one[:-1] for one in found}
    return sorted(one for one in found if _head(one, word) not in groups)


def _head(candidate: str, word: str) -> str | None:
    """Return the part of a candidate before the next dot or @ that is not typed yet."""
    rest = candidate[len(word) :]
    for mark in (".", "@"):
        if mark in rest:
            return word + rest.partition(mark)[0]
    return None
