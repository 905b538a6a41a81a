"""Find the keys that a command line may set, and which one a wrong word means."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches

from byzshield_exp.commands.arguments import take_option
from byzshield_exp.commands.choices import Key, choice, choices, groups, paths, values
from byzshield_exp.commands.verbs import VERBS

_SETS = ("experiment", "scale")  # groups whose choices are sets of choices


def config_dir(arguments: Sequence[str]) -> str | None:
    """Return the user's own folder of choices, if the arguments name one."""
    return take_option([*arguments], "--config-dir", "-cd")


def keys_of(arguments: Sequence[str]) -> Iterator[Key]:
    """List the keys of ``config.yaml``, and of the typed and the default choices."""
    more = config_dir(arguments)
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    yield from values()
    for group, default in groups().items():
        for name in given.get(group, default.value).strip("[]").split(","):
            chosen = choice(group, name, more)
            yield from chosen.keys if chosen else ()


def meant_key(name: str, arguments: Sequence[str] = ()) -> str:
    """Return ``"; did you mean 'optimizer.lr'?"`` for an unknown key, or ``""``.

    Args:
        name: the key, as typed.
        arguments: the command line, whose choices have keys of their own.
    """
    known = [key.name for key in keys_of(arguments)]
    top = [*groups(), *(key for key in known if "." not in key)]
    for found in (
        [f"'{key}'" for key in top if key.lower() == name.lower()],
        _ending_in(name, known),
        _keys_of_other_choices(name, config_dir(arguments)),
    ):
        if found:
            return f"; did you mean {' or '.join(found)}?"
    ends = {key.rpartition(".")[2]: key for key in known} | {key: key for key in (*known, *top)}
    return "".join(f"; did you mean '{ends[near]}'?" for near in get_close_matches(name, ends, n=1))


def _ending_in(name: str, known: Sequence[str]) -> list[str]:
    return [f"'{key}'" for key in known if key.lower().endswith(f".{name.lower()}")]


def _keys_of_other_choices(name: str, more: str | None) -> list[str]:
    """Find the choices that have such a key: ``'dataset.root' of dataset=mnist``."""
    found: dict[str, str] = {}
    for group in groups().keys() - {*_SETS}:
        for one in choices(group, more):
            for key in _ending_in(name, [key.name for key in one.keys]):
                found.setdefault(key, f"{key} of {group}={one.name}")
    return sorted(found.values())


def explained(word: str, more: str | None = None) -> str:
    """Say what a lone word is where a verb or ``key=value`` belongs; empty if that is not known."""
    known = {key.name: key.value for key in keys_of(())}
    if word in VERBS:
        return f"{word} is a verb: byzshield {word}"
    if word.removesuffix("s") in groups():
        return f"{word} is a group of choices: byzshield list {word}"
    if word in known:
        return f"{word} is a key: byzshield run {word}={known[word]}"
    of = [group for group in groups() if word in paths(group, more)]
    ways = " or ".join(f"{group}={word}" for group in of)
    return f"{word} is a choice of {', '.join(of)}: byzshield run {ways}" if of else ""
