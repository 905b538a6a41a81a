"""Whether the hosts will run what runs here."""

import importlib.metadata
import zipfile
from pathlib import Path

import pytest
from test_ec2_plan import FACTS

import byzshield_exp
from byzshield_exp.launch.ec2.options import Options
from byzshield_exp.launch.ec2.plan import describe, plan
from byzshield_exp.launch.ec2.wheel import difference, with_torch

ROOT = Path(byzshield_exp.__file__).parents[1]
VERSION = importlib.metadata.version("byzshield_exp")
TORCH = f"torch=={importlib.metadata.version('torch').partition('+')[0]}"


@pytest.fixture
def wheel(tmp_path):
    """``wheel(change, name) -> path``: the package as it is here, but for a change."""

    def make(name: str | None = None, content: bytes | None = None) -> str:
        path = tmp_path / f"byzshield_exp-{VERSION}-py3-none-any.whl"
        sources = [*ROOT.glob("byzshield_exp/**/*.py"), *ROOT.glob("hydra_plugins/**/*.py")]
        files = {str(source.relative_to(ROOT)): source.read_bytes() for source in sources}
        if name is not None:
            files |= {name: content or b""}
        if content is None:
            files.pop(name or "", None)
        with zipfile.ZipFile(path, "w") as archive:
            for member, data in files.items():
                archive.writestr(member, data)
            archive.writestr("byzshield_exp/conf/config.yaml", "")
            archive.writestr(f"byzshield_exp-{VERSION}.dist-info/RECORD", "")
        return str(path)

    return make


@pytest.mark.parametrize("name", ["byzshield_exp/train.py", "byzshield_exp/of_yesterday.py"])
def test_a_wheel_of_other_code_is_told(wheel, name):
    assert difference(wheel()) is None
    assert difference(wheel(name, b"print()")) == f"{name} differ from what runs here"


def test_a_wheel_without_new_code_is_told(wheel):
    assert difference(wheel("byzshield_exp/votes/__init__.py")) == (
        "byzshield_exp/votes/__init__.py differ from what runs here"
    )


def test_a_wheel_that_is_none_or_elsewhere_is_told(tmp_path):
    (tmp_path / "a.whl").write_bytes(b"no archive")
    for name in ("a.whl", "none.whl"):
        assert "cannot be read" in str(difference(str(tmp_path / name)))
    assert difference(f"s3://bucket/byzshield_exp-{VERSION}-py3-none-any.whl") is None
    told = f"it is not of version {VERSION}, which runs here"
    assert difference("s3://bucket/byzshield_exp-0.0.1-py3-none-any.whl") == told
    assert difference("s3://bucket/mine.whl") == told


def test_the_plan_warns_of_an_old_wheel(wheel):
    def text(path: str) -> str:
        options = Options(
            transport="ssh", ssh_from="203.0.113.7/32", ssh_key="key", wheel=path, max_usd=9.0
        )
        return describe(plan(options, FACTS))

    assert "warning" not in text(wheel())
    path = wheel("byzshield_exp/train.py", b"pass")
    assert f"warning: wheel={path}: byzshield_exp/train.py differ" in text(path)


@pytest.mark.parametrize(
    ("given", "there"),
    [
        (("--extra-index-url", "https://host/cpu"), True),
        (("torchvision==0.20",), True),
        (("torch-geometric",), True),
        (("torch==2.6.0",), False),
        (("torch",), False),
        (("torch>=2.6",), False),
    ],
)
def test_the_hosts_get_the_torch_of_this_machine(given, there):
    assert with_torch(given) == ((*given, TORCH) if there else given)


def test_a_torch_that_was_never_released_is_not_asked_for(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.9.0a0+git1")
    assert with_torch(()) == ()


def test_user_data_installs_that_torch():
    options = Options(
        transport="ssh", ssh_from="203.0.113.7/32", ssh_key="key", wheel="a.whl", max_usd=9.0
    )
    assert f" {TORCH} " in plan(options, FACTS).user_data
