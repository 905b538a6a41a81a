"""Runs in processes of their own, to be killed, stopped and told to end."""

import contextlib
import os
import subprocess
import sys
import time
import uuid
from dataclasses import replace
from pathlib import Path

import torch
from running import SMALL, metrics_of, summary_of

HONEST = (*SMALL, "attack=none", "q=0", "network.hidden=[64]")
STEPS = "steps=80"
ENDLESS = ("steps=1000000", "checkpoint_every=1000000")
PROGRAM = (sys.executable, "-m", "byzshield_exp")
FAILING = """
def forge(knowledge, when: int = 3, z: float | None = None):
    if knowledge.step == when:
        raise ArithmeticError("a rule of the user's own broke")
    return knowledge.own_rows()
"""


def flip_a_bit(transport):
    """Make a class of transports flip a bit of worker 0's row of file 0."""
    send = transport.send

    def send_flipped(self, step, worker, file, message):
        if (worker, file) == (0, 0):
            message = replace(message, joined=message.joined.clone())
            message.joined.view(torch.int32)[7] ^= 1
        send(self, step, worker, file, message)

    transport.send = send_flipped


def processes(count):
    return ("cluster=processes", f"cluster.num_processes={count}")


def torchrun(*options):
    return (
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4",
        *options, "-m", "byzshield_exp",
    )  # fmt: skip


def processes_with(mark):
    """Processes with a mark in their environment: their parents."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with contextlib.suppress(OSError):
                if mark.encode() in (folder / "environ").read_bytes():
                    state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
                    if state != "Z":
                        found[int(folder.name)] = int(parent)
    return found


class Started:
    """A run in processes of its own."""

    def __init__(self, folder, overrides, count, prefix, mark, env):
        self.folder, self.count, self.mark = folder, count, mark
        self.said = folder.parent / f"{uuid.uuid4().hex}.out", folder.parent / f"{uuid.uuid4().hex}"
        with self.said[0].open("w") as out, self.said[1].open("w") as err:  # a stopped rank holds a
            self.process = subprocess.Popen(  # pipe open
                [*prefix, *overrides, f"output_dir={folder}", *(processes(count) if count else ())],
                stdout=out, stderr=err, start_new_session=True,
                env={**os.environ, "MARK": mark, **(env or {})},
            )  # fmt: skip

    def ranks(self):
        """The pids of the ranks, in order."""
        parents = processes_with(self.mark)
        forkserver = next(
            pid
            for pid, parent in parents.items()
            if parent == self.process.pid and pid in parents.values()
        )
        return sorted(pid for pid, parent in parents.items() if parent == forkserver)

    def torchrun_ranks(self):
        """The pids of the ranks that torchrun has started last, in order."""
        by_rank = {}
        for pid, parent in processes_with(self.mark).items():
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                ranks = [int(word[5:]) for word in words if word.startswith(b"RANK=")]
                if parent == self.process.pid and ranks:
                    by_rank[ranks[0]] = pid
        return [by_rank[rank] for rank in sorted(by_rank)]

    def wait_for(self, condition, timeout=60):
        """Wait until a condition holds; it has to while the program runs."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self.process.poll() is None:
            if condition():
                return
            time.sleep(0.02)
        raise TimeoutError(self.end(1))

    def wait_for_step(self, step, timeout=60):
        """Wait until the server has recorded a step."""

        def is_there():
            paths = list(self.folder.glob("*/metrics.jsonl"))
            return bool(paths) and paths[0].read_text().count("\n") >= step

        self.wait_for(is_there, timeout)

    def end(self, timeout=60):
        """Its exit code and what it printed to stderr."""
        code = self.process.wait(timeout)
        return code, self.said[1].read_text()


def assert_finished(run, undisturbed, steps=STEPS, code=0):
    returned, err = run.end()
    assert returned == code, err
    assert summary_of(run.folder)["parameters_sha256"] == undisturbed(steps)
    count = int(steps.partition("=")[2])
    assert [record["step"] for record in metrics_of(run.folder)] == list(range(1, count + 1))
    return err
