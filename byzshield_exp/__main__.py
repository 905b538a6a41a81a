"""``byzshield VERB`` and ``python -m byzshield_exp [VERB]``, on every rank."""

import os
import signal
import sys
from contextlib import suppress
from types import FrameType

from byzshield_exp.commands.verbs import dispatch


def main(default: str | None = None) -> None:
    """Do what the command line says.

    Args:
        default: the verb of a command line without one; None: it has to be given.
    """
    if not sys.flags.safe_path:
        sys.path.append("")  # modules of the user's, for the console script as for python -m
    signal.signal(signal.SIGTERM, _terminate)
    if "RANK" not in os.environ:
        sys.exit(dispatch(sys.argv[1:], default))
    code = 1
    try:
        code = dispatch(sys.argv[1:], default)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:  # gloo's threads abort a process that ends in the usual way with operations pending
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(code)


def _terminate(signal_number: int, frame: FrameType | None) -> None:
    sys.exit(128 + signal_number)


if __name__ == "__main__":
    main("run")
