"""The reference pages: what ``byzshield list``, ``conf/`` and ``--help`` say, as Markdown."""

import contextlib
import importlib
import io
import re
from collections.abc import Callable, Iterator
from typing import Any

from byzshield_exp.commands import choices as conf
from byzshield_exp.commands.list import docstrings
from byzshield_exp.commands.list.entries import Entry, entry_of
from byzshield_exp.commands.verbs import VERBS

_ROWS = (
    "In the formulas `x_1 ... x_n` are the rows that a rule gets, `x_i[k]` is an entry, `c` is "
    "`num_corrupt` and `y` the result. All rules set rows with NaN or Inf aside first "
    "([rows that are not finite](../aggregators.md))."
)
_LIES = (
    "In the formulas `row` is what a liar sends for file f, `g_f` the file's true gradient, `x_i` "
    "an honest row, `mu` and `sigma` the coordinate-wise mean and standard deviation of honest "
    "rows. What an attacker *knows* is what it may read."
)

# Page: its title, its first paragraph, its groups.
PAGES = {
    "rules": ("Rules", _ROWS, ("aggregator", "pre_aggregator")),
    "attacks": ("Attacks", _LIES, ("attack",)),
    "liars": ("Who lies, and the vote", "", ("adversary", "vote")),
    "placements": (
        "Placements",
        "An approach is a placement with a rule or a protocol. How many files q liars win "
        "under each: [placements and distortion](../distortion.md).",
        ("approach",),
    ),
    "data_and_networks": (
        "Data, networks, optimizers",
        "",
        ("dataset", "network", "optimizer"),
    ),
    "protocols": ("Protocols, cheats, clusters", "", ("protocol", "cheat", "cluster")),
    "experiments": (
        "Experiments",
        "Named sets of choices, most of them a figure of a paper: "
        "[how they are run and what was measured](../experiments.md).",
        ("experiment", "scale"),
    ),
}


def pages() -> dict[str, str]:
    """Return the text of each page by its name."""
    made = {name: _page(title, text, groups) for name, (title, text, groups) in PAGES.items()}
    return made | {"keys": _keys_page(), "commands": _commands_page()}


def _page(title: str, text: str, groups: tuple[str, ...]) -> str:
    parts = [f"# {title}", text]
    for group in groups:
        question = conf.groups()[group].comment
        parts += [f"({group})=", f"## `{group}`: {question}", *_choices(group)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _choices(group: str) -> Iterator[str]:
    """Describe the choices of a group; those with one function stand below its own name."""
    families: dict[str, list[Entry]] = {}
    for choice in conf.choices(group):
        entry = entry_of(group, choice)
        families.setdefault(entry.function or entry.name, []).append(entry)
    for function, entries in families.items():
        name = function.rpartition(".")[2]
        entries.sort(key=lambda entry: (entry.name != name, entry.name))
        yield from _family(group, entries)


def _family(group: str, entries: list[Entry]) -> Iterator[str]:
    first, *presets = entries
    yield f"({group}-{first.name})="
    yield f"### `{first.name}`"
    if presets and first.name != first.function.rpartition(".")[2]:
        yield f"`{group}={first.name}`: {_text(first.line)}"
    elif first.line != first.summary:
        yield _text(first.line)
    yield _text(first.summary)
    if first.formula:
        yield f"```{{code-block}} text\n:class: formula\n{first.formula}\n```"
    function = _function(first)
    if function:
        yield _text(docstrings.details(function))
    yield from _parameters(first)
    yield from _facts(first)
    for entry in presets:
        yield f"({group}-{entry.name})="
        yield f"#### `{entry.name}`"
        yield _text(entry.line)
        yield from _parameters(entry, shown={key.name: key.value for key in first.parameters})
        if entry.implies:
            yield f"Implies `{' '.join(entry.implies)}`."


def _function(entry: Entry) -> Callable[..., Any] | None:
    module, _, name = entry.function.rpartition(".")
    return getattr(importlib.import_module(module), name) if module else None


def _parameters(entry: Entry, shown: dict[str, str] | None = None) -> Iterator[str]:
    keys = [key for key in entry.parameters if (shown or {}).get(key.name) != key.value]
    if keys and entry.group in ("experiment", "scale"):
        yield f"Sets {', '.join(f'`{key.name}={key.value}`' for key in keys)}."
    elif keys:
        rows = [f"| `{key.name}={_cell(key.value)}` | {_meaning(key)} |" for key in keys]
        yield "\n".join(["| key and default | meaning |", "|---|---|", *rows])


def _facts(entry: Entry) -> Iterator[str]:
    function = _function(entry)
    facts = {
        "Kind": entry.kind and f"{entry.kind}; has {', '.join(entry.properties)}",
        "Knows": entry.knows,
        "Implies": entry.implies and f"`{' '.join(entry.implies)}`",
        "Condition": entry.precondition,
        "Function": entry.function and f"`{entry.function}`",
        "Source": docstrings.source_text(function) if function else "",
    }
    lines = [
        f"- **{name}**: {text if name in ('Implies', 'Function') else _text(text)}"
        for name, text in facts.items()
        if text
    ]
    if lines:
        yield "\n".join(lines)


def _meaning(key: conf.Key) -> str:
    """Say what a key is.

    Raises:
        ValueError: if neither its comment nor the docstring does; the build fails.
    """
    value = key.value.strip('"')
    if value.startswith("${"):
        return f"follows `{value[2:-1]}`"
    if not key.comment and "@" not in key.name:
        raise ValueError(f"{key.name}: no comment and no docstring says what it is")
    return _cell(_text(key.comment)) or "any choice of this group"


def _keys_page() -> str:
    rows = [f"| `{key.name}={_cell(key.value)}` | {_meaning(key)} |" for key in conf.values()]
    groups = [
        f"| `{name}={_cell(key.value)}` | {_cell(_text(key.comment))} |"
        for name, key in conf.groups().items()
    ]
    return "\n\n".join(
        [
            "# Keys",
            "Everything below is typed as `key=value` after `byzshield run`. The keys of a choice "
            "(`attack.z`) are on the page of its group.",
            "## Values",
            "\n".join(["| key and default | meaning |", "|---|---|", *rows]),
            "## Groups",
            "\n".join(["| group and default | the question |", "|---|---|", *groups]),
        ]
    )


def _commands_page() -> str:
    parts = [
        "# Commands",
        "`byzshield VERB --help` prints these texts. `python -m byzshield_exp` is the same "
        "program; without a verb it runs, which is the form for torchrun.",
    ]
    for verb, line in VERBS.items():
        parts += [f"## `byzshield {verb}`", f"{line[0].upper()}{line[1:]}.", _help(verb)]
    return "\n\n".join(parts) + "\n"


def _help(verb: str) -> str:
    if verb == "run":  # its --help has all choices and keys, which have pages of their own
        return "All keys: [Keys](keys.md). All choices: the pages beside it."
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        importlib.import_module(f"byzshield_exp.commands.{verb}").main(["--help"])
    return f"```text\n{out.getvalue().strip()}\n```"


def _text(text: str) -> str:
    """Spell plain text as Markdown: what looks like a mark is none."""
    return re.sub(r"([\\*_<>\[\]~^`])", r"\\\1", text)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
