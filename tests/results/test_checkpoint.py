"""Checkpoints: what is damaged is noticed and passed over, and the last good one is never lost."""

import random
from pathlib import Path

import pytest
import torch
from running import metrics_of, summary_of

from byzshield_exp.errors import ConfigError
from byzshield_exp.results import checkpoint

STATE = {
    "params": torch.linspace(-1, 1, 50),
    "statistics": torch.ones(4),
    "data": "0123",
    "optimizer": {"state": {0: {"momentum_buffer": torch.linspace(0, 1, 50)}}},
    "scheduler": {"last_epoch": 3},
    "state": {"worker_momentum": torch.linspace(0, 2, 150).view(3, 50)},
    "best_accuracy": 0.5,
    "diverged_at_step": None,
    "bytes_in": 7,
    "files_computed": [25.0],
    "config": "{}",
}


def save(folder: Path, step: int, keep: int = 100, **more) -> Path:
    return checkpoint.save(folder, step, {**STATE, "step": step}, keep, **more)


def damage(path: Path, seed: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[random.Random(seed).randrange(len(content))] ^= 1
    path.write_bytes(content)


def steps(folder: Path) -> list[int]:
    return [int(path.stem.removeprefix("step_")) for path in checkpoint.checkpoints(folder)]


def test_every_damage_is_noticed(tmp_path):
    """Flipped bits in every region, and the file cut short, emptied in the middle or prolonged."""
    path = save(tmp_path, 1)
    good, draw = path.read_bytes(), random.Random(0)
    assert str(checkpoint.load(path)) == str({**STATE, "step": 1})
    bad = []
    for begin in range(0, len(good), 4):
        flipped = bytearray(good)
        flipped[begin + draw.randrange(min(4, len(good) - begin))] ^= 1 << draw.randrange(8)
        bad.append(flipped)
    bad += [good[:end] for end in range(0, len(good), 97)]
    bad += [good[:end] + bytes(len(good) - end) for end in range(0, len(good), 512)]
    bad += [good + b"\n", good + good]
    for content in bad:
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="cannot be read"):
            checkpoint.load(path)


def test_a_bit_that_the_zip_does_not_protect_is_noticed(tmp_path):
    """The mark of a folder in the zip's directory: torch would leave the tensor as it finds it."""
    path = save(tmp_path, 1)
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02", content.rindex(b"PK\x07\x08"))
    while b"data/0" not in content[entry : entry + 80]:
        entry = content.index(b"PK\x01\x02", entry + 4)
    content[entry + 38] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="does not match its checksum"):
        checkpoint.load(path)


def test_the_newest_good_one_is_used(tmp_path):
    for step in (10, 20, 30):
        save(tmp_path, step)
    damage(tmp_path / "step_00000030.pt")
    (tmp_path / ".step_00000040.pt.partial").write_bytes(b"half")
    state, damaged, notes = checkpoint.newest(tmp_path)
    assert state["step"] == 20
    assert damaged == (tmp_path / "step_00000030.pt",)
    (note,) = notes
    assert "step_00000030.pt cannot be read" in note
    for step in (10, 20):
        damage(tmp_path / f"step_{step:08d}.pt")
    with pytest.raises(ConfigError, match=r"0030.pt cannot be read .*, nor can 2 older ones"):
        checkpoint.newest(tmp_path)
    assert checkpoint.newest(tmp_path / "none") == (None, (), ())


def test_damaged_ones_do_not_count_and_the_last_good_one_stays(tmp_path, monkeypatch):
    for step in (10, 20, 30, 40):
        save(tmp_path, step)
    for step in (30, 40):
        damage(tmp_path / f"step_{step:08d}.pt")
    damaged = checkpoint.newest(tmp_path).damaged

    def fail(descriptor):
        raise OSError("full")

    with monkeypatch.context() as broken:
        broken.setattr("os.fsync", fail)
        with pytest.raises(OSError, match="full"):
            save(tmp_path, 35, 1, damaged=damaged)
    assert steps(tmp_path) == [10, 20, 30, 40]
    assert not list(tmp_path.glob(".*"))
    save(tmp_path, 30, 2, damaged=damaged)
    assert steps(tmp_path) == [20, 30]
    assert checkpoint.newest(tmp_path).state["step"] == 30


def test_what_a_killed_process_left_is_removed(tmp_path):
    (tmp_path / ".step_00000007.pt.partial").write_bytes(b"half")
    save(tmp_path, 10)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000010.pt"]


def test_a_run_that_falls_back_ends_with_the_same_bits(cli, run, tmp_path):
    settings = ("steps=9", "checkpoint_every=2", "keep=4", "worker_momentum=0.5")
    whole = run(*settings, folder=tmp_path / "a")
    records = metrics_of(tmp_path / "a")
    newest = sorted((tmp_path / "a").glob("*/checkpoints/*.pt"))
    damage(newest[-1])
    newest[-2].write_bytes(newest[-2].read_bytes()[:-1000])
    (text,) = [path.parent.parent for path in newest[-1:]]
    code, out, err = cli(
        "dataset=synthetic", "network=mlp", "network.hidden=[16]", "eval_every=4",
        f"output_dir={tmp_path / 'a'}", *settings,
    )  # fmt: skip
    assert code == 0, err
    assert f"resumes after step 6: {text}" in out
    assert [line.split(" cannot")[0] for line in err.splitlines()] == [
        f"warning: the checkpoint {path}" for path in reversed(newest[-2:])
    ]
    again = summary_of(tmp_path / "a")
    assert again["parameters_sha256"] == whole["parameters_sha256"]
    assert again["final_test_accuracy"] == whole["final_test_accuracy"]
    for ours, theirs in zip(metrics_of(tmp_path / "a"), records, strict=True):
        assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}
    for path in sorted((tmp_path / "a").glob("*/checkpoints/*.pt")):
        assert checkpoint.load(path)
