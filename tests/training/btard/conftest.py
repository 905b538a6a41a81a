import pytest
from running import metrics_of


@pytest.fixture
def peers(run, tmp_path):
    """Do a small run of peers: ``peers(*overrides) -> (summary, records)``."""
    count = 0

    def call(*overrides: str, folder=None):
        nonlocal count
        count += 1
        target = folder or tmp_path / f"peers{count}"
        options = ("approach=btard", "K=7", "q=2", "batch_size=28", *overrides)
        return run(*options, folder=target), metrics_of(target)

    return call
