"""This machine as the hosts, to test and to try a plan without renting anything."""

import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from byzshield_exp.errors import RunError, first_line
from byzshield_exp.launch.ec2.archive import pack_command, unpack
from byzshield_exp.launch.ec2.hosts import Ended, Host, Unreachable, bounded

_MARGIN_S = 15.0  # for a script that is over its time to be ended


@dataclass(frozen=True)
class LocalTransport:
    """A transport to folders of this machine as hosts; they share absolute paths.

    Attributes:
        root: holds the hosts' home folders, named by ``reach``.
        commands: by ``reach``, a prefix to start a program there, such as ``ip netns exec one``.
    """

    root: Path
    commands: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def run(self, host: Host, script: str, timeout_s: float) -> Ended:
        """Run a bash script in the host's folder.

        Raises:
            Unreachable: if it cannot be started, or does not end in time.
        """
        command = [*self.commands.get(host.reach, ()), "sh", "-s"]
        try:
            ended = subprocess.run(
                command,
                input=bounded(script, timeout_s).encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=timeout_s + _MARGIN_S,
                cwd=self._home(host),
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unreachable(f"{host.name} does not answer: {first_line(error)}") from error
        return Ended(ended.returncode, ended.stdout.decode(errors="replace"))

    def send(self, host: Host, source: Path, target: str) -> None:
        """Copy a file to the host's folder.

        Raises:
            RunError: if it could not be written there.
        """
        place = self._home(host) / target
        partial = place.with_name(f".{place.name}.{secrets.token_hex(4)}.partial")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, partial)
            partial.replace(place)
        except OSError as error:
            raise RunError(f"{host.name}: {target} cannot be written: {error}") from error

    def fetch(self, host: Host, source: str, target: Path) -> None:
        """Copy a folder from the host's folder.

        Raises:
            RunError: if it could not be read.
        """
        with tempfile.TemporaryFile() as archive:
            command = [*self.commands.get(host.reach, ()), "sh", "-c", pack_command(source)]
            ended = subprocess.run(
                command, stdout=archive, stderr=subprocess.PIPE, cwd=self._home(host)
            )
            if ended.returncode:
                reason = first_line(RuntimeError(ended.stderr.decode(errors="replace")))
                raise RunError(f"{host.name}: {source} cannot be read: {reason}")
            archive.seek(0)
            unpack(archive, target)

    def close(self) -> None:
        """Do nothing: there are no connections."""

    def _home(self, host: Host) -> Path:
        home = self.root / host.reach
        home.mkdir(parents=True, exist_ok=True)
        return home
