"""Peers in one process, in several over sockets, and under torchrun: the same bits and bans."""

import json
import os
import signal
import subprocess
import sys

import pytest
from disturbing import processes
from running import metrics_of, run_program, summary_of

PROGRAM = (sys.executable, "-m", "byzshield_exp")
PEERS = (
    "approach=btard", "dataset=synthetic", "network=mlp", "network.hidden=[16]", "steps=6",
    "eval_every=6", "adversary=fixed_random", "adversary.start=2",
)  # fmt: skip
CHEATS = (
    "wrong_aggregate", "covered_aggregate", "wrong_sum", "wrong_norm", "wrong_part", "withhold",
    "no_commit", "equivocate", "mprng_abort", "false_accusation", "false_complaint",
)  # fmt: skip
KEPT = ("parameters_sha256", "bans", "attacks", "final_test_accuracy")
COUNTED = ("alive", "attempts", "accusations", "eliminations", "trials", "iterations", "residual",
           "clipped_share", "data_bytes", "control_bytes", "loss")  # fmt: skip


def torchrun(count):
    return (
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
        str(count), "-m", "byzshield_exp",
    )  # fmt: skip


def sweep(folder, *overrides, command=PROGRAM):
    """Do a sweep; what its runs end with, by cheat and attack."""
    done = subprocess.run(
        [*command, "-m", *PEERS, f"output_dir={folder}", *overrides],
        capture_output=True, text=True, timeout=290,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = {}
    for path in folder.glob("*/summary.json"):
        summary = json.loads(path.read_text())
        config = (path.parent / "config.yaml").read_text()
        name = tuple(line for line in config.splitlines() if line.strip().startswith(NAMED))
        records = metrics_of(path.parent)
        found[name] = [
            {key: summary[key] for key in KEPT},
            [{key: record[key] for key in COUNTED} for record in records],
        ]
    return found


NAMED = ("cheat:", "attack:")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What the sweeps of sixteen peers end with in one process."""
    folder = tmp_path_factory.mktemp("alone")
    found = {name: sweep(folder / name, *chosen) for name, chosen in SIXTEEN.items()}
    assert {name: len(ends) for name, ends in found.items()} == {"cheats": 11, "attacks": 3}
    return found


GROUP = ("K=16", "q=5", "batch_size=64", "network.hidden=[8]", "protocol.projections=2")
SIXTEEN = {
    "cheats": (*GROUP, "attack=none", f"cheat={','.join(CHEATS)}"),
    "attacks": (*GROUP, "attack=sign_flip,alie_optimised,not_a_number"),
}
SMALL_GROUP = ("K=6", "q=2", "batch_size=24")


@pytest.mark.slow
@pytest.mark.parametrize("where", ["gloo", pytest.param("sockets", marks=pytest.mark.thorough)])
def test_three_processes_end_with_the_same_bits(tmp_path, where):
    options = (*SMALL_GROUP, "attack=sign_flip", "cheat=[withhold,wrong_aggregate]")
    local = sweep(tmp_path / "local", *options)
    over, command = (processes(3), PROGRAM) if where == "sockets" else ((), torchrun(3))
    assert sweep(tmp_path / "there", *options, *over, command=command) == local


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "command"),
    [
        (5, PROGRAM),
        pytest.param(17, PROGRAM, marks=pytest.mark.thorough),
        pytest.param(16, torchrun(16), marks=pytest.mark.thorough),
    ],
)
def test_sixteen_peers_end_with_the_same_bits(tmp_path, alone, count, command):
    over = processes(count) if command is PROGRAM else ()
    for name, chosen in SIXTEEN.items():
        if count == 5 and name == "attacks":  # what several peers in a process add are cheats
            continue
        assert sweep(tmp_path / name, *chosen, *over, command=command) == alone[name]


@pytest.mark.thorough
def test_many_peers_in_one_process(tmp_path):
    many = sweep(tmp_path, "K=64", "q=20", "batch_size=64", "attack=sign_flip", "cheat=wrong_part")
    ((summary, _),) = many.values()
    assert sum(ban["reason"] == "eliminated" for ban in summary["bans"]) == 40


@pytest.mark.slow
@pytest.mark.parametrize("over", [pytest.param((), marks=pytest.mark.thorough), processes(3)])
def test_a_killed_run_resumes_with_the_same_bits(tmp_path, over):
    options = (
        *PEERS, *SMALL_GROUP, "attack=delayed_gradient", "attack.delay=2", "adversary.start=4",
        "steps=60", "checkpoint_every=4",
    )  # fmt: skip
    whole = run_program(*options, f"output_dir={tmp_path / 'whole'}")
    assert whole.returncode == 0, whole.stderr
    command = [*PROGRAM, *options, *over, f"output_dir={tmp_path / 'cut'}"]
    cut = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while not list((tmp_path / "cut").glob("*/checkpoint*")) and cut.poll() is None:
        pass
    os.killpg(cut.pid, signal.SIGKILL)
    cut.wait()
    assert not list((tmp_path / "cut").glob("*/summary.json"))
    assert run_program(*command[3:]).returncode == 0
    ends = [summary_of(tmp_path / name) for name in ("whole", "cut")]
    assert [ends[0][key] for key in KEPT] == [ends[1][key] for key in KEPT]
    assert ends[0]["bans"]
