"""Check that the hosts will run what runs here: the same code, the same torch."""

import importlib.metadata
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import byzshield_exp
from byzshield_exp.errors import first_line
from byzshield_exp.files import expand_user

_RELEASE = re.compile(r"[0-9]+(\.[0-9]+)+")


def difference(wheel: str) -> str | None:
    """Return how a wheel differs from the package that runs here; None if it does not.

    For a wheel in S3, only the version in its name is compared.
    """
    if wheel.startswith("s3://"):
        try:
            version = importlib.metadata.version("byzshield_exp")
        except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
            return None
        there = wheel.rpartition("/")[2].split("-")[1:2]
        return None if there == [version] else f"it is not of version {version}, which runs here"
    try:
        with zipfile.ZipFile(expand_user(wheel)) as content:
            changed = _changed_files(content, Path(byzshield_exp.__file__).parents[1])
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        return f"it cannot be read: {first_line(error)}"
    if not changed:
        return None
    more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
    return f"{changed[0]}{more} differ from what runs here"


def _changed_files(content: zipfile.ZipFile, root: Path) -> list[str]:
    """Return the package's files that differ, or exist on one side only."""
    here = {str(path.relative_to(root)) for path in (root / "byzshield_exp").rglob("*.py")}
    there = {name for name in content.namelist() if name.endswith(".py")}
    both = [name for name in there if (root / name).is_file()]
    differ = {name for name in both if content.read(name) != (root / name).read_bytes()}
    return sorted(differ | (here ^ there) - {*both})


def with_torch(pip_arguments: Sequence[str]) -> tuple[str, ...]:
    """Add the release of torch that runs here to arguments for pip, unless they name one."""
    version = importlib.metadata.version("torch").partition("+")[0]
    named = any(re.match(r"torch\b(?![-_.\w])", argument) for argument in pip_arguments)
    if named or not _RELEASE.fullmatch(version):
        return tuple(pip_arguments)
    return (*pip_arguments, f"torch=={version}")
