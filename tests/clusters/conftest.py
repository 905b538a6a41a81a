"""Fixtures of the tests of transports."""

import contextlib
import os
import signal
import time
import uuid

import pytest
from disturbing import HONEST, PROGRAM, Started, processes_with
from running import run_program, summary_of
from socket_table import Table


@pytest.fixture
def table():
    """``table(...)`` makes a server with peers that are played by the test."""
    tables = []

    def make(*args, **options):
        tables.append(Table(*args, **options))
        return tables[-1]

    yield make
    for made in tables:
        made.close()


@pytest.fixture
def start(tmp_path):
    """Start a run; at the end of the test none of its processes may be left."""
    mark = f"BYZ_TEST_{uuid.uuid4().hex}"
    started = []

    def call(*overrides, count=4, prefix=PROGRAM, env=None, folder=tmp_path / "run"):
        started.append(Started(folder, overrides, count, prefix, mark, env))
        return started[-1]

    yield call
    for run in started:
        with contextlib.suppress(ProcessLookupError):
            run.process.kill()  # after a failure it still runs
        run.process.wait()
    for pid in processes_with(mark):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    deadline = time.monotonic() + 30
    while (left := processes_with(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """The hash of the parameters of ``HONEST`` runs, by number of steps."""
    known = {}

    def of(steps):
        if steps not in known:
            folder = tmp_path_factory.mktemp("undisturbed")
            done = run_program(*HONEST, steps, f"output_dir={folder}")
            assert done.returncode == 0, done.stderr
            known[steps] = summary_of(folder)["parameters_sha256"]
        return known[steps]

    return of
