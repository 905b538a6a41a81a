"""``byzshield evaluate``: evaluates the checkpoints of a run, beside it or later.

    byzshield evaluate run=outputs/default
    byzshield evaluate run=outputs/default follow=true timeout=600

It reads the run's folder, which may be shared by machines and closed to writing, and appends a
line a checkpoint to evaluations.jsonl: test loss, top-1 and top-5 accuracy. What is there already
is not done again.

    run           the folder of a run, the one with config.yaml
    follow        true: wait for the run and its checkpoints until it is finished (false)
    every         seconds between two looks at the folder (2.0)
    timeout       seconds without anything new after which it ends with exit code 1 (none)
    output        the folder of the results (the run's)
    device        cpu or cuda (the run's)
    dataset.root  the folder of the data on this machine (the run's)
"""

import math
import signal
import sys
from pathlib import Path
from types import FrameType

from byzshield_exp.binding import did_you_mean
from byzshield_exp.commands.evaluate.follow import Settings, evaluate_run
from byzshield_exp.errors import ConfigError, RunError
from byzshield_exp.notices import say

_KEYS = ("run", "follow", "every", "timeout", "output", "device", "dataset.root")
_CHOICES = {"follow": ("true", "false"), "device": ("cpu", "cuda")}


def main(arguments: list[str]) -> int:
    """Evaluate; returns the exit code, 2 for bad settings, 1 where it could not be done."""
    if not arguments or arguments[0] in ("-h", "--help"):
        say(__doc__ or "")
        return 0
    signal.signal(signal.SIGTERM, _terminate)
    try:
        evaluate_run(settings(arguments))
    except KeyboardInterrupt:
        return _complain("interrupted; the same command goes on", 130)
    except ConfigError as error:
        return _complain(str(error), 2)
    except Exception as error:
        kind = "" if isinstance(error, RunError) else f"{type(error).__name__}: "
        return _complain(f"{kind}{error}", 1)
    return 0


def settings(arguments: list[str]) -> Settings:
    """The settings of a command line.

    Raises:
        ConfigError: for the first argument that is wrong.
    """
    given: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or not value:
            raise ConfigError(f"{argument}: arguments are key=value")
        if key not in _KEYS:
            near = did_you_mean(key, list(_KEYS))
            raise ConfigError(f"unknown key {key}, there are {', '.join(_KEYS)}{near}")
        if key in given:
            raise ConfigError(f"{argument}: {key} is given twice")
        if value not in _CHOICES.get(key, (value,)):
            raise ConfigError(f"{argument} must be one of {', '.join(_CHOICES[key])}")
        given[key] = value
    if "run" not in given:
        raise ConfigError("run is not given: the folder of a run")
    return Settings(
        run=Path(given["run"]),
        output=Path(given.get("output", given["run"])),
        follow=given.get("follow") == "true",
        every=_seconds("every", given.get("every", "2")),
        timeout=_seconds("timeout", given["timeout"]) if "timeout" in given else None,
        device=given.get("device"),
        root=given.get("dataset.root"),
    )


def _seconds(key: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ConfigError(f"{key}={text} must be a finite number of seconds above 0")
    return seconds


def _complain(line: str, code: int) -> int:
    print(f"byzshield_exp: {line}", file=sys.stderr, flush=True)
    return code


def _terminate(signal_number: int, frame: FrameType | None) -> None:
    sys.exit(128 + signal_number)
