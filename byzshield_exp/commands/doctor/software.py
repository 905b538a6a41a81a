"""Installed versions, and whether they meet the requirements."""

import platform
from importlib.metadata import PackageNotFoundError, distribution, requires, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from byzshield_exp.commands.doctor.finding import Finding

_TOLD = ("torch", "torchvision", "hydra-core", "omegaconf", "numpy", "byzshield_exp")
_ASKED = ("byzshield_exp", "torchvision", "hydra-core", "submitit")


def versions() -> Finding:
    """List the versions of the packages that matter most."""
    told = [f"python {platform.python_version()}"]
    told += [f"{name} {_installed(name) or 'missing'}" for name in _TOLD]
    return Finding("versions", "ok", ", ".join(told))


def requirements() -> Finding:
    """Check the requirements of this package and of those that are strictest about others."""
    problems = [problem for name in _ASKED for problem in _unmet(name)]
    if problems:
        return Finding("requirements", "problem", "; ".join(problems), "python -m pip install -e .")
    return Finding("requirements", "ok", f"met, of {', '.join(_ASKED)}")


def _unmet(name: str) -> list[str]:
    try:
        asked, python = requires(name) or [], distribution(name).metadata["Requires-Python"]
    except PackageNotFoundError:
        return [f"{name} is not installed"]
    problems = []
    if python and not SpecifierSet(python).contains(platform.python_version(), prereleases=True):
        problems.append(f"{name} needs python {python}, here is {platform.python_version()}")
    for requirement in map(Requirement, asked):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        here = _installed(requirement.name)
        if here is None:
            problems.append(f"{name} needs {requirement.name}, which is not installed")
        elif not requirement.specifier.contains(here, prereleases=True):
            wanted = f"{requirement.name}{requirement.specifier}"
            problems.append(f"{name} needs {wanted}, here is {here}")
    return problems


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
