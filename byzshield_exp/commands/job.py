"""``byzshield job JOB.json``: do one run that a sweep has described, alone or under torchrun.

The configuration is in the file; conf/ is not read. Exit code: 0 done, 75 stopped, 1 failed, 2 bad
input.
"""

import signal
import sys
from pathlib import Path

from byzshield_exp.errors import ConfigError, RunError, Stopped
from byzshield_exp.launch.job import EXIT_STOPPED, load, perform
from byzshield_exp.launch.ranks import end_torchrun, runner_for


def main(arguments: list[str]) -> int:
    """The command; returns the exit code: 0 done, 75 stopped, 1 failed, 2 bad input."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print(__doc__)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        job = load(Path(arguments[0]))
        perform(job, runner_for(job))
        end_torchrun()
    except KeyboardInterrupt:
        _complain("interrupted; the same command resumes")
        return 130
    except Stopped as error:
        _complain(str(error))
        return EXIT_STOPPED
    except (ConfigError, OSError) as error:
        _complain(str(error))
        return 2
    except RunError as error:
        _complain(str(error))
        return 1
    return 0


def _complain(line: str) -> None:
    print(f"byzshield_exp: {line}", file=sys.stderr, flush=True)
