import pytest
from own_network import USERS
from running import modules_in


@pytest.fixture
def network(tmp_path, monkeypatch):
    """A network of the user's own, here and in processes started from here."""
    (tmp_path / "users_network.py").write_text(USERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, value in modules_in(tmp_path).items():
        monkeypatch.setenv(name, value)
    import users_network

    return users_network.network
