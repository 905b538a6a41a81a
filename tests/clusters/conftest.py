"""Fixtures of the tests of transports."""

import pytest
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
