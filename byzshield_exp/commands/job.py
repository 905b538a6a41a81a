"""``byzshield job JOB.json``: do one run that a sweep has described, alone or under torchrun.

The configuration is in the file; conf/ is not read. Exit code: 0 done, 75 stopped, 1 failed, 2 bad
input.
"""

from collections.abc import Sequence
from pathlib import Path

from byzshield_exp.commands.arguments import asks_for_help, refuse_options
from byzshield_exp.commands.exits import exit_codes
from byzshield_exp.errors import ConfigError
from byzshield_exp.notices import say


def words(before: Sequence[str]) -> list[str]:
    """Offer nothing for tab completion: the shell offers files."""
    return []


@exit_codes("the same command resumes")
def main(arguments: list[str]) -> None:
    """Do the run that a job file describes.

    Raises:
        ConfigError: if the file cannot be read, or the run cannot be started.
    """
    if asks_for_help(arguments):
        say(__doc__ or "")
        return
    refuse_options(arguments)
    if len(arguments) != 1:
        raise ConfigError(f"job takes one file, the job.json of a run, got {len(arguments)}")
    from byzshield_exp.launch.job import load, perform
    from byzshield_exp.launch.ranks import end_torchrun, runner_for

    try:
        job = load(Path(arguments[0]))
        perform(job, runner_for(job))
        end_torchrun()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ConfigError(str(error)) from error
