"""``byzshield ec2 COMMAND``: machines rented from Amazon EC2, and given back.

    plan       what would be rented, at which price; creates nothing
    up         rent it, wait until all hosts are ready (dry_run=false)
    hosts      the instances of a fleet, the server first
    run        a shell command on all of them:  run name=byzshield -- nproc
    tunnel     how to look at TensorBoard there
    status     how far a sweep is and what it has cost, from the state on disk
    resume     go on where a driver died
    down       end everything of a fleet; efs=true: its shared folder too, with all in it
    list       your instances in the region, by their tags; owner=NAME: theirs; everybody=true
    gc         end your fleets whose time is over (dry_run=false); owner=NAME or everybody=true:
               theirs; fleet=NAME-DIGITS: that one, whosever it is and whatever its time

A sweep runs on a fleet with ``hydra/launcher=byzshield_ec2``. Options are ``key=value``, those of
``hydra.launcher``; the commands after ``up`` find the fleet with ``name=`` and ``output_dir=``.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import yaml

from byzshield_exp.commands.arguments import asks_for_help, check_key, near, spelled, split_keys
from byzshield_exp.commands.exits import exit_codes
from byzshield_exp.errors import ConfigError
from byzshield_exp.launch.ec2.options import Options, options_of
from byzshield_exp.notices import say

_OF_A_FLEET: dict[str, dict[str, Any]] = {
    "hosts": {},
    "run": {},
    "tunnel": {},
    "status": {},
    "resume": {},
    "down": {"efs": False},
}
_OF_A_REGION: dict[str, dict[str, Any]] = {
    "list": {"region": None, "owner": None, "everybody": False},
    "gc": {"region": None, "fleet": None, "owner": None, "everybody": False, "dry_run": True},
}
_COMMANDS = ("plan", "up", *_OF_A_FLEET, *_OF_A_REGION)


def words(before: Sequence[str]) -> list[str]:
    """List what may come next, for tab completion."""
    if not before:
        return list(_COMMANDS)
    known: dict[str, Any] = {"name": Options.name, "output_dir": Options.output_dir}
    known |= _OF_A_FLEET.get(before[0], {})
    if before[0] in ("plan", "up"):
        known = {entry.name: entry.default for entry in dataclasses.fields(Options)}
    if before[0] in _OF_A_REGION:
        known = _OF_A_REGION[before[0]]
    yes_no = ("true", "false")
    return spelled({key: yes_no if isinstance(value, bool) else () for key, value in known.items()})


@exit_codes()
def main(arguments: list[str]) -> int:
    """Do a command; return the exit code of ``run``, or 1 if a resumed run has failed."""
    if not arguments or asks_for_help(arguments) or arguments[0] == "help":
        say(__doc__ or "")
        say("Options:\n" + _options_help())
        return 0
    return _do(arguments[0], arguments[1:])


def _do(command: str, arguments: list[str]) -> int:
    if command not in _COMMANDS:
        known = f"there are {', '.join(_COMMANDS)}"
        raise ConfigError(f"unknown command {command}, {known}{near(command, _COMMANDS)}")
    from byzshield_exp.launch.ec2 import commands

    if command in ("plan", "up"):
        options = options_of(_values(arguments))
        (commands.show_plan if command == "plan" else commands.up)(options)
        return 0
    if command in _OF_A_REGION:
        given = _chosen(command, _values(arguments), _OF_A_REGION[command])
        (commands.list_instances if command == "list" else commands.collect_garbage)(**given)
        return 0
    return _with_fleet(command, arguments)


def _with_fleet(command: str, arguments: list[str]) -> int:
    from byzshield_exp.launch.ec2 import commands
    from byzshield_exp.launch.ec2.state import store_of

    shell: list[str] = []
    if command == "run":
        if "--" not in arguments or arguments[-1] == "--":
            raise ConfigError("run: the command comes after --")
        at = arguments.index("--")
        arguments, shell = arguments[:at], arguments[at + 1 :]
    known: dict[str, Any] = {
        "name": Options.name,
        "output_dir": Options.output_dir,
        **_OF_A_FLEET[command],
    }
    given = _chosen(command, _values(arguments), known)
    store = store_of(given["output_dir"], given["name"])
    if command == "run":
        return commands.run(store, " ".join(shell))
    if command == "resume":
        return 1 if any(job.phase == "failed" for job in commands.resume(store)) else 0
    if command == "down":
        commands.take_down(store, given["efs"])
        return 0
    {"hosts": commands.hosts, "tunnel": commands.tunnel, "status": commands.status}[command](store)
    return 0


def _values(arguments: list[str]) -> dict[str, Any]:
    """Read ``key=value`` arguments, the values as YAML."""
    values: dict[str, Any] = {}
    for key, text in split_keys(arguments).items():
        try:
            values[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"{key}={text}: the value cannot be read") from error
    return values


def _chosen(command: str, values: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    for key, value in values.items():
        check_key(key, known, f"{command}: ")
        if isinstance(known[key], bool) and not isinstance(value, bool):
            raise ConfigError(f"{key}={value} must be true or false")
    return known | values


def _options_help() -> str:
    """Return the description of the options from their class."""
    _, _, text = (Options.__doc__ or "").partition("Attributes:\n")
    return text.rstrip()
