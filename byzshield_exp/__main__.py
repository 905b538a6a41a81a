"""``byzshield VERB`` and ``python -m byzshield_exp``, on every rank."""

import os
import sys
from importlib import import_module

VERBS = ("run", "list", "doctor", "distortion", "evaluate", "prepare", "ec2", "job")


def main() -> None:
    """Do what the first word says; without a verb it is a run."""
    if not sys.flags.safe_path:
        sys.path.append("")  # modules of the user's, for the console script as for python -m
    arguments = sys.argv[1:]
    verb = arguments.pop(0) if arguments[:1] and arguments[0] in VERBS else "run"
    if verb in ("run", "job") and int(os.environ.get("RANK", "0")) > 0:
        from byzshield_exp.launch.ranks import follow_torchrun

        follow_torchrun()
    else:
        sys.exit(import_module(f"byzshield_exp.commands.{verb}").main(arguments))


if __name__ == "__main__":
    main()
