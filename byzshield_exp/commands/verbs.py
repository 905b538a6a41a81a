"""List the verbs, and do the one that a command line names."""

import os
from importlib import import_module, metadata

from byzshield_exp.commands.arguments import asks_for_help, near
from byzshield_exp.commands.exits import exit_codes
from byzshield_exp.errors import ConfigError
from byzshield_exp.notices import say

# Each is a module or package of that name in this folder. `main(arguments)` returns the exit code,
# `words(before)` what tab completion offers after the arguments `before`. Importing them needs no
# torch.
VERBS = {
    "run": "a run, or with -m a sweep; run --help has all choices and keys",
    "list": "the choices there are: what each is, needs and takes",
    "doctor": "whether this machine can do runs",
    "distortion": "how many files q liars win, and which placement to use",
    "evaluate": "test accuracy of a run's checkpoints, beside it or later",
    "report": "figures and tables of runs, and a page of them",
    "reproduce": "the papers' figures and tables, ours beside theirs",
    "prepare": "fetch a data set",
    "migrate": "command lines and configurations of ByzShield, DETOX, ByzFL and BTARD, as ours",
    "best": "the best settings of a sweep, under the attack that is worst for each",
    "ec2": "machines rented from Amazon EC2, and given back",
    "job": "one run of a sweep, from its job.json",
    "completion": "make a shell complete all this at Tab",
}


def dispatch(arguments: list[str], default: str | None = None) -> int:
    """Do the verb that the first argument names; return the exit code.

    Under torchrun the ranks above 0 follow rank 0; only rank 0 prints.

    Args:
        arguments: the program's arguments.
        default: the verb if the first argument is not a word; None: a verb must be given.
    """
    first = arguments[0] if arguments else ""
    is_follower = int(os.environ.get("RANK", "0")) > 0
    if "--version" not in arguments[:2]:
        if first in VERBS:
            return _do(first, arguments[1:], is_follower)
        if default is not None and not _is_word(first):
            return _do(default, arguments, is_follower)
    if is_follower:
        return 0  # rank 0's exit code counts
    return _answer(arguments)


def _do(verb: str, arguments: list[str], is_follower: bool) -> int:
    if is_follower and verb in ("run", "job"):
        if not {"-h", "--help"} & set(arguments):
            from byzshield_exp.launch.ranks import follow_torchrun

            return follow_torchrun()
        return 0
    code: int = import_module(f"byzshield_exp.commands.{verb}").main(arguments)
    return code


@exit_codes()
def _answer(arguments: list[str]) -> None:
    """Print the version or the list of verbs, for a command line without a verb.

    Raises:
        ConfigError: if it asks for something else.
    """
    if "--version" in arguments[:2]:
        say(f"byzshield_exp {metadata.version('byzshield_exp')}")
    elif not arguments or asks_for_help(arguments):
        say(_overview())
    elif _is_word(arguments[0]):
        from byzshield_exp.commands.keys import explained  # reads YAML

        known, word = ", ".join(VERBS), arguments[0]
        said = explained(word)
        more = f"; {said}" if said else near(word, VERBS)
        raise ConfigError(f"{word}: no such verb, there are {known}{more}")
    else:
        raise ConfigError(f"no verb is given: byzshield run {' '.join(arguments)} is a run")


def _is_word(argument: str) -> bool:
    """Whether an argument is neither key=value nor an override or option of Hydra's."""
    return bool(argument) and "=" not in argument and argument[0] not in "-+~"


def _overview() -> str:
    lines = [f"  {verb:<11} {line}" for verb, line in VERBS.items()]
    return "\n".join(
        [
            "byzshield VERB: train neural networks when some workers lie.",
            "",
            *lines,
            "",
            "byzshield VERB --help says how. python -m byzshield_exp does the same, and without a",
            "verb it runs: the form for torchrun.",
        ]
    )
