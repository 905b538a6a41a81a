"""Read what papers report: the values of their figures, and how these were obtained."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from byzshield_exp.commands.choices import paths

SCALES = ("smoke", "thin", "paper")
_PAPERS = ("byzshield", "detox", "l46", "btard")


@dataclass(frozen=True)
class PaperValue:
    """A published value in [0, 1]: one number, or the mean and the range of several."""

    mean: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class PaperFigure:
    """A figure of a paper.

    Attributes:
        name: as typed: ``fig02``, ``l46/mild``.
        group: the file it stands in, which is also a name for all of its figures.
        title: what it shows.
        experiment: the choice of ``experiment`` that has its curves.
        paper: the paper.
        obtained: how its values were obtained, and how accurate they are.
        digits: of a percentage, as obtained.
        measures: what was read off each curve: a name, and what it means.
        values: by curve and measure.
        phases: by curve, seconds of a step in each phase; empty but for a figure of these.
        scales: the choice of ``scale`` for each of ``SCALES``.
        curve_seconds: how long a curve takes on one core, by scale; missing where unknown.
        names: of schemes or curves, for people.
        remarks: by scale or ``all``: reasons for differences, of all figures and of this one.
    """

    name: str
    group: str
    title: str
    experiment: str
    paper: str
    obtained: str
    digits: int
    measures: dict[str, str]
    values: dict[str, dict[str, PaperValue]]
    phases: dict[str, dict[str, float]]
    scales: dict[str, str]
    curve_seconds: dict[str, float]
    names: dict[str, str]
    remarks: tuple[dict[str, str], dict[str, str]] = field(repr=False)

    @property
    def curves(self) -> tuple[str, ...]:
        """The curves to run: those of the experiment, or those with phases."""
        return tuple(self.phases) or _curves(self.experiment)

    @property
    def only(self) -> tuple[str, ...]:
        """The override that leaves the experiment's other curves out, if there are any."""
        is_part = len(self.curves) < len(_curves(self.experiment))
        return (f"hydra.sweeper.only=[{','.join(self.curves)}]",) if is_part else ()

    def label(self, curve: str) -> str:
        """Name a curve for people: ``ByzShield, q = 3``."""
        found = re.fullmatch(r"(\w+)_q(\d+)", curve)
        scheme, q = (found[1], f", q = {found[2]}") if found else (curve, "")
        return self.names.get(scheme, scheme) + q

    def differs(self, scale: str, of_all: bool = False) -> list[str]:
        """Say why this figure, or all of its paper, differs from the published one at a scale."""
        remarks = self.remarks[0 if of_all else 1]
        return [remarks[key] for key in ("all", scale) if key in remarks]


@cache
def figures() -> dict[str, PaperFigure]:
    """Read all figures, by name."""
    return {figure.name: figure for group in _PAPERS for figure in _figures(group)}


def _figures(group: str) -> Iterator[PaperFigure]:
    path = Path(__file__).with_name("papers") / f"{group}.yaml"
    said = yaml.safe_load(path.read_text(encoding="utf-8"))
    unit = said.pop("unit")
    common, names, entries = said.pop("differs"), said.pop("names"), said.pop("figures")
    for name, entry in entries.items():
        yield PaperFigure(
            name=name,
            group=group,
            title=entry["title"],
            experiment=entry["experiment"],
            values={
                curve: {measure: _reading(value, unit) for measure, value in found.items()}
                for curve, found in entry.get("values", {}).items()
            },
            phases=entry.get("phases", {}),
            names={**names, **entry.get("names", {})},
            remarks=(common, entry.get("differs", {})),
            **said,
        )


def _reading(value: float | list[float], unit: float) -> PaperValue:
    numbers = [number * unit for number in (value if isinstance(value, list) else [value])]
    return PaperValue(sum(numbers) / len(numbers), min(numbers), max(numbers))


def _curves(experiment: str) -> tuple[str, ...]:
    content: Mapping[str, Any] = yaml.safe_load(
        paths("experiment")[experiment].read_text(encoding="utf-8")
    )
    return tuple(content["hydra"]["sweeper"]["curves"])


def reads_files(figure: PaperFigure, scale: str) -> bool:
    """Whether its data set at this scale lies in a folder that ``dataset.root`` names."""
    content = yaml.safe_load(paths("scale")[figure.scales[scale]].read_text(encoding="utf-8"))
    dataset = next(
        entry["override /dataset"]
        for entry in content["defaults"]
        if isinstance(entry, dict) and "override /dataset" in entry
    )
    return "root" in yaml.safe_load(paths("dataset")[dataset].read_text(encoding="utf-8"))
