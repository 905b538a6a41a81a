"""Files on a disk that fails now and then."""

import errno
import os
import random
import shutil

import pytest

from byzshield_exp.files import atomic_file, write_atomically
from byzshield_exp.results.journal import Journal, Outage

FULL = OSError(errno.ENOSPC, "No space left on device")


def records(count):
    return [f"record {number} {'x' * (number * 7 % 40)}\n".encode() for number in range(count)]


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_nothing_else(tmp_path):
    path = tmp_path / "sub" / "a"
    write_atomically(path, b"old")

    def fill():
        with atomic_file(path) as file:
            file.write(b"half")
            raise FULL

    with pytest.raises(OSError, match="No space"):
        fill()
    assert path.read_bytes() == b"old"
    assert [one.name for one in path.parent.iterdir()] == ["a"]


def test_two_may_write_a_shared_file_at_once(tmp_path):
    path = tmp_path / "new" / "file"
    with atomic_file(path, shared=True) as one:
        one.write(b"one")
        with atomic_file(path, shared=True) as other:
            other.write(b"other")
        assert path.read_bytes() == b"other"
    assert path.read_bytes() == b"one"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("seed", range(8))
def test_a_journal_on_a_failing_disk_has_every_record_once_in_order(tmp_path, monkeypatch, seed):
    """Writes that stop anywhere, fsyncs that fail, a file that is deleted, replaced or moved."""
    draw, pwrite, fsync = random.Random(seed), os.pwrite, os.fsync
    trouble = True

    def failing_pwrite(descriptor, content, offset):
        if trouble and draw.random() < 0.4:
            if draw.random() < 0.5:
                raise FULL
            content = content[: draw.randint(1, len(content))]
        return pwrite(descriptor, content, offset)

    def failing_fsync(descriptor):
        if trouble and draw.random() < 0.3:
            raise OSError(errno.EIO, "Input/output error")
        fsync(descriptor)

    monkeypatch.setattr(os, "pwrite", failing_pwrite)
    monkeypatch.setattr(os, "fsync", failing_fsync)
    path = tmp_path / "folder" / "journal"
    trouble = False
    journal, expected, outage = Journal(path, b"start\n"), [b"start\n"], Outage("it")
    trouble = True
    for record in records(200):
        journal.add(record)
        expected.append(record)
        if path.parent.exists() and draw.random() < 0.05:
            shutil.rmtree(path.parent) if draw.random() < 0.5 else path.unlink(missing_ok=True)
            continue
        if outage.attempt(0, draw.choice([journal.write, journal.write, journal.sync])):
            assert path.read_bytes() == b"".join(expected)
            assert journal.waiting == 0
        else:
            whole = path.read_bytes() if path.exists() else b""
            assert b"".join(expected).startswith(whole)
            assert not whole or whole.endswith(b"\n")
    trouble = False
    journal.close()
    assert path.read_bytes() == b"".join(expected)
    assert [one.name for one in path.parent.iterdir()] == ["journal"]


def test_a_journal_goes_on_in_the_file_it_held_open(tmp_path, capsys):
    path = tmp_path / "journal"
    journal = Journal(path)
    first, second, third, fourth = records(4)
    journal.add(first)
    journal.sync()
    journal.add(second)
    path.unlink()
    path.write_bytes(b"another file")
    journal.add(third)
    journal.write()
    path.rename(tmp_path / "moved")
    journal.add(fourth)
    journal.close()
    assert path.read_bytes() == first + second + third + fourth
    assert capsys.readouterr().err == ""


def test_a_journal_that_was_cut_says_what_is_lost(tmp_path, capsys):
    path = tmp_path / "journal"
    journal = Journal(path)
    first, second = records(2)
    journal.add(first)
    journal.sync()
    os.truncate(path, 3)
    journal.add(second)
    journal.close()
    assert path.read_bytes() == second
    assert "what it had up to now is lost" in capsys.readouterr().err


def test_a_journal_holds_few_records_in_memory(tmp_path):
    journal = Journal(tmp_path / "journal")
    for record in records(2500):
        journal.add(record)
        journal.write()
    assert len(journal._recent) < 1000
    journal.close()
    assert (tmp_path / "journal").read_bytes() == b"".join(records(2500))


def test_an_outage_is_two_lines(capsys):
    def fail():
        raise FULL

    outage = Outage("the checkpoint")
    assert [outage.attempt(step, call) for step, call in enumerate([list, fail, fail])] == [
        True, False, False,
    ]  # fmt: skip
    assert outage.error is FULL
    assert outage.attempt(7, list)
    assert outage.error is None
    begin, end = capsys.readouterr().err.splitlines()
    assert begin.startswith("warning: step 1: the checkpoint could not be written ([Errno 28] No")
    assert end == "warning: step 7: the checkpoint could be written again"
