"""A gang: one job on several hosts at once, by torchrun, which goes on when the driver is gone.

On every host a small script, in a session of its own, starts torchrun, touches a heartbeat while it
runs, and writes its exit code when it ends. The driver only looks: each look is a short script of
its own. Starting is idempotent, so a driver that died and comes back calls :func:`run_gang` again.

All processes of a gang on a host carry a mark in their environment, by which they are found again:
torchrun gives its ranks sessions of their own, so there is no process group to end.
"""

import re
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from byzshield_exp.errors import RunError
from byzshield_exp.launch.ec2.hosts import OUTPUT_BYTES, Ended, Host, Transport, Unreachable, on_all

_POLL_TIMEOUT_S = 30.0  # for one look
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_FIND_MARKED = """\
# shellcheck disable=SC2329
marked() {
    { grep -lszxF "BYZSHIELD_GANG=$mark" /proc/[0-9]*/environ || true; } | cut -d / -f 3
}
"""


@dataclass(frozen=True)
class Gang:
    """One job on several hosts.

    Attributes:
        name: of its folder on the hosts; another attempt at the same job takes another name.
        hosts: the first one is the parameter server's.
        processes: per host.
        job: the path of the job's file, on every host.
        python: of the environment on the hosts.
        folder: on the hosts, for what the gang keeps about itself; need not be shared.
        port: of torchrun's rendezvous, on the first host.
        metadata: address of the service that tells an instance that it is taken back; None where
            nobody takes it back.
        look_every_s: between two looks.
        lost_after_s: a host that is silent, or whose heartbeat stands, for so long is lost.
        end_within_s: for a job to end in order when it is asked to, and for the other hosts to
            end after the first.

    Raises:
        ValueError: if these do not fit.
    """

    name: str
    hosts: tuple[Host, ...]
    processes: tuple[int, ...]
    job: str
    python: str = "/opt/byzshield/venv/bin/python"
    folder: str = "/var/tmp/byzshield"
    port: int = 29500
    metadata: str | None = None
    look_every_s: float = 5.0
    lost_after_s: float = 60.0
    end_within_s: float = 60.0

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"a gang cannot be called {self.name!r}: letters, digits, . _ -")
        if not self.hosts or len(self.hosts) != len(self.processes) or min(self.processes) < 1:
            raise ValueError(f"{len(self.hosts)} hosts do not fit processes {self.processes}")


@dataclass(frozen=True)
class GangEnd:
    """How a gang ended.

    Attributes:
        codes: per host the exit code of torchrun, where it ended by itself.
        lost: per host that was lost, why.
        output: the end of the log that tells most: of the host that failed first, or of the
            server's.
    """

    codes: Mapping[str, int]
    lost: Mapping[str, str] = field(default_factory=dict)
    output: str = ""

    @property
    def code(self) -> int:
        """0 where all hosts ended well; the first other code; -1 where hosts were lost."""
        if self.lost:
            return -1
        return next((code for code in self.codes.values() if code), 0)


def run_gang(transport: Transport, gang: Gang) -> GangEnd:
    """Start a gang, or find it again, and watch it to its end; then nothing of it runs any more.

    An exception, Ctrl-C included, ends only the watching: the gang goes on, until
    :func:`end_gang`.

    Raises:
        RunError: if a host cannot start its part.
    """
    started = on_all(gang.hosts, lambda host: _start(transport, gang, host))
    lost = {
        host.name: str(answer)
        for host, answer in zip(gang.hosts, started, strict=True)
        if isinstance(answer, Unreachable)
    }
    codes: dict[str, int] = {}
    failed: Host | None = None
    if not lost:
        codes, lost, failed = _watch(transport, gang)
    end_gang(transport, gang)
    there = [host for host in gang.hosts if host.name not in lost]
    log_host = failed if failed is not None and failed in there else next(iter(there), None)
    output = "" if log_host is None else log_of(transport, gang, log_host)
    return GangEnd(codes, lost, output)


def end_gang(transport: Transport, gang: Gang, within_s: float | None = None) -> list[str]:
    """End what runs of a gang, on all hosts at once: SIGTERM, and later SIGKILL.

    A job makes a checkpoint on SIGTERM. Ending what has ended does nothing.

    Args:
        transport: to the hosts.
        gang: the gang.
        within_s: how long the job has for its checkpoint; None for the gang's own time.

    Returns:
        The names of the hosts that did not answer.
    """
    grace_s = gang.end_within_s if within_s is None else within_s

    def end(host: Host) -> Ended:
        return transport.run(host, _end_script(gang, host, grace_s), grace_s + _POLL_TIMEOUT_S)

    answers = on_all(gang.hosts, end)
    return [
        host.name
        for host, answer in zip(gang.hosts, answers, strict=True)
        if isinstance(answer, Unreachable)
    ]


def log_of(transport: Transport, gang: Gang, host: Host) -> str:
    """The end of what the gang printed on a host; empty where it does not answer."""
    script = f"tail -c {OUTPUT_BYTES} {shlex.quote(_host_folder(gang, host))}/log"
    try:
        ended = transport.run(host, script, _POLL_TIMEOUT_S)
    except Unreachable:
        return ""
    return ended.output if ended.code == 0 else ""


def _start(transport: Transport, gang: Gang, host: Host) -> None:
    ended = transport.run(host, _start_script(gang, host), _POLL_TIMEOUT_S)
    if ended.code != 0:
        raise RunError(f"{host.name} cannot start the job: {ended.output.strip()[-500:]}")


@dataclass
class _HostStatus:
    """What is known of one host while the gang is watched."""

    heard: float
    code: int | None = None


def _watch(transport: Transport, gang: Gang) -> tuple[dict[str, int], dict[str, str], Host | None]:
    """Look until all hosts have ended, or one is lost, or one is late after another's end."""
    statuses = {host: _HostStatus(time.monotonic()) for host in gang.hosts}
    failed: Host | None = None
    first_end: float | None = None
    while True:
        waiting = [host for host, status in statuses.items() if status.code is None]
        lost = _poll(transport, gang, {host: statuses[host] for host in waiting})
        for host in waiting:
            if statuses[host].code is not None:
                first_end = first_end or time.monotonic()
                failed = failed or (host if statuses[host].code else None)
        codes = {
            host.name: status.code for host, status in statuses.items() if status.code is not None
        }
        late = first_end is not None and time.monotonic() - first_end > gang.end_within_s
        if lost or late or len(codes) == len(statuses):
            return codes, lost, failed
        time.sleep(gang.look_every_s)


def _poll(transport: Transport, gang: Gang, statuses: Mapping[Host, _HostStatus]) -> dict[str, str]:
    """Look at hosts, at all at once; return which are lost, and why."""
    hosts = list(statuses)
    answers = on_all(
        hosts, lambda host: transport.run(host, _poll_script(gang, host), _POLL_TIMEOUT_S)
    )
    lost = {}
    for host, answer in zip(hosts, answers, strict=True):
        status = statuses[host]
        why = (
            str(answer) if isinstance(answer, Unreachable) else _parse_answer(answer, status, gang)
        )
        if why and (
            why in (_GONE[1], _RECLAIMED[1]) or time.monotonic() - status.heard > gang.lost_after_s
        ):
            lost[host.name] = why
        if not why:
            status.heard = time.monotonic()
    return lost


_GONE = "gone", "its processes are gone and left no exit code"
_RECLAIMED = "reclaimed", "EC2 takes it back in two minutes"
_NUMBER = re.compile(r"(ended|running) (-?[0-9]{1,9})")


def _parse_answer(answer: Ended, status: _HostStatus, gang: Gang) -> str:
    """Read a look's answer into ``status``; return what is wrong with the host, if anything."""
    said = answer.output.strip()
    if said in (_GONE[0], _RECLAIMED[0]):
        return _GONE[1] if said == _GONE[0] else _RECLAIMED[1]
    number = _NUMBER.fullmatch(said)
    if number is None:
        return f"it answers nothing of use: {said[-200:]}"
    if number[1] == "ended":
        status.code = int(number[2])
        return ""
    stood_s = int(number[2])
    return "" if stood_s <= gang.lost_after_s else f"its heartbeat stands for {stood_s} s"


def _host_folder(gang: Gang, host: Host) -> str:
    return f"{gang.folder}/{gang.name}/{host.node}"  # a folder per host: it may be a shared disk


def _preamble(gang: Gang, host: Host) -> str:
    place = shlex.quote(_host_folder(gang, host))
    return f"place={place}\nmark={shlex.quote(f'{gang.name}/{host.node}')}\n{_FIND_MARKED}"


def _torchrun_command(gang: Gang, host: Host) -> str:
    index = gang.hosts.index(host)
    return shlex.join(
        [
            *(gang.python, "-m", "torch.distributed.run"),
            *("--nnodes", str(len(gang.hosts)), "--node-rank", str(index)),
            *("--nproc-per-node", str(gang.processes[index])),
            *("--master-addr", gang.hosts[0].address, "--master-port", str(gang.port)),
            *("-m", "byzshield_exp", "job", gang.job),
        ]
    )


def _start_script(gang: Gang, host: Host) -> str:
    """Write the host's script and start it in a session of its own, once.

    ``mkdir`` decides which of two drivers starts it.
    """
    return f"""\
set -euo pipefail
{_preamble(gang, host)}
test -f {shlex.quote(gang.job)} || {{ echo "there is no file {gang.job}"; exit 1; }}
test -x {shlex.quote(gang.python)} || {{ echo "there is no program {gang.python}"; exit 1; }}
mkdir -p "$(dirname "$place")"
mkdir "$place" 2> /dev/null || {{ test -d "$place"; exit; }}
cat > "$place/run.sh" <<'end-of-run'
cd "$1" || exit 1
{_torchrun_command(gang, host)} > log 2>&1 &
child=$!
echo "$child" > pid
while kill -0 "$child" 2> /dev/null; do
    touch heartbeat
    sleep 1
done
wait "$child"
echo "$?" > .code
mv .code code
end-of-run
touch "$place/heartbeat"
BYZSHIELD_GANG="$mark" setsid nohup bash "$place/run.sh" "$place" > /dev/null 2>&1 < /dev/null &
for _ in $(seq 100); do
    if [ -s "$place/pid" ]; then
        exit 0
    fi
    sleep 0.1
done
echo "its script does not start"
exit 1
"""


def _poll_script(gang: Gang, host: Host) -> str:
    """Say ``ended CODE``, ``running SECONDS`` since the heartbeat, ``gone`` or ``reclaimed``."""
    return f"""\
{_preamble(gang, host)}{_reclaim_check(gang)}
there=$(marked)  # before the code is looked for: it is written before the last process ends
if [ -f "$place/code" ]; then
    echo "ended $(cat "$place/code")"
elif [ -n "$there" ] && is_reclaimed; then
    echo reclaimed
elif [ -n "$there" ]; then
    echo "running $(($(date +%s) - $(stat -c %Y "$place/heartbeat")))"
else
    echo gone
fi
"""


def _reclaim_check(gang: Gang) -> str:
    """A shell function that asks, as IMDSv2 wants it, whether a spot instance is taken back."""
    if gang.metadata is None:
        return "is_reclaimed() { false; }"
    return f"""\
is_reclaimed() {{
    local metadata={shlex.quote(gang.metadata)} header=X-aws-ec2-metadata-token token
    token=$(curl -sf -m 2 -X PUT -H "$header-ttl-seconds: 60" "$metadata/api/token") &&
        curl -sf -m 2 -o /dev/null -H "$header: $token" "$metadata/meta-data/spot/instance-action"
}}"""


def _end_script(gang: Gang, host: Host, grace_s: float) -> str:
    """Ask torchrun to end, which asks its ranks; kill what is left when the time is over."""
    return f"""\
{_preamble(gang, host)}
pid=$(cat "$place/pid" 2> /dev/null)
if marked | grep -qx "${{pid:-none}}"; then
    kill -TERM "$pid" 2> /dev/null
fi
end=$((SECONDS + {max(0, round(grace_s))}))
while [ -n "$(marked)" ] && [ "$SECONDS" -lt "$end" ]; do
    sleep 0.5
done
for _ in $(seq 50); do  # again and again: they may start others meanwhile
    left=$(marked)
    if [ -z "$left" ]; then
        break
    fi
    for pid in $left; do
        kill -KILL "$pid" 2> /dev/null
    done
    sleep 0.1
done
exit 0
"""
