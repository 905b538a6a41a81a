"""List what can be reproduced, and how long it takes."""

from collections.abc import Mapping, Sequence

from byzshield_exp.commands.arguments import near
from byzshield_exp.commands.reproduce.published import SCALES, PaperFigure, figures, reads_files
from byzshield_exp.errors import ConfigError

TABLES = {f"table{number}": number for number in range(3, 7)}
_ABOUT = """\
scale=thin and scale=paper, and l46 at any scale, need dataset.root=FOLDER. Times are for one core;
hydra.launcher.runs=2 does two runs side by side. {unknown} means that it was not measured: a GPU.
Groups: {groups}."""


def names() -> dict[str, list[str]]:
    """Return what each name stands for: every figure and table, and groups of them."""
    single = {name: [name] for name in [*TABLES, *figures()]}
    groups = {"tables": [*TABLES], "byzshield": [*TABLES]}
    for figure in figures().values():
        groups.setdefault(figure.group, []).append(figure.name)
    return single | groups | {"all": [*single]}


def named(text: str) -> list[str]:
    """Return the figures and tables that a list of names means, each once.

    Raises:
        ConfigError: for a name that nothing has.
    """
    known, wanted = names(), []
    for name in (one.removeprefix("byzshield/") for one in text.split(",")):
        if name not in known:
            hint = near(name, known) or ", byzshield reproduce list has them all"
            raise ConfigError(f"{name}: no figure or table of that name{hint}")
        wanted += known[name]
    return list(dict.fromkeys(wanted))


def check_data(wanted: Sequence[str], scale: str, given: Mapping[str, str]) -> None:
    """Refuse figures whose data would not be found.

    Raises:
        ConfigError: if one reads files and ``dataset.root`` is missing.
    """
    lacking = (
        [] if "dataset.root" in given else [name for name in wanted if needs_root(name, scale)]
    )
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise ConfigError(
            f"{lacking[0]}{more} at scale={scale}: give the folder of the data, dataset.root=FOLDER"
        )


def needs_root(name: str, scale: str) -> bool:
    """Whether the runs of a figure read files, so that ``dataset.root`` is theirs too."""
    return name in figures() and reads_files(figures()[name], scale)


def contents() -> str:
    """Return a table of all figures and tables."""
    from byzshield_exp.distortion.papers import TABLES as PRINTED
    from byzshield_exp.distortion.report import columns

    seconds = ["-", "seconds", "", ""]
    lines = [[f"table{table.number}", table.title, *seconds] for table in PRINTED]
    for figure in figures().values():
        times = [_time(figure, scale) for scale in SCALES]
        lines.append([figure.name, figure.title, str(len(figure.curves)), *times])
    groups = ", ".join(name for name in names() if name not in {line[0] for line in lines})
    about = _ABOUT.format(unknown="?", groups=groups)
    return "\n".join([columns(["name", "what", "runs", *SCALES], lines), "", about])


def _time(figure: PaperFigure, scale: str) -> str:
    """Estimate the time of one seed's runs."""
    from byzshield_exp.launch.manifest import duration

    seconds = figure.curve_seconds.get(scale)
    return "?" if seconds is None else duration(seconds * len(figure.curves))
