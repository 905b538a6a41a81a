"""Real processes: the same bits, real messages, and no rank that computes others."""

import json
import os
import re
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from disturbing import flip_a_bit
from running import SMALL, metrics_of, summary_of, text_of

from byzshield_exp.clusters import run_ranks, start_forkserver
from byzshield_exp.clusters.fingerprint import host_name
from byzshield_exp.clusters.inbox import STATEMENT_BYTES
from byzshield_exp.clusters.sockets.wire import HEADER_BYTES
from byzshield_exp.clusters.sockets.worker import SocketWorker
from byzshield_exp.errors import RunError
from byzshield_exp.launch.ranks import preload, run_rank
from byzshield_exp.rows.digests import DIGEST_BYTES

ATTACKS = ("none", "reversed_gradient", "alie")
PROGRAM = (sys.executable, "-m", "byzshield_exp")
LENET = ("dataset=synthetic", "network=lenet", "steps=10", "eval_every=10")


def processes(count):
    return ("cluster=processes", f"cluster.num_processes={count}")


def hashes(folder):
    """Attack -> the hash of the parameters, over the runs below a folder."""
    found = {}
    for path in folder.glob("*/config.yaml"):
        attack = next(
            a
            for a in ATTACKS
            if f"attack.{a}" in path.read_text() or f"attack: {a}" in path.read_text()
        )
        found[attack] = json.loads((path.parent / "summary.json").read_text())["parameters_sha256"]
    return found


def do_all_attacks(folder, *overrides, attacks=("alie",), command=PROGRAM):
    """A sweep over attacks; the hash of each run."""
    done = subprocess.run(
        [*command, "-m", *LENET, f"attack={','.join(attacks)}", f"output_dir={folder}", *overrides],
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return hashes(folder)


def test_one_process_and_four_end_with_the_same_bits(tmp_path, run, plain_config):
    start_forkserver(preload())
    shas = set()
    for attack in ATTACKS:
        local = run(f"attack={attack}", folder=tmp_path / "local" / attack)
        four = tmp_path / "four" / attack
        config = plain_config(f"attack={attack}", *processes(4))
        run_ranks(run_rank, 4, text_of(config, four), preload())  # by digests
        assert summary_of(four)["parameters_sha256"] == local["parameters_sha256"]
        shas.add(local["parameters_sha256"])
    assert len(shas) == len(ATTACKS)


VOTES = ("majority", "digest", "tolerant")


@pytest.mark.slow
def test_every_vote_ends_with_the_same_bits(tmp_path, run):
    options = ("dataset=synthetic", "network=mlp", "steps=5", "eval_every=10", "attack=alie")
    local = {
        run(*options, f"vote={vote}", small=False, folder=tmp_path / vote)["parameters_sha256"]
        for vote in VOTES
    }
    do_all_attacks(
        tmp_path / "three", "network=mlp", "steps=5", f"vote={','.join(VOTES)}", *processes(3)
    )
    ended = (tmp_path / "three").glob("*/summary.json")
    assert [json.loads(path.read_text())["parameters_sha256"] for path in ended] == [*local] * 3


@pytest.mark.slow
@pytest.mark.parametrize("vote", ["digest", pytest.param("majority", marks=pytest.mark.thorough)])
def test_sixteen_processes_and_torchrun_end_with_the_same_bits(tmp_path, vote):
    local = do_all_attacks(tmp_path / "local")
    assert do_all_attacks(tmp_path / "sixteen", f"vote={vote}", *processes(16)) == local
    torchrun = (
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "16",
        "-m", "byzshield_exp",
    )  # fmt: skip
    assert do_all_attacks(tmp_path / "torchrun", f"vote={vote}", command=torchrun) == local


@pytest.mark.thorough  # over a bridge, as hosts do it: test_process_group.py
def test_two_machines_end_with_the_same_bits(tmp_path):
    """Two agents of torchrun, as on two machines: over TCP, from the address that torchrun has."""
    options = ("network=mlp", "steps=5")
    local = do_all_attacks(tmp_path / "local", *options)
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
    agents = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", rank,
             "--master-addr", "127.0.0.1", "--master-port", str(port), "--nproc-per-node", "2",
             "-m", "byzshield_exp", "-m", *LENET, "attack=alie", *options,
             f"output_dir={tmp_path / 'two'}"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in ("0", "1")
    ]  # fmt: skip
    for agent in agents:
        _, err = agent.communicate(timeout=120)
        assert agent.returncode == 0, err
    assert hashes(tmp_path / "two") == local


DONE_BYTES = HEADER_BYTES + STATEMENT_BYTES


@pytest.mark.parametrize("vote", ["digest", pytest.param("majority", marks=pytest.mark.slow)])
@pytest.mark.parametrize("count", [4, pytest.param(16, marks=pytest.mark.slow)])
def test_the_server_receives_every_replica_or_every_winner_once(
    tmp_path, plain_config, vote, count
):
    config = plain_config("attack=none", f"vote={vote}", *processes(count))
    run_ranks(run_rank, count, text_of(config, tmp_path), preload())
    summary = summary_of(tmp_path)
    row, replicas = HEADER_BYTES + 4 * summary["num_parameters"], 75
    said = replicas * (HEADER_BYTES + DIGEST_BYTES) + 25 * row
    received = (said if vote == "digest" else replicas * row) + (count - 1) * DONE_BYTES
    assert {record["bytes_in"] for record in metrics_of(tmp_path)} == {received}
    assert summary["bytes_in_per_step"] == received
    assert summary["files_computed"] == [0] + ([5] * 15 if count == 16 else [25, 25, 25])


def flipping_rank(rendezvous, job):
    """A rank; the first of them flips one bit of its first row on the wire."""
    if rendezvous.rank == 1:
        flip_a_bit(SocketWorker)
    return run_rank(rendezvous, job)


@pytest.mark.slow  # over gloo it is quick
@pytest.mark.parametrize("vote", ["digest", "majority"])
def test_one_flipped_bit_is_one_disagreement_and_the_same_winner(tmp_path, run, plain_config, vote):
    options = ("attack=none", "q=0")
    honest = run(*options, folder=tmp_path / "honest")
    config, flipped = plain_config(*options, f"vote={vote}", *processes(3)), tmp_path / "flipped"
    run_ranks(flipping_rank, 3, text_of(config, flipped), preload())
    assert summary_of(flipped)["parameters_sha256"] == honest["parameters_sha256"]
    assert {record["vote_disagreements"] for record in metrics_of(flipped)} == {1}
    honest_steps = metrics_of(tmp_path / "honest")
    assert {record["vote_disagreements"] for record in honest_steps} == {0}
    assert {record["files_without_majority"] for record in metrics_of(flipped)} == {0}


def other_bits_rank(rendezvous, job):
    """A rank; the last one computes on two threads' worth of other bits."""
    if rendezvous.rank == 3:
        from byzshield_exp.training.gradients import TrueGradients

        compute = TrueGradients._compute

        def compute_differently(self, file):
            loss = compute(self, file)
            self.table[file] *= 1.0000001
            return loss

        TrueGradients._compute = compute_differently
    return run_rank(rendezvous, job)


def test_a_rank_with_other_bits_is_named_before_the_first_step(tmp_path, plain_config):
    job = text_of(plain_config(*processes(4)), tmp_path)
    with pytest.raises(RunError, match=r"ranks \[3\] computed other bits"):
        run_ranks(other_bits_rank, 4, job, preload())


def each_by_itself(ranks, *overrides):
    """Start every rank by hand, each with its own folder and environment; rank 0's end.

    Args:
        ranks: of each its working directory, and what its environment has besides.
        overrides: of rank 0.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": str(len(ranks)), "LOCAL_WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "byzshield_exp", *(overrides if rank == 0 else ())],
            cwd=folder, env={**os.environ, **common, **place, "RANK": str(rank), **environment},
            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for rank, (folder, environment) in enumerate(ranks)
    ]  # fmt: skip
    try:
        _, complaint = started[0].communicate(timeout=120)
        return started[0].returncode, complaint
    finally:
        for process in started:
            process.kill()
            process.communicate()


@pytest.mark.slow
@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "NO AVX"), reason="it has no other"
)
def test_a_rank_with_another_instruction_set_is_told_with_its_host(tmp_path):
    other = {"ATEN_CPU_CAPABILITY": "default"}
    ranks = [(tmp_path, {}), (tmp_path, {}), (tmp_path, other), (tmp_path, {})]
    code, complaint = each_by_itself(ranks, *SMALL)
    assert code == 1
    assert "ranks [2] computed other bits for file 0 than the rest" in complaint
    assert re.search(rf"rank 2 on host {host_name()}: capability=(DEFAULT|NO AVX) ", complaint)
    assert "ATEN_CPU_CAPABILITY=default (server: not set)" in complaint
    assert "data=" not in complaint
    assert len(complaint.splitlines()) == 1, complaint


@pytest.mark.slow
@pytest.mark.parametrize(
    ("odd", "vote"),
    [((2,), "auto"), pytest.param((1, 2, 3), "tolerant", marks=pytest.mark.thorough)],
    ids=["one rank", "all ranks"],
)
def test_ranks_that_read_other_data_are_told(tmp_path, odd, vote):
    """A relative dataset.root is another folder on each machine."""
    for name, seed in (("here", 0), ("there", 1)):
        (tmp_path / name / "data").mkdir(parents=True)
        random = np.random.default_rng(seed)
        arrays = {
            f"{part}_{what}": values
            for part, count in (("train", 60), ("test", 20))
            for what, values in (
                ("images", random.integers(0, 256, (count, 8, 8), dtype=np.uint8)),
                ("labels", np.arange(count) % 10),
            )
        }
        np.savez(tmp_path / name / "data" / "own.npz", **arrays)
    ranks = [(tmp_path / ("there" if rank in odd else "here"), {}) for rank in range(4)]
    options = ("dataset=npz", "dataset.file=own.npz", "network=mlp", "batch_size=50", "steps=2")
    code, complaint = each_by_itself(ranks, *options, f"vote={vote}")
    assert code == 1
    assert f"ranks {list(odd)} read other data than the server" in complaint
    assert "dataset.root" in complaint
    assert "vote=tolerant" not in complaint


def test_bad_input_under_torchrun(cli, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    for overrides, message in (
        (["cluster=local"], "cluster=local under torchrun"),
        (["cluster.num_processes=5"], "cluster.num_processes=5 under torchrun must be"),
        (["K=2", "r=1", "q=0"], "num_processes=4 must lie between 2 and K+1=3"),
        (["K=2", "-m"], "q=3 must be at most K=2"),
    ):
        code, _, err = cli(*SMALL, "plan=true", *overrides)
        assert code == 2
        assert message in err
