"""``python -m byzshield_exp``, the console script, and every rank under torchrun."""

import os
import sys


def main() -> None:
    """Rank 0, or the only process, reads the configuration; ranks above 0 follow it."""
    if not sys.flags.safe_path:
        sys.path.append("")  # modules of the user's, for the console script as for python -m
    if sys.argv[1:2] == ["list"]:
        from byzshield_exp.listing import main as list_choices

        sys.exit(list_choices(sys.argv[2:]))
    if sys.argv[1:2] == ["doctor"]:
        from byzshield_exp.doctor import main as examine

        sys.exit(examine(sys.argv[2:]))
    if "WORLD_SIZE" in os.environ and int(os.environ.get("RANK", "0")) > 0:
        from byzshield_exp.train import follow_torchrun

        follow_torchrun()
    else:
        from byzshield_exp.app import cli

        cli()


if __name__ == "__main__":
    main()
