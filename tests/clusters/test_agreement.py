"""What ranks say of themselves before the first step."""

import contextlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from socket_table import SIZE, Table, mutations

from byzshield_exp.clusters.agreement import Agreement
from byzshield_exp.clusters.fingerprint import bit_entries, host_name
from byzshield_exp.clusters.introduction import MOST_INTRODUCTION, Introduction, explain
from byzshield_exp.clusters.sockets import server
from byzshield_exp.clusters.sockets.wire import (
    Header,
    Kind,
)
from byzshield_exp.errors import RunError

HERE = {"host": "home", "data": "d", "capability": "AVX2", "torch": "2"}


def check(at, rank, said, entries=HERE):
    said = said + entries if isinstance(entries, bytes) else Introduction(said, entries).pack()
    at.send(rank, Header(Kind.CHECK, 1, rank, length=len(said)).pack() + said)


def read(introduction):
    return Introduction.unpack(introduction.pack()).entries


def agree(at, entries=HERE):
    """What the protocol does before the first step."""
    at.agreement = Agreement(Introduction(bytes(32), entries))
    at.agreement.check(at.server, at.server.introduce(b""))


@pytest.mark.parametrize("is_odd", [False, True])
def test_a_rank_that_is_late_before_the_first_step(table, monkeypatch, is_odd):
    monkeypatch.setattr(server, "_START_S", 0.1)
    at = table(timeout=0.1, begins=False)
    check(at, 1, b"a" * 32)
    check(at, 2, b"a" * 32)
    agree(at)
    assert "rank 3 (workers 10 to 14) is silent for 0.1" in at.server.events[0]
    at.server.publish(4, torch.zeros(SIZE))
    assert at.server._reception.owed == {1: 4, 2: 4, 3: -1}
    for rank in (1, 2):
        at.send(rank, *at.messages(rank))
    inbox = at.gather()
    assert inbox.absent == tuple(at.server.seats.workers_of(3))
    assert list(at.win(inbox)) == list(range(25))
    check(at, 3, (b"b" if is_odd else b"a") * 32, {**HERE, "host": "away", "torch": "3"})
    at.pump(1, lambda: 3 not in at.server._reception.owed)
    at.server.publish(5, torch.zeros(SIZE))
    assert 3 not in at.server._reception.owed  # nobody has looked at what it said
    for rank in (1, 2):
        at.send(rank, *at.messages(rank, step=5))
    at.agreement.check_late(at.server, at.gather(5).introductions)
    at.server.publish(6, torch.zeros(SIZE))
    if is_odd:
        assert "it computed other bits for file 0 than the rest" in at.server.events[-1]
        assert "rank 3 on host away: torch=3 (server: 2)" in at.server.events[-1]
    else:
        assert "answers again" in at.server.events[-1]
    assert (3 in at.server._reception.owed) == (not is_odd)


def test_late_ranks_are_compared_with_those_that_were_there(table, monkeypatch):
    """However many are late together."""
    monkeypatch.setattr(server, "_START_S", 0.1)
    at = table(timeout=0.1, begins=False)
    check(at, 1, b"a" * 32)
    agree(at)
    for rank in (2, 3):
        check(at, rank, b"b" * 32)
    at.pump(1, lambda: not at.server._reception.owed)
    at.server.publish(4, torch.zeros(SIZE))
    at.send(1, *at.messages(1))
    at.agreement.check_late(at.server, at.gather().introductions)
    assert [peer.rank for peer in at.hub.alive] == [1]


def test_ranks_with_other_bits_are_named_before_the_first_step(table):
    at = table(begins=False)
    for rank, said in ((1, b"a"), (2, b"b"), (3, b"a")):
        check(at, rank, said * 32)
    with pytest.raises(RunError, match=r"ranks \[2\] computed other bits for file 0"):
        agree(at)


@pytest.mark.parametrize(
    ("others", "told"),
    [
        ({2: {"capability": "DEFAULT"}}, "rank 2 on host two: capability=DEFAULT (server: AVX2)"),
        ({1: {"torch": "3"}, 3: {"torch": "3"}}, "ranks 1, 3 on host one: torch=3 (server: 2)"),
        ({2: {"capability": ""}}, "rank 2 on host two: capability= (server: AVX2)"),
        ({}, "they are on two and state nothing else"),
    ],
)
def test_ranks_with_other_bits_say_on_which_host_and_why(table, others, told):
    """Where the odd rank is like the server, the others differ, and are told."""
    at = table(begins=False)
    for rank in (1, 2, 3):
        host = {"host": "two" if rank == 2 else "one"}
        check(at, rank, (b"b" if rank == 2 else b"a") * 32, HERE | host | others.get(rank, {}))
    with pytest.raises(RunError) as raised:
        agree(at)
    assert "ranks [2] computed other bits for file 0 than the rest" in str(raised.value)
    assert told in str(raised.value)
    assert "vote=tolerant" in str(raised.value)


def test_ranks_with_other_data_are_named_although_their_bits_agree(table):
    at = table(begins=False)
    for rank in (1, 2, 3):
        check(at, rank, b"a" * 32, HERE | {"data": "e"})
    with pytest.raises(RunError, match=r"ranks \[1, 2, 3\] read other data") as told:
        agree(at)
    assert "vote=tolerant" not in str(told.value)


@pytest.mark.parametrize("said", [b"host=\x1b[2J", "host=h\u00f6st".encode(), b"host=a\r", b"\x00"])
def test_who_introduces_itself_by_no_plain_text_is_sent_away(table, said):
    at = table(begins=False)
    check(at, 1, b"a" * 32, said)
    for rank in (2, 3):
        check(at, rank, b"a" * 32)
    agree(at)
    assert "it sent an introduction that is not printable ASCII" in at.server.events[0]
    assert not at.hub.peers[1].is_alive


def test_an_introduction_that_is_too_long_is_not_read(table, monkeypatch):
    monkeypatch.setattr(server, "_START_S", 0.1)
    at = table(timeout=0.1, begins=False)
    check(at, 1, b"a" * 32, b"x" * MOST_INTRODUCTION)
    for rank in (2, 3):
        check(at, rank, b"a" * 32)
    agree(at)
    assert "rejected a message of rank 1" in at.server.events[0]
    assert at.server._reception.owed == {1: -1}


def test_an_introduction_needs_a_whole_digest(table):
    at = table(begins=False)
    for rank in (1, 2, 3):
        check(at, rank, b"a" * (31 if rank == 1 else 32), b"")
    agree(at, {})
    assert "it sent an introduction of 31 bytes" in at.server.events[0]


@given(st.binary(max_size=MOST_INTRODUCTION + 10))
def test_any_bytes_are_an_introduction_or_rejected(content):
    with contextlib.suppress(ValueError):
        for name, value in Introduction.unpack(content).entries.items():
            assert (name + value).isascii()
            assert (name + value).isprintable()
            assert len(value) <= 64


@given(
    st.dictionaries(st.sampled_from(["cpu", "torch"]), st.text(max_size=100)),
    st.dictionaries(st.sampled_from(["cpu", "torch", "data"]), st.text("\x20=~a\n", max_size=100)),
)
def test_whatever_ranks_say_the_message_is_one_short_line(said, own):
    said, own = (read(Introduction(bytes(32), entries)) for entries in (said, own))
    message = explain(range(1, 30), dict.fromkeys(range(1, 40), said), own)
    assert message.isprintable()
    assert len(message) < 1200


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_first_words_do_anything_but_naming_their_sender(data):
    """Rank 1 says what it wants before the first step; the others say the same."""
    content = Introduction(b"a" * 32, HERE).pack()
    stream = Header(Kind.CHECK, 1, 1, length=len(content)).pack() + content
    said = mutations(data.draw, stream * data.draw(st.integers(1, 2)))
    before, server._START_S = server._START_S, 0.01
    at = Table(timeout=0.01, begins=False)
    at.send(1, said)
    try:
        for rank in (2, 3):
            check(at, rank, b"a" * 32)
        agree(at)
        ended = "ranks [1] "
    except RunError as error:
        ended = str(error)
    finally:
        server._START_S = before
        at.close()
    assert ended.startswith("ranks [1] ")
    assert ended.isprintable()
    assert at.agreement._said.keys() >= {2, 3}


def test_what_this_host_says_fits():
    entries = {"host": host_name(), **bit_entries("cpu")}
    assert {"cpu", "capability", "threads", "torch", "ATEN_CPU_CAPABILITY"} <= set(entries)
    assert read(Introduction(bytes(32), entries)) == entries


def test_somebody_has_to_answer_before_the_first_step(table, monkeypatch):
    monkeypatch.setattr(server, "_START_S", 0.1)
    with pytest.raises(RunError, match="no rank with workers answers before the first step"):
        agree(table(timeout=0.1, begins=False))
