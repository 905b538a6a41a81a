"""The server's end of the sockets: what it takes, what it rejects."""

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from socket_table import FLOAT, SIZE, answer, row_of

from byzshield_exp.clusters.sockets.hub import Hub
from byzshield_exp.clusters.sockets.wire import (
    DTYPES,
    HEADER_BYTES,
    Header,
    Kind,
    unpack,
)


def test_rows_of_all_arrive_in_their_places(table):
    at = table(reads_digests=False)
    for rank in (1, 2, 3):
        at.send(rank, *at.messages(rank))
    inbox = at.gather()
    for file in range(25):
        assert all(torch.equal(row, row_of(file)) for row in inbox.replicas[file])
        assert len({row.data_ptr() for row in inbox.replicas[file]}) == 1
    assert inbox.absent == ()
    assert inbox.rejected == 0
    assert float(inbox.losses.min()) == float(inbox.losses.max()) == 0.25
    files, rows = at.deliver({file: [0, 1, 2] for file in range(25) if file != 3})
    assert files == [file for file in range(25) if file != 3]
    assert all(torch.equal(row, row_of(file)) for file, row in zip(files, rows, strict=True))


def test_a_row_is_fetched_once_as_soon_as_a_majority_says_it(table):
    at = table()
    at.send(1, *at.messages(1))
    at.send(2, *at.messages(2))
    inbox = at.gather()  # rank 3 is silent
    assert inbox.absent == tuple(at.server.seats.workers_of(3))
    assert "rank 3 (workers 10 to 14) is silent" in at.server.events[0]
    asked = [at.asked(1), at.asked(2)]
    files = [header.file for headers in asked for header in headers]
    both = [f for f in range(25) if sum(r is not None for r in inbox.replicas[f]) >= 2]
    assert sorted(files) == both  # nobody has to wait for the rest
    assert abs(len(asked[0]) - len(asked[1])) <= 1


def test_a_row_unlike_its_digest_is_caught_and_fetched_from_the_next(table):
    at = table()
    for rank in (1, 2, 3):
        at.send(rank, *at.messages(rank))
    at.gather()
    answer(at, 1, row=lambda file: row_of(file) + 1)
    with at.answering(2, 3):
        files, rows = at.deliver({file: [0, 1, 2] for file in range(25)})
    assert files == list(range(25))
    assert all(torch.equal(row, row_of(file)) for file, row in zip(files, rows, strict=True))
    assert any(
        "sent another row for file" in event and "caught" in event for event in at.server.events
    )


@pytest.mark.slow
def test_a_false_row_is_asked_for_again_while_others_are_waited_for(table):
    """The next worker is asked at once, not when a silent rank's time is over."""
    at = table(timeout=5.0)
    for rank in (1, 2, 3):
        at.send(rank, *at.messages(rank))
    at.gather()
    answer(at, 1, row=lambda file: row_of(file) + 1)
    answer(at, 2)  # rank 3 hangs
    at.pump(0.1)
    holders = at.assignment.workers_of_file.tolist()
    wanted = {file: holders[file] for file in range(25)}
    over = {one.file: one for one in at.server.fetch(wanted)}
    false = [file for file, one in over.items() if at.server.seats.rank_of[one.worker] == 1]
    assert false
    assert len(over) < 25
    at.server.fetch({file: [w for w in wanted[file] if w != over[file].worker] for file in false})
    assert {header.file for rank in (2, 3) for header in at.asked(rank)} >= set(false)


def test_a_late_digest_asks_nobody_once_winners_are_delivered(table):
    """Whom it would ask may have been caught already."""
    at = table(timeout=0.3)
    at.send(1, *at.messages(1))
    inbox = at.gather()  # ranks 2 and 3 are silent: no file has a majority
    for rank in (2, 3):
        at.send(rank, *at.messages(rank))
    at.pump(0.2)
    assert all(replica is not None for of_file in inbox.replicas for replica in of_file)
    assert not [header for rank in (1, 2, 3) for header in at.asked(rank)]


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_member_that_does_not_deliver_is_replaced(table, rank):
    at = table(timeout=0.3)
    others = [other for other in (1, 2, 3) if other != rank]
    for sender in (1, 2, 3):
        at.send(sender, *at.messages(sender))
    at.gather()
    for other in others:
        answer(at, other)
    first = at.asked(rank)[0]  # hangs in the middle of a row
    at.send(rank, at.row(rank, first.worker, first.file, row_of(first.file))[: HEADER_BYTES + 40])
    with at.answering(*others):
        files, rows = at.deliver({file: [0, 1, 2] for file in range(25)})
    assert files == list(range(25))
    assert all(torch.equal(row, row_of(file)) for file, row in zip(files, rows, strict=True))
    told = [event for event in at.server.events if "is silent" in event]
    assert len(told) == 1
    assert f"rank {rank} (workers " in told[0]


@pytest.mark.parametrize("liar", [1, 2, 3])
def test_a_liar_who_calls_honest_rows_not_finite_wins_nothing(table, liar):
    """Whether a row is finite belongs to the replica: the class of the honest is of one mind."""
    at = table(timeout=1.0)
    others = [rank for rank in (1, 2, 3) if rank != liar]
    for rank in others:
        at.send(rank, *at.messages(rank))
    for message in at.messages(liar)[:-1]:
        header, said = unpack(message[:HEADER_BYTES]), message[HEADER_BYTES:]
        at.send(liar, replace(header, finite=False).pack(), said)
    at.send(liar, at.messages(liar)[-1])
    inbox = at.gather()
    classes = at.win(inbox)
    assert list(classes) == list(range(25))
    with at.answering(*others):
        files, rows = at.deliver(classes)
    assert files == list(range(25))
    assert all(torch.equal(row, row_of(file)) for file, row in zip(files, rows, strict=True))
    assert at.caught == set()


def test_what_was_fetched_for_a_file_without_a_winner_is_forgotten(table):
    """What it was, true or not, changes nothing when it comes."""
    at = table(timeout=0.3)
    for rank in (1, 2, 3):
        at.send(rank, *at.messages(rank))
    at.gather()
    files, _ = at.deliver({})  # a vote of the user's own finds no winner
    assert files == []
    answer(at, 1, row=lambda file: row_of(file) + 1)
    for rank in (2, 3):
        answer(at, rank)
    at.pump(0.1)
    assert at.caught == set()
    assert at.server.events == []
    at.server.publish(5, torch.zeros(SIZE))
    assert at.server._reception.owed == {1: 5, 2: 5, 3: 5}


def test_a_lost_peer_costs_its_replicas_only(table):
    at = table(reads_digests=False)
    at.send(1, *at.messages(1))
    at.send(2, *at.messages(2))
    at.send(3, at.messages(3)[0][:30])
    at.ends[3].close()
    inbox = at.gather()
    assert inbox.absent == tuple(at.server.seats.workers_of(3))
    assert any("lost rank 3 (workers 10 to 14) for the rest" in event for event in at.server.events)


def test_a_late_peer_is_back_at_the_step_after_its_answer(table):
    at = table(reads_digests=False, timeout=0.2)
    at.send(1, *at.messages(1))
    at.send(2, *at.messages(2))
    late = b"".join(at.messages(3))
    at.ends[3].sendall(late[:5000])
    at.gather()
    at.server.publish(5, torch.zeros(SIZE))
    for rank in (1, 2):
        at.send(rank, *at.messages(rank, step=5))
    at.ends[3].sendall(late[5000:])
    inbox = at.gather(5)
    assert inbox.absent == tuple(at.server.seats.workers_of(3))
    at.pump(0.1)
    assert any("answers again" in event for event in at.server.events)
    at.server.publish(6, torch.zeros(SIZE))
    for rank in (1, 2, 3):
        at.send(rank, *at.messages(rank, step=6))
    inbox = at.gather(6)
    assert inbox.absent == ()
    assert inbox.rejected == 0
    assert all(torch.equal(row, row_of(24)) for row in inbox.replicas[24])


def test_what_came_before_the_deadline_is_read_after_it(table):
    at = table(timeout=0.1)
    for rank in (1, 2, 3):
        at.send(rank, *at.messages(rank))
    time.sleep(1.5)  # the server was busy, or its machine
    assert at.gather().absent == ()
    assert at.server.events == []


def test_a_pause_of_the_server_is_nobodys_silence(table, monkeypatch):
    at = table(timeout=0.5)
    select = at.hub._selector.select

    def select_after_a_pause(seconds):
        monkeypatch.setattr(at.hub._selector, "select", select)
        time.sleep(2)  # as SIGSTOP does it
        return []

    monkeypatch.setattr(at.hub._selector, "select", select_after_a_pause)
    with ThreadPoolExecutor(1) as pool:
        inbox = pool.submit(at.gather)
        time.sleep(2.2)  # all are as late as the server
        for rank in (1, 2, 3):
            at.send(rank, *at.messages(rank))
        assert inbox.result(10).absent == ()


def test_a_stop_of_this_process_between_two_looks_is_no_time_of_the_ranks():
    hub = Hub({})
    start = hub.now()
    time.sleep(1.5)  # as if it was stopped: it does not compute either
    assert not hub.pump(lambda: False, lambda: start + 0.1)
    assert 0.1 <= hub.now() - start < 1.0  # all of the wait was still to come
    until = time.thread_time() + 1.2
    while time.thread_time() < until:
        pass  # a step's own work is
    hub.pump(lambda: False, lambda: start)
    assert hub.now() - start > 1.0


def test_a_peer_that_reads_nothing_is_sent_nothing_more(table):
    size = 1_000_000
    at = table(timeout=0.2, size=size)
    peer = at.hub.peers[3]
    waiting = sum(len(part) for part in peer.outbox)
    assert waiting > 0
    at.send(3, at.messages(3)[-1])  # it says that it is done with an order that it has not read
    for rank in (1, 2):
        threading.Thread(target=read_all, args=(at.ends[rank],), daemon=True).start()
        at.send(rank, at.messages(rank)[-1])
    at.gather()
    at.pump(5, lambda: not at.hub.peers[1].outbox and not at.hub.peers[2].outbox)
    assert at.server._reception.owed == {}
    at.server.publish(5, torch.zeros(size))
    assert at.server._reception.owed == {1: 5, 2: 5}
    assert sum(len(part) for part in peer.outbox) <= waiting


def read_all(end):
    with contextlib.suppress(OSError):
        while end.recv(1 << 20):
            pass


WRONG = {
    "step": lambda m: replace(m, step=5),
    "an older step": lambda m: replace(m, step=3),
    "run": lambda m: replace(m, run=2),
    "sender": lambda m: replace(m, sender=2),
    "worker": lambda m: replace(m, worker=7),
    "no such worker": lambda m: replace(m, worker=2**31),
    "file": lambda m: replace(m, file=23),
    "no such file": lambda m: replace(m, file=2**32 - 1),
    "kind": lambda m: replace(m, kind=Kind.ORDER),
    "hello": lambda m: replace(m, kind=Kind.HELLO),
    "check": lambda m: replace(m, kind=Kind.CHECK),
    "dtype": lambda m: replace(m, dtype=DTYPES[torch.float64]),
    "another kind of replica": lambda m: replace(m, kind=Kind.DIGEST),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_a_wrong_message_is_rejected_counted_and_told(table, change):
    at = table(reads_digests=False)
    for rank in (2, 3):
        at.send(rank, *at.messages(rank))
    good = at.messages(1)
    header, content = unpack(good[0][:HEADER_BYTES]), good[0][HEADER_BYTES:]
    at.send(1, change(header).pack(), content, *good[1:])
    inbox = at.gather()
    assert inbox.rejected == 1
    assert [event for event in at.server.events if "rejected a message of rank 1" in event]
    missing = [row for rows in inbox.replicas for row in rows if row is None]
    assert len(missing) == 1
    assert inbox.absent == ()


@pytest.mark.parametrize("size", [0, 1, SIZE - 1, SIZE + 1])
def test_a_row_of_another_size_is_rejected(table, size):
    at = table(reads_digests=False)
    good = at.messages(1)
    at.send(1, at.row(1, 0, 0, torch.ones(size)), *good[1:])
    at.pump(0.5, lambda: 1 not in at.server._reception.owed)
    assert at.server._reception.inbox.rejected == 1
    assert f"length={4 * size} instead of {4 * SIZE}" in at.server.events[0]


def test_a_replica_counts_once(table):
    at = table(reads_digests=False)
    good = at.messages(1)
    at.send(1, good[0], at.row(1, 0, 0, torch.ones(SIZE)), *good[1:])
    at.pump(0.5, lambda: 1 not in at.server._reception.owed)
    assert "worker=0 file=0: twice" in at.server.events[0]
    assert torch.equal(at.server._reception.inbox.replicas[0][0], row_of(0))


@pytest.mark.parametrize(
    "noise", [b"\x00" * 500, np.random.default_rng(0).bytes(5000), b"GET / HTTP/1.1\r\n" * 20]
)
def test_random_bytes_end_one_connection_only(table, noise):
    at = table(reads_digests=False)
    for rank in (1, 2):
        at.send(rank, *at.messages(rank))
    at.send(3, noise)
    inbox = at.gather()
    assert inbox.absent == tuple(at.server.seats.workers_of(3))
    assert any("it sent bytes that are no message" in event for event in at.server.events)


def test_an_announced_giant_ends_its_connection(table):
    at = table(reads_digests=False)
    at.send(3, Header(Kind.ROW, 1, 3, 10, 0, 4, 2**60, FLOAT).pack())
    for rank in (1, 2):
        at.send(rank, *at.messages(rank))
    assert at.gather().absent == tuple(at.server.seats.workers_of(3))
    assert any("a message of 1,152,921,504,606,846,976 bytes" in e for e in at.server.events)
