"""``byzshield doctor``: whether this machine can do runs.

    byzshield doctor
    byzshield doctor output_dir=/shared/outputs dataset.root=/shared/data
    byzshield doctor --json

Versions, processor, GPUs, network, folders, limits, and Slurm and AWS where they are set up. It
prints one line per check; the exit code is 1 if there is a problem. It writes only temporary files,
into the folders that are given, and contacts only Slurm and AWS, if they are configured, and the
server that MASTER_ADDR names.

    output_dir    the folder of results that is tried (outputs)
    dataset.root  a folder of data that is tried, which is only read (none)
    --json        one object
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from byzshield_exp.commands.arguments import (
    asks_for_help,
    read_keys,
    refuse_options,
    spelled,
    take_flag,
)
from byzshield_exp.commands.doctor.finding import Check, Finding
from byzshield_exp.commands.exits import exit_codes
from byzshield_exp.errors import first_line
from byzshield_exp.files import expand_user
from byzshield_exp.notices import say

_KEYS = {"output_dir": (), "dataset.root": ()}


def words(before: Sequence[str]) -> list[str]:
    """List what may come next, for tab completion."""
    return [*spelled(_KEYS), "--json"]


@exit_codes()
def main(arguments: list[str]) -> int:
    """Make all checks; returns 1 where one finds a problem.

    Raises:
        ConfigError: for the first argument that is wrong.
    """
    if asks_for_help(arguments):
        say(__doc__ or "")
        return 0
    rest = list(arguments)
    as_json = take_flag(rest, "--json")
    refuse_options(rest, "--json")
    folders = {"output_dir": "outputs"} | read_keys(rest, _KEYS)
    found = []
    for name, check in checks({key: expand_user(path) for key, path in folders.items()}).items():
        found.append(_do(name, check))
        if not as_json:
            _tell(found[-1])
    is_well = all(finding.state != "problem" for finding in found)
    if as_json:
        say(json.dumps({"ok": is_well, "findings": [asdict(one) for one in found]}, indent=2))
    return 0 if is_well else 1


def checks(folders: Mapping[str, Path]) -> dict[str, Check]:
    """Return all checks by name, in the order in which they are printed."""
    from byzshield_exp.commands.doctor import computer, graphics, network, services, software

    return {
        "versions": software.versions,
        "requirements": software.requirements,
        "processor": computer.processor,
        "threads": computer.threads,
        "gradient": computer.gradient,
        "gpus": graphics.gpus,
        "gpu_run": graphics.gpu_run,
        "name": network.own_name,
        "address": network.address,
        "master": network.master,
        **{key: _of_folder(key, path) for key, path in folders.items()},
        "files": computer.open_files,
        "shm": computer.shared_memory,
        "slurm": services.slurm,
        "aws": services.aws,
        "quotas": services.quotas,
    }


def _of_folder(key: str, path: Path) -> Check:
    from byzshield_exp.commands.doctor import storage

    return lambda: storage.folder(key, path, is_read_only=key == "dataset.root")


def _do(name: str, check: Check) -> Finding:
    """Do a check; an exception is a problem too, and the other checks go on."""
    try:
        return check()
    except Exception as error:
        said = f"could not be checked: {type(error).__name__}: {first_line(error)}"
        return Finding(name, "problem", said, "see the error")


def _tell(finding: Finding) -> None:
    more = f" -> {finding.advice}" if finding.advice else ""
    say(f"{finding.state:<8} {finding.check:<13} {finding.said}{more}")
