"""``byzshield run``: train a neural network with K workers of which q lie.

    byzshield run                                       K=15 workers, q=3 of them lie
    byzshield run approach=baseline aggregator=krum     other choices
    byzshield run -m approach=mols,detox q=0,2,4        a sweep
    byzshield run cluster=processes cluster.num_processes=4
    torchrun --standalone --nproc-per-node 16 -m byzshield_exp
                                                        one process per worker
    tensorboard --logdir outputs
    byzshield list aggregators                          what each choice is, needs and takes

Results lie in output_dir, in a folder named by every choice that is not a default. --cfg job shows
a configuration without running it, attack=gaussian --help the keys of that choice, --hydra-help the
other options of Hydra, which reads all this.
"""

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from textwrap import wrap
from typing import Any

from byzshield_exp.commands.choices import VALUES, Key, groups, paths, refuse_shadowing
from byzshield_exp.commands.exits import exit_codes
from byzshield_exp.commands.keys import config_dir, keys_of
from byzshield_exp.errors import ConfigError
from byzshield_exp.notices import say

_LAUNCHERS = ("local", "byzshield_slurm", "byzshield_ec2", "basic")
_OPTIONS = ("-m", "--cfg", "--config-dir", "--info", "--hydra-help")  # Hydra's best known ones


def words(before: Sequence[str]) -> Iterator[str]:
    """List what may come next, for tab completion."""
    more = config_dir(before)
    yield from _OPTIONS
    yield from (f"hydra/launcher={launcher}" for launcher in _LAUNCHERS)
    yield from (f"{group}={name}" for group in groups() for name in paths(group, more))
    for key in keys_of(before):
        yield from _spelled(key)


def _spelled(key: Key) -> list[str]:
    group, at, _ = key.name.partition("@")
    known: Sequence[str | bool] = list(paths(group)) if at else VALUES.get(key.name, ("",))
    if key.value in ("true", "false"):
        known = VALUES.get(key.name, (False, True))
    return [f"{key.name}={one if isinstance(one, str) else str(one).lower()}" for one in known]


def _help(arguments: Sequence[str]) -> str:
    """Return the help: all choices, and the keys of the typed and the default ones.

    Hydra's own help takes 2 s more: it copies all that it has read for every group.
    """
    more = config_dir(arguments)
    lines = [(__doc__ or "").rstrip(), "", "Choices (group=choice):", ""]
    for group, default in groups().items():
        lines.append(f"  {group} ({default.comment}): {', '.join(sorted(paths(group, more)))}")
    lines += ["", "Values (key=value), as they are by default:", ""]
    for key in keys_of(arguments):
        first, *rest = wrap(key.comment, 66) or [""]
        lines += [
            f"  {key.name}={key.value}".ljust(34) + first,
            *(" " * 34 + line for line in rest),
        ]
    return "\n".join(line.rstrip() for line in lines)


@exit_codes("the same command resumes")
def main(arguments: list[str]) -> None:
    """Compose the configuration with Hydra, and do the run or the sweep."""
    if {"-h", "--help"} & set(arguments):
        say(_help(arguments))
        return
    from byzshield_exp.commands import application
    from byzshield_exp.commands.config import torchrun_size
    from byzshield_exp.commands.hydra_errors import as_config_errors

    if folder := config_dir(arguments):
        refuse_shadowing(folder)
    sys.argv[1:] = _with_torchrun(arguments, torchrun_size())
    is_sweep = bool({"-m", "--multirun"} & set(arguments))  # Hydra's line then says which point
    own_line = nullcontext() if is_sweep else redirect_stderr(_WithoutHydrasLine(sys.stderr))
    with _hydra_raises(), _os_errors_named(), as_config_errors(arguments), own_line:
        try:
            application.compose_and_run()
        except SystemExit as end:
            if end.code:
                raise
            # exit code 0: --hydra-help; torchrun's other ranks still have to end
    if torchrun_size():
        from byzshield_exp.launch.ranks import end_torchrun

        end_torchrun()


class _WithoutHydrasLine:
    """Standard error without the line that Hydra adds to ours, with the overrides, at a failure."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        is_hydras = text.startswith("Error executing job with overrides: ")
        return len(text) if is_hydras else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _os_errors_named() -> Iterator[None]:
    """Blame an OSError on output_dir, which Hydra makes; our own are ConfigErrors."""
    try:
        yield
    except BrokenPipeError:  # stdout has no reader any more, as after head
        raise
    except OSError as error:
        raise ConfigError(f"output_dir cannot be written: {error}") from error


@contextmanager
def _hydra_raises() -> Iterator[None]:
    """Make Hydra raise errors instead of printing them; a reader of --info may stop early."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    logging.raiseExceptions = False
    try:
        yield
    finally:
        logging.raiseExceptions = True
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


def _with_torchrun(arguments: list[str], world_size: int | None) -> list[str]:
    """Add torchrun's processes as the cluster, unless the arguments choose another one."""
    if world_size is None:
        return arguments
    if any(given.startswith("cluster=") for given in arguments):
        return arguments
    overrides = [at for at, given in enumerate(arguments) if "=" in given and given[0] != "-"]
    at = overrides[0] if overrides else len(arguments)  # Hydra takes them side by side only
    return [*arguments[:at], "cluster=processes", *arguments[at:]]
