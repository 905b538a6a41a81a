"""``byzshield migrate``: the command line here for settings of another program.

    byzshield migrate -- mpirun -n 26 python distributed_nn.py --approach=rama_two --worker-fail=5
    byzshield migrate K=15 -- --approach mols --group-size 3 --worker-fail 3
    byzshield migrate --detox K=45 -- --approach draco_lite --group-size 3
    byzshield migrate config.json [network=resnet18 ...]
    byzshield migrate --btard NUM_WORKERS=16 NUM_BYZANTINES=7 BYZANTINE_PARTICIPANT=SignFlipper
    byzshield migrate --btard RunExperiments.ipynb GLOBAL_SEED=0 NUM_BYZANTINES=7 CCLIP_TAU=1.0
    byzshield migrate table=byzfl

Flags are those of ByzShield's ``distributed_nn.py``, with --detox as DETOX's code where the two
differ; a JSON file is ByzFL's benchmark configuration; the variables are those of BTARD and L46, or
a file with their class ``config``. First comes the command (one for each combination that no sweep
can express), then what each setting becomes, and what has no equivalent or differs. Defaults of
theirs that are not ours are written out. Overrides of ours (K=25 dataset.root=data) stand before
-- or beside a file, and replace what would stand there. ``table`` prints all settings that are
known, as Markdown.
"""

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from byzshield_exp.commands import choices
from byzshield_exp.commands.arguments import (
    asks_for_help,
    near,
    refuse_options,
    spelled,
    split_keys,
    take_flag,
)
from byzshield_exp.commands.exits import exit_codes
from byzshield_exp.commands.migrate.benchmark_json import translate_file
from byzshield_exp.commands.migrate.mapping import TABLES, markdown, table
from byzshield_exp.commands.migrate.peer_variables import translate_variables
from byzshield_exp.commands.migrate.server_flags import translate_flags
from byzshield_exp.commands.migrate.translating import Explanation
from byzshield_exp.errors import ConfigError
from byzshield_exp.notices import say

_OPTIONS = ("--btard", "--detox")
_WIDTH = 100


def words(before: Sequence[str]) -> list[str]:
    """List what may come next, for tab completion; the shell offers files."""
    return [] if before else ["--", *_OPTIONS, *spelled({"table": TABLES})]


@exit_codes()
def main(arguments: list[str]) -> None:
    """Print the command and what each setting becomes.

    Raises:
        ConfigError: for the first argument that is wrong or has no equivalent.
    """
    if not arguments or asks_for_help(arguments):
        say(__doc__ or "")
        return
    if arguments[0].startswith("table="):
        name = arguments[0].partition("=")[2]
        if name not in TABLES or arguments[1:]:
            raise ConfigError(f"{' '.join(arguments)}: table must be one of {', '.join(TABLES)}")
        say(markdown(table(name)))
        return
    commands, lines = translated(arguments)
    for command in commands:
        say(command)
    say("")
    for text in _laid_out(lines):
        say(text)


def translated(arguments: Sequence[str]) -> tuple[list[str], list[Explanation]]:
    """Return the commands and the lines that explain them.

    Raises:
        ConfigError: for the first argument that is wrong or has no equivalent.
    """
    if "--" in arguments:
        at = list(arguments).index("--")
        ours, theirs = list(arguments[:at]), arguments[at + 1 :]
        is_detox = take_flag(ours, "--detox")
        refuse_options(ours, *_OPTIONS)
        return translate_flags(theirs, _ours(ours), is_detox)
    rest = list(arguments)
    if take_flag(rest, "--btard"):
        refuse_options(rest, *_OPTIONS)
        is_ours = [_is_ours(one.partition("=")[0]) for one in rest]
        theirs = [one for one, ours in zip(rest, is_ours, strict=True) if not ours]
        return translate_variables(theirs, _ours(one for one in rest if one not in theirs))
    if any(one.startswith("-") for one in rest):
        raise ConfigError(f"{' '.join(rest)}: flags of ByzShield and DETOX stand after --")
    files = [one for one in rest if "=" not in one]
    if len(files) != 1:
        raise ConfigError(f"{' '.join(rest)}: give one configuration file, or flags after --")
    return translate_file(Path(files[0]), _ours(one for one in rest if one != files[0]))


def _is_ours(key: str) -> bool:
    return key.partition(".")[0] in {*choices.groups(), *(one.name for one in choices.values())}


def _ours(arguments: Iterable[str]) -> dict[str, str]:
    """Read overrides of ours.

    Raises:
        ConfigError: if one is no key=value, or its key is unknown.
    """
    given = split_keys(arguments)
    for key in given:
        if not _is_ours(key):
            known = [*choices.groups(), *(one.name for one in choices.values())]
            raise ConfigError(f"{key}={given[key]}: there is no such key here{near(key, known)}")
    return given


def _laid_out(lines: Sequence[Explanation]) -> list[str]:
    """Put ours beside theirs, with remarks below."""
    width = min(46, max(len(line.theirs) for line in lines))
    text = ["theirs (in brackets: their default)".ljust(width) + "  here"]
    for line in lines:
        text.append(f"{line.theirs.ljust(width)}  {line.ours}")
        text += textwrap.wrap(line.remark, _WIDTH, initial_indent="    ", subsequent_indent="    ")
    return text
