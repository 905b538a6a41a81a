"""SSH: one connection per host, to machines whose host keys are known beforehand.

The host keys are given, for example from the console output of the instances; a host with another
key, or with none given, is refused. The user's key never leaves this process or the user's agent:
nothing is forwarded, and no password is tried.
"""

import asyncio
import re
import secrets
import shlex
import tempfile
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from byzshield_exp.errors import ConfigError, RunError, first_line
from byzshield_exp.launch.ec2.archive import MAX_BYTES, pack_command, unpack
from byzshield_exp.launch.ec2.hosts import Ended, Host, Unreachable, bounded

if TYPE_CHECKING:
    import asyncssh

_CONNECT_S = 15.0
_CLOSE_S = 2.0
_KEEPALIVE_S = 5.0  # a host that is silent for three of these is gone
_MARGIN_S = 20.0  # for a script that is over its time to be ended and to report
_COPY_S = 3600.0  # to copy a file or a folder
_REASON_BYTES = 1_000_000  # kept of the errors of a host that packs a folder
_CONSOLE = re.compile(
    r"-----BEGIN SSH HOST KEY KEYS-----(.*?)-----END SSH HOST KEY KEYS-----", re.DOTALL
)
_PUBLIC_KEY = re.compile(r"(?:ssh|ecdsa)-[a-z0-9@.-]+ [A-Za-z0-9+/=]+")

Answer = TypeVar("Answer")


class WrongHostKey(RunError):
    """A host answers with an unknown key, or none of its keys is known."""


def host_keys(console: str) -> list[str]:
    """Return the public host keys in an instance's console output; none before they are printed.

    cloud-init creates them and prints them between two marks.
    """
    blocks = _CONSOLE.findall(console)
    return _PUBLIC_KEY.findall(blocks[-1]) if blocks else []


class SshTransport:
    """A transport by SSH to hosts with known keys.

    Args of the constructor:
        known_hosts: the hosts' public keys by ``reach``, each as ``ssh-ed25519 AAAA...``.
        user: the login name on the hosts.
        key: the file of the user's private key; None for the agent and the default files.
        port: of all hosts.

    Raises:
        ConfigError: if asyncssh is not installed, or the key cannot be used.
    """

    def __init__(
        self,
        known_hosts: Mapping[str, Sequence[str]],
        user: str = "ec2-user",
        key: Path | None = None,
        port: int = 22,
    ) -> None:
        try:
            import asyncssh
        except ImportError as error:
            raise ConfigError(
                "transport=ssh needs asyncssh: pip install 'byzshield_exp[ssh]'"
            ) from error
        self._ssh = asyncssh
        self._known_hosts = known_hosts
        self._login: dict[str, Any] = {"username": user, "port": port}
        if key is not None:
            self._login |= {"client_keys": [_private_key(key)], "agent_path": None}
        self._connections: dict[str, asyncio.Task[asyncssh.SSHClientConnection]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, host: Host, script: str, timeout_s: float) -> Ended:
        """Run a bash script in the user's home folder."""
        text = bounded(script, timeout_s)
        code, output = self._do(host, self._run(host, text), timeout_s + _MARGIN_S)
        return Ended(code, output)

    def send(self, host: Host, source: Path, target: str) -> None:
        """Copy a file to a host by SFTP."""
        self._do(host, self._send(host, source, target), _COPY_S)

    def fetch(self, host: Host, source: str, target: Path) -> None:
        """Copy a folder from a host as one stream.

        Raises:
            Unreachable: if the host does not answer.
            RunError: if it could not be read.
        """
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder) / "folder.tar"
            code, reason = self._do(host, self._pack(host, source, archive), _COPY_S)
            if code:
                reason = first_line(RuntimeError(reason))
                raise RunError(f"{host.name}: {source} cannot be read: {reason}")
            with archive.open("rb") as content:
                unpack(content, target)

    def close(self) -> None:
        """Close all connections."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, host: Host, work: Coroutine[Any, Any, Answer], timeout_s: float) -> Answer:
        """Run work on the loop's thread; raise ``Unreachable`` if the connection fails."""

        async def bounded_work() -> Answer:
            async with asyncio.timeout(timeout_s):
                return await work

        ssh = self._ssh
        try:
            return asyncio.run_coroutine_threadsafe(bounded_work(), self._loop).result()
        except ssh.HostKeyNotVerifiable as error:
            raise WrongHostKey(
                f"{host.name} ({host.reach}) is refused: its host key is none of the"
                f" {len(self._known_hosts.get(host.reach, ()))} that are known"
            ) from error
        except (ssh.SFTPNoConnection, ssh.SFTPConnectionLost) as error:
            raise Unreachable(
                f"{host.name} ({host.reach}) was lost: {first_line(error)}"
            ) from error
        except ssh.SFTPError as error:
            raise RunError(f"{host.name}: {first_line(error)}") from error
        except (ssh.Error, OSError, TimeoutError) as error:
            self._loop.call_soon_threadsafe(self._forget, host.reach)
            raise Unreachable(
                f"{host.name} ({host.reach}) does not answer by ssh: {first_line(error)}"
            ) from error

    async def _run(self, host: Host, text: str) -> tuple[int, str]:
        connection = await self._connection(host)
        ended = await connection.run("sh -s", input=text, encoding="utf-8", errors="replace")
        if ended.exit_status is None or ended.exit_status < 0:
            raise ConnectionError("the connection was lost")
        # The script's errors are in its output; stderr holds those of the login shell.
        trouble = str(ended.stderr) if ended.exit_status and not ended.stdout else ""
        return ended.exit_status, str(ended.stdout) or trouble

    async def _send(self, host: Host, source: Path, target: str) -> None:
        connection = await self._connection(host)
        place = PurePosixPath(target)
        partial = place.with_name(f".{place.name}.{secrets.token_hex(4)}.partial")
        async with connection.start_sftp_client() as files:
            await files.makedirs(str(place.parent), exist_ok=True)
            await files.put(str(source), str(partial))
            await files.posix_rename(str(partial), str(place))

    async def _pack(self, host: Host, source: str, archive: Path) -> tuple[int, str]:
        connection = await self._connection(host)
        reason = bytearray()
        with archive.open("wb") as content:
            async with connection.create_process(
                f"sh -c {shlex.quote(pack_command(source))}", encoding=None
            ) as packer:
                await asyncio.gather(
                    _read_stream(packer.stdout, content.write, MAX_BYTES),
                    _read_stream(packer.stderr, reason.extend, _REASON_BYTES),
                )
                await packer.wait()
        if packer.exit_status is None or packer.exit_status < 0:
            raise ConnectionError("the connection was lost")
        return packer.exit_status, reason.decode(errors="replace")

    async def _connection(self, host: Host) -> "asyncssh.SSHClientConnection":
        """Return the connection to a host; threads that ask at the same time share one."""
        opening = self._connections.get(host.reach)
        if opening is None or (opening.done() and not _is_open(opening)):
            opening = asyncio.ensure_future(self._connect(host))
            self._connections[host.reach] = opening
        return await asyncio.shield(opening)

    async def _connect(self, host: Host) -> "asyncssh.SSHClientConnection":
        keys = [self._ssh.import_public_key(key) for key in self._known_hosts.get(host.reach, ())]
        return await self._ssh.connect(
            host.reach,
            known_hosts=(keys, [], []),  # without keys, no host is trusted
            config=None,
            x509_trusted_certs=None,
            preferred_auth="publickey",
            agent_forwarding=False,
            connect_timeout=_CONNECT_S,
            login_timeout=_CONNECT_S,
            keepalive_interval=_KEEPALIVE_S,
            keepalive_count_max=3,
            **self._login,
        )

    def _forget(self, reach: str) -> None:
        opening = self._connections.pop(reach, None)
        if opening is not None and _is_open(opening):
            opening.result().abort()

    async def _close(self) -> None:
        for opening in list(self._connections.values()):
            opening.cancel()
            if _is_open(opening):
                opening.result().close()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_CLOSE_S):
                        await opening.result().wait_closed()
                opening.result().abort()


async def _read_stream(
    source: "asyncssh.SSHReader[bytes]", keep: Callable[[bytes], object], most: int
) -> None:
    """Read a host's stream to its end.

    Raises:
        RunError: if it has more than ``most`` bytes.
    """
    while chunk := await source.read(1 << 20):
        most -= len(chunk)
        if most < 0:
            raise RunError("a host sends more than it may")
        keep(chunk)


def _is_open(opening: "asyncio.Task[asyncssh.SSHClientConnection]") -> bool:
    done = opening.done() and not opening.cancelled() and opening.exception() is None
    return done and not opening.result().is_closed()


def _private_key(path: Path) -> "asyncssh.SSHKey":
    """Read the user's private key.

    Raises:
        ConfigError: if it cannot be read, or needs a passphrase.
    """
    import asyncssh

    try:
        return asyncssh.read_private_key(path)
    except (OSError, asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise ConfigError(
            f"key={path} cannot be used: {first_line(error)} (a key with a passphrase: ssh-add it)"
        ) from error
