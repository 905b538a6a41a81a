"""Rows over gloo: the bits of one process, what travels, what is stored, who is caught."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from disturbing import flip_a_bit
from rented_hosts import namespaces_on_a_bridge, why_no_namespaces
from running import SMALL, metrics_of, summary_of, text_of
from torch.distributed import HashStore

from byzshield_exp.assignments import mols
from byzshield_exp.clusters import Seats, TransportOptions, run_ranks, start_forkserver
from byzshield_exp.clusters.group_channel import _interface_to
from byzshield_exp.clusters.process_group import ProcessGroup
from byzshield_exp.clusters.received import RankReport, Received
from byzshield_exp.clusters.said import Said
from byzshield_exp.clusters.vigil import Vigil
from byzshield_exp.errors import RunError
from byzshield_exp.launch.ranks import preload, run_rank
from byzshield_exp.rows.message import Message

FEW = ("approach=baseline", "K=5", "q=1", "batch_size=20", "steps=2", "eval_every=2")
RGB = ("dataset.channels=3", "dataset.size=32", "dataset.num_train=40", "dataset.num_test=20")
RUNS = {
    "majority": ("vote=majority", "attack=alie"),
    "digest": ("vote=digest", "attack=reversed_gradient"),
    "tolerant": ("vote=tolerant", "attack=none"),
    "past": ("vote=digest", "attack=delayed_gradient", "attack.delay=1"),  # shared parameters
    "batch norm": (*FEW, *RGB, "network=resnet18", "network.width=4", "vote=digest"),
    "dropout": ("network=l46_net", "dataset.size=16", "steps=2", "eval_every=2", "vote=majority"),
}
QUICK = ("majority", "digest")
SLOW = dict.fromkeys(("batch norm", "past"), pytest.mark.slow)
PLACES = {
    "gloo": (4, "backend=gloo"),
    "plays": (3, "backend=gloo", "server_plays=true"),
    "uneven": (5, "backend=gloo", "server_plays=true"),
    "sockets": (4, "backend=sockets"),
}


def overrides(name):
    network = () if "network=" in str(RUNS[name]) else SMALL[1:3]
    lasts = () if "steps=2" in RUNS[name] else SMALL[3:]
    return ("dataset=synthetic", *network, *lasts, *RUNS[name])


def placed(place):
    count, *keys = PLACES[place]
    keys = [f"num_processes={count}", *keys]
    return ("cluster=processes", *(f"cluster.{key}" for key in keys))


def done_over(make_config, folder, place, *overrides, target=run_rank):
    """Do a run in ranks of the forkserver; its summary."""
    start_forkserver(preload())
    config = make_config("cluster=local", *placed(place), *overrides, small=False)
    run_ranks(target, PLACES[place][0], text_of(config, folder), preload())
    return summary_of(folder)


SHAS = ("parameters_sha256", "buffers_sha256", "num_corrupt")


@pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=SLOW.get(name, pytest.mark.thorough))
        for name in RUNS
    ],
)
def test_every_place_ends_with_the_same_bits(tmp_path, run, plain_config, name):
    alone = run(*overrides(name), small=False, folder=tmp_path / "alone")
    for place in PLACES if name not in (*QUICK, "batch norm") else ("gloo", "plays"):
        there = done_over(plain_config, tmp_path / place, place, *overrides(name))
        assert {key: there[key] for key in SHAS} == {key: alone[key] for key in SHAS}, place


@pytest.mark.slow
def test_a_run_goes_on_over_another_backend(tmp_path, run, plain_config):
    common = ("dataset=synthetic", *SMALL[1:3], "eval_every=2", "worker_momentum=0.5")
    alone = run(*common, "steps=6", small=False, folder=tmp_path / "alone")
    for steps, place in ((2, "gloo"), (4, "sockets"), (6, "plays")):
        there = done_over(plain_config, tmp_path / "run", place, *common, f"steps={steps}")
    assert there["parameters_sha256"] == alone["parameters_sha256"]


def test_bytes_are_those_of_all_replicas_or_of_the_winners(tmp_path, plain_config):
    orders = [Seats(mols(15, 3), 4).order_of(rank, ()) for rank in (1, 2, 3)]
    reports = sum(RankReport(len(order)).content.nbytes for order in orders)
    for vote, rows in (("majority", 75), ("digest", 25)):
        options = (*SMALL, "attack=none", f"vote={vote}")
        summary = done_over(plain_config, tmp_path / vote, "gloo", *options)
        assert summary["bytes_in_per_step"] == rows * 4 * summary["num_parameters"] + reports
        assert summary["files_computed"] == [0, 25, 25, 25]


def lying_rank(rendezvous, job):
    """A rank; the last one sends other rows than its digests say."""
    if rendezvous.rank == 3:
        row = Said.row

        def another_row(self, worker, file):
            said, digest = row(self, worker, file)
            return said + 1, digest

        Said.row = another_row
    return run_rank(rendezvous, job)


def test_a_row_that_is_not_what_its_digest_said_is_caught(tmp_path, run, plain_config):
    options = (*SMALL, "attack=none", "vote=digest")
    alone = run(*options, small=False, folder=tmp_path / "alone")
    there = done_over(plain_config, tmp_path / "run", "gloo", *options, target=lying_rank)
    assert there["parameters_sha256"] == alone["parameters_sha256"]
    records = metrics_of(tmp_path / "run")
    caught = {worker for record in records for worker in record["caught"]}
    assert caught
    assert caught <= set(range(10, 15))
    events = "\n".join(event for record in records for event in record.get("events", []))
    assert re.search(r"worker 1\d \(rank 3 \(workers 10 to 14\)\) sent another row", events)
    assert all(record["caught"] == [] for record in records[1:])  # it is asked last from then on


def flipping_rank(rendezvous, job):
    """A rank; the first one that computes flips a bit of its first row."""
    if rendezvous.rank == 1:
        flip_a_bit(ProcessGroup)
    return run_rank(rendezvous, job)


def test_one_flipped_bit_is_one_disagreement(tmp_path, run, plain_config):
    options = (*SMALL, "attack=none", "vote=majority")
    alone = run(*options, small=False, folder=tmp_path / "alone")
    there = done_over(plain_config, tmp_path / "run", "gloo", *options, target=flipping_rank)
    assert there["parameters_sha256"] == alone["parameters_sha256"]
    assert {record["vote_disagreements"] for record in metrics_of(tmp_path / "run")} == {1}


def test_equal_rows_are_stored_once():
    """(f + 2 W) rows, and one more where a replica differs."""
    size, ranks = 1000, (1, 2, 3)
    table = torch.zeros(4, size)
    received = Received(table, ranks)
    for _ in range(3):
        received.clear()
        received.open()
        for turn in range(8):
            for rank in ranks:
                received.slot(rank, turn).fill_(float(turn % 4))
                kept = received.keep(turn % 4, received.slot(rank, turn))
                assert kept.data_ptr() == table[turn % 4].data_ptr()
        slot = received.slot(1, 0)
        slot.fill_(-0.0)  # equal to 0.0 as a number
        other = received.keep(0, slot)
        assert other.data_ptr() not in (table[0].data_ptr(), slot.data_ptr())
        slot.fill_(7.0)
        assert np.signbit(other.numpy()).all()
        assert received.keep(0, other.clone()).data_ptr() == other.data_ptr()
        assert len(received._others) == 1
        received.close()
        assert not received._slots
    assert table[:, 0].tolist() == [0.0, 1.0, 2.0, 3.0]


def test_a_row_of_another_form_is_refused_before_it_is_sent():
    """gloo ends the process that receives more than it expects."""
    vigil, seats = Vigil(1, 4, HashStore()), Seats(mols(15, 3), 4)
    group = ProcessGroup(seats, TransportOptions(), torch.zeros(0, 50), vigil)
    for row in (torch.zeros(50, dtype=torch.float64), torch.zeros(51)):
        with pytest.raises(
            RunError, match=r"would send 5\d numbers of torch.float\d+ instead of 50"
        ):
            group.send(0, 0, 0, Message(row, 50, 0.0))


def test_torchruns_processes_name_no_folder(cli, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    code, out, err = cli(*SMALL, "plan=true", "cluster.num_processes=1", "cluster.backend=gloo")
    assert code == 0, err
    assert "1 rank over gloo" in out
    assert "new: " in out
    assert "num_processes" not in out
    assert "backend" not in out


def test_the_interface_is_the_one_that_reaches_rank_0():
    assert _interface_to("") == _interface_to("127.0.0.1") == "lo"


TORCHRUN = (sys.executable, "-m", "torch.distributed.run")


@pytest.mark.slow
@pytest.mark.parametrize(
    "count", [1, *(pytest.param(count, marks=pytest.mark.thorough) for count in (2, 16))]
)
def test_torchrun_ends_with_the_same_bits(tmp_path, run, count):
    options = (*SMALL, f"output_dir={tmp_path / 'torchrun'}")
    command = (*TORCHRUN, "--standalone", "--nproc-per-node", str(count), "-m", "byzshield_exp")
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    ranks = "1 rank" if count == 1 else f"{count} ranks"
    line = f"{ranks} over gloo (torch {torch.__version__}): rank 0 is the parameter server"
    line += " and plays workers" * (count == 1)
    assert line in done.stdout.splitlines()
    assert "Abort" not in done.stderr
    there = summary_of(tmp_path / "torchrun")
    assert there["parameters_sha256"] == run()["parameters_sha256"]


@pytest.mark.slow
def test_torchrun_continues_a_run_with_other_processes(tmp_path, run):
    for steps, count, more in ((2, 3, ()), (4, 2, ("cluster.backend=sockets",))):
        command = (*TORCHRUN, "--standalone", "--nproc-per-node", str(count), "-m", "byzshield_exp")
        options = (*SMALL, f"steps={steps}", f"output_dir={tmp_path / 'torchrun'}", *more)
        done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
    assert "resumes after step 2" in done.stdout
    assert summary_of(tmp_path / "torchrun")["parameters_sha256"] == run()["parameters_sha256"]


@pytest.mark.slow
def test_two_hosts_end_with_the_same_bits(tmp_path, run):
    if reason := why_no_namespaces():
        pytest.skip(reason)
    options = (*SMALL, f"output_dir={tmp_path / 'two'}")
    with namespaces_on_a_bridge(2) as (_, hosts):
        agents = [
            subprocess.Popen(
                ["ip", "netns", "exec", namespace, *TORCHRUN, "--nnodes", "2", "--node-rank",
                 str(node), "--master-addr", hosts[0][1], "--master-port", "29400",
                 "--nproc-per-node", "2", "-m", "byzshield_exp", *options],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for node, (namespace, _) in enumerate(hosts)
        ]  # fmt: skip
        for agent in agents:
            _, err = agent.communicate(timeout=120)
            assert agent.returncode == 0, err
    assert summary_of(tmp_path / "two")["parameters_sha256"] == run()["parameters_sha256"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("cluster.backend=gloo",), "cluster.backend=gloo needs cluster=processes or torchrun"),
        (("cluster.server_plays=true",), "cluster.server_plays=true needs cluster=processes"),
        (
            ("cluster=processes", "cluster.server_plays=1"),
            "cluster.server_plays=1 must be one of auto, true, false",
        ),
        (("cluster.backend=mpi",), "cluster.backend=mpi must be one of auto, gloo, nccl, sockets"),
        (
            ("cluster=processes", "cluster.backend=nccl"),
            "cluster.backend=nccl needs device=cuda, not device=cpu",
        ),
        (
            ("cluster=processes", "cluster.backend=gloo", "cluster.majority_of=present"),
            "cluster.majority_of=present needs cluster.backend=sockets: gloo bears no loss",
        ),
        (
            ("cluster=processes", "cluster.backend=sockets", "cluster.server_plays=true"),
            "cluster.server_plays=true needs cluster.backend=gloo or nccl",
        ),
        (
            ("cluster=processes", "cluster.server_plays=true", "cluster.majority_of=present"),
            "cluster.server_plays=true needs cluster.majority_of=all",
        ),
        (
            ("cluster=processes", "cluster.num_processes=17"),
            "cluster.num_processes=17 must lie between 2 and K+1=16",
        ),
        (
            ("cluster=processes", "cluster.num_processes=16", "cluster.backend=gloo",
             "cluster.server_plays=true"),
            "cluster.num_processes=16 must lie between 1 and K=15",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(cli, overrides, message):
    code, _, err = cli(*SMALL, *overrides)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1
