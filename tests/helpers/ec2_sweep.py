"""Sweeps on gangs that are folders of this machine: what runs on their hosts, and what is left."""

import threading
import time
from pathlib import Path

from byzshield_exp.launch.ec2.options import options_of
from byzshield_exp.launch.ec2.state import store_of

# Stands for Python with torchrun: its first node does what the job says.
PROGRAM = """\
#!{python}
import json, os, pathlib, signal, sys, time
arguments = sys.argv[1:]
if "prepare" in arguments:
    print("prepares", *arguments[2:])
    trouble = pathlib.Path(sys.argv[0]).with_name("trouble")
    left = int(trouble.read_text()) if trouble.exists() else 0
    trouble.write_text(str(max(0, left - 1)))
    sys.exit(left > 0)
node = int(arguments[arguments.index("--node-rank") + 1])
job = json.loads(pathlib.Path(arguments[-1]).read_text())
does = job["config"]["does"]
folder = pathlib.Path(job["config"]["output_dir"]) / job["name"]
if node == 0:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "starts").open("a") as file:
        file.write(" ".join(arguments) + "\\n")
def say(**status):
    if node == 0:
        (folder / "status.json").write_text(json.dumps(status))
def stop(*_):
    say(state="stopped")
    sys.exit(1)  # as torchrun does for any rank that fails
signal.signal(signal.SIGTERM, stop)
say(state="running")
first = len((folder / "starts").read_text().splitlines()) == 1 if node == 0 else False
if does == "wait" or (does == "wait once" and (first or node)):
    until = time.time() + (60 if does == "wait" or first else 8)
    while time.time() < until and not (folder / "finish").exists():
        time.sleep(0.05)
if does == "refuse":  # as a job that finds another's checkpoint
    say(state="done")
    print("holds another run")
    sys.exit(1)
if does == "fail":
    say(state="failed", error="the loss is a cat")
    sys.exit(1)
say(state="done")
"""


def options(tmp_path, **more):
    given = {"transport": "local", "usd_per_hour": 0.5, "dry_run": False, "retry_s": 0.0}
    return options_of({**given, "output_dir": str(tmp_path / "outputs"), **more})


def starts(tmp_path, number: int) -> list[str]:
    return (tmp_path / f"outputs/run{number}/starts").read_text().splitlines()


def state(tmp_path):
    return store_of(str(tmp_path / "outputs"), "byzshield").load()


def phases(done) -> list[str]:
    return [job.phase for job in done]


def when_it_runs(tmp_path, number: int, act) -> threading.Thread:
    """Do something once a run has begun on its host."""

    def wait() -> None:
        deadline = time.monotonic() + 60
        folder = tmp_path / "outputs/ec2/byzshield/hosts/outputs"
        while time.monotonic() < deadline and not [*folder.glob(f"*/run{number}/status.json")]:
            time.sleep(0.05)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def host_side(tmp_path, number: int) -> Path:
    """A run's folder on its host."""
    return next((tmp_path / "outputs/ec2/byzshield/hosts/outputs").glob(f"*/run{number}"))


def finish(folder: Path) -> None:
    """Let the program that waits end well."""
    (folder / "finish").touch()
