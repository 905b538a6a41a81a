"""A gang: one job on several hosts, run by torchrun, which goes on when the driver dies.

On every host a small script in its own session starts torchrun, touches a heartbeat file while it
runs, and writes its exit code when it ends. The driver only polls, each time with a short script.
Starting is idempotent, so a restarted driver just calls :func:`run_gang` again.

All processes of a gang on a host are found by a mark in their environment: torchrun gives each rank
its own session, so there is no process group to end.
"""

import re
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from byzshield_exp.errors import RunError
from byzshield_exp.launch.ec2.hosts import (
    OUTPUT_BYTES,
    Ended,
    Host,
    HostTransport,
    Unreachable,
    on_all,
)

_POLL_TIMEOUT_S = 30.0  # for one answer of a host
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
        python: the interpreter on the hosts.
        folder: on the hosts, for the gang's own files; need not be shared.
        port: of torchrun's rendezvous, on the first host.
        metadata: address of the service that announces the reclaim of a spot instance; None for
            instances that are not reclaimed.
        look_every_s: between two polls.
        lost_after_s: a host is lost when it is silent, or its heartbeat is old, for this long.
        end_within_s: how long a job has to end when it is asked to, and the other hosts after
            the first has ended.

    Raises:
        ValueError: if the name is invalid, or the processes do not fit the hosts.
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
        codes: exit codes of torchrun, by host, where it ended by itself.
        lost: reasons, by host, for the hosts that were lost.
        output: the end of the log of the host that failed first, or else of the server's.
    """

    codes: Mapping[str, int]
    lost: Mapping[str, str] = field(default_factory=dict)
    output: str = ""

    @property
    def code(self) -> int:
        """-1 if hosts were lost; else the first nonzero code; 0 if all hosts ended well."""
        if self.lost:
            return -1
        return next((code for code in self.codes.values() if code), 0)


def run_gang(transport: HostTransport, gang: Gang) -> GangEnd:
    """Start a gang, or find it again, and watch it until none of its processes is left.

    An exception, Ctrl-C included, ends only the watching: the gang runs on until
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


def end_gang(transport: HostTransport, gang: Gang, within_s: float | None = None) -> list[str]:
    """End a gang's processes on all hosts at once: by SIGTERM, and later by SIGKILL.

    A job makes a checkpoint at SIGTERM. A gang that has ended may be ended again.

    Args:
        transport: to the hosts.
        gang: the gang.
        within_s: how long the job has for its checkpoint; None for ``gang.end_within_s``.

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


def log_of(transport: HostTransport, gang: Gang, host: Host) -> str:
    """Return the end of a gang's log on a host; empty if the host does not answer."""
    script = f"tail -c {OUTPUT_BYTES} {shlex.quote(_host_folder(gang, host))}/log"
    try:
        ended = transport.run(host, script, _POLL_TIMEOUT_S)
    except Unreachable:
        return ""
    return ended.output if ended.code == 0 else ""


def _start(transport: HostTransport, gang: Gang, host: Host) -> None:
    ended = transport.run(host, _start_script(gang, host), _POLL_TIMEOUT_S)
    if ended.code != 0:
        raise RunError(f"{host.name} cannot start the job: {ended.output.strip()[-500:]}")


@dataclass
class _HostStatus:
    """When a watched host last answered well, and its exit code once it has ended."""

    heard: float
    code: int | None = None


def _watch(
    transport: HostTransport, gang: Gang
) -> tuple[dict[str, int], dict[str, str], Host | None]:
    """Poll until all hosts have ended, one is lost, or one is late after another's end."""
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


def _poll(
    transport: HostTransport, gang: Gang, statuses: Mapping[Host, _HostStatus]
) -> dict[str, str]:
    """Poll hosts, all at once; return which are lost, and why."""
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
    """Parse a poll's answer into ``status``; return what is wrong with the host, or ``""``."""
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
    return f"{gang.folder}/{gang.name}/{host.node}"  # per host: the disk may be shared


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
    """Return a script that starts torchrun in its own session, once.

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
    """Return a script that prints a host's state, for :func:`_parse_answer`.

    It is ``ended CODE``, ``running SECONDS`` (age of the heartbeat), ``gone`` or ``reclaimed``.
    """
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
    """Return a shell function that asks by IMDSv2 whether a spot instance is being reclaimed."""
    if gang.metadata is None:
        return "is_reclaimed() { false; }"
    return f"""\
is_reclaimed() {{
    local metadata={shlex.quote(gang.metadata)} header=X-aws-ec2-metadata-token token
    token=$(curl -sf -m 2 -X PUT -H "$header-ttl-seconds: 60" "$metadata/api/token") &&
        curl -sf -m 2 -o /dev/null -H "$header: $token" "$metadata/meta-data/spot/instance-action"
}}"""


def _end_script(gang: Gang, host: Host, grace_s: float) -> str:
    """Return a script that asks torchrun, and so its ranks, to end, and later kills the rest."""
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
