"""The command line of the doctor."""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from byzshield_exp.binding import did_you_mean
from byzshield_exp.commands.doctor import computer, graphics, network, services, software, storage
from byzshield_exp.commands.doctor.finding import Check, Finding
from byzshield_exp.errors import ConfigError, first_line
from byzshield_exp.files import expand_user
from byzshield_exp.notices import say

_KEYS = ("output_dir", "dataset.root")
_DESCRIPTION = """Check whether this machine can do runs: versions, processor, GPUs, network,
folders, limits, and Slurm and AWS where they are set up. It prints one line per check; the exit
code is 1 if there is a problem. It writes only temporary files, into the folders that are given,
and contacts only Slurm and AWS, if they are configured, and the server that MASTER_ADDR names."""


def main(arguments: list[str]) -> int:
    """Run ``doctor [output_dir=...] [dataset.root=...] [--json]``; return the exit code."""
    parser = argparse.ArgumentParser("byzshield doctor", description=_DESCRIPTION)
    parser.add_argument("folders", nargs="*", metavar="key=value", help="output_dir, dataset.root")
    parser.add_argument("--json", action="store_true", help="one object")
    given = parser.parse_args(arguments)
    try:
        folders = _folders(given.folders)
    except ConfigError as error:
        print(f"byzshield_exp: {error}", file=sys.stderr)
        return 2
    found = []
    for name, check in checks(folders).items():
        found.append(_do(name, check))
        if not given.json:
            _tell(found[-1])
    is_well = all(finding.state != "problem" for finding in found)
    if given.json:
        say(json.dumps({"ok": is_well, "findings": [asdict(one) for one in found]}, indent=2))
    return 0 if is_well else 1


def checks(folders: Mapping[str, Path]) -> dict[str, Check]:
    """Return all checks by name, in the order in which they are printed."""
    return {
        "versions": software.versions,
        "requirements": software.requirements,
        "processor": computer.processor,
        "threads": computer.threads,
        "gradient": computer.gradient,
        "gpus": graphics.gpus,
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
    return lambda: storage.folder(key, path, is_read_only=key == "dataset.root")


def _folders(given: list[str]) -> dict[str, Path]:
    folders = {"output_dir": "outputs"}
    for argument in given:
        key, equals, value = argument.partition("=")
        if key not in _KEYS or not equals or not value:
            near = did_you_mean(key, list(_KEYS))
            raise ConfigError(f"{argument}: the doctor takes {', '.join(_KEYS)}{near}")
        folders[key] = value
    return {key: expand_user(value) for key, value in folders.items()}


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
