"""``byzshield completion SHELL``: what makes bash or zsh complete verbs, groups, choices and keys.

    source <(byzshield completion bash)        in ~/.bashrc
    source <(byzshield completion zsh)         in ~/.zshrc, after compinit

Only ``byzshield`` is completed: of ``python -m byzshield_exp`` a shell sees python.
"""

from collections.abc import Sequence
from pathlib import Path

from byzshield_exp.commands.arguments import asks_for_help, near
from byzshield_exp.commands.completion.answers import answers
from byzshield_exp.commands.exits import exit_codes
from byzshield_exp.errors import ConfigError
from byzshield_exp.notices import say

_SHELLS = ("bash", "zsh")


def words(before: Sequence[str]) -> list[str]:
    """List what may come next, for tab completion."""
    return [] if before else list(_SHELLS)


@exit_codes()
def main(arguments: list[str]) -> None:
    """Print the script for a shell, or the answers to its ``answer LINE``.

    Raises:
        ConfigError: for a shell that there is not.
    """
    if not arguments or asks_for_help(arguments):
        say(__doc__ or "")
    elif arguments[0] == "answer" and len(arguments) == 2:
        for one in answers(arguments[1]):
            print(one)
    elif arguments[0] in _SHELLS and len(arguments) == 1:
        print(Path(__file__).with_name(f"byzshield.{arguments[0]}").read_text(), end="")
    else:
        there = f"there are {', '.join(_SHELLS)}{near(arguments[0], _SHELLS)}"
        raise ConfigError(f"{' '.join(arguments)}: no such shell, {there}")
