"""``byzshield best``: the best settings of sweeps, under the attack that is worst for each.

    byzshield best outputs over=optimizer.lr,worker_momentum worst=attack
    byzshield best FOLDER FOLDER over=optimizer.lr worst=attack,q by=approach

For all runs below the folders: of each combination of the settings ``over``, the mean accuracy over
seeds under the worst combination of the settings ``worst``. The highest is chosen, separately for
each combination of the other settings that vary. A run that diverged counts as 0. A setting whose
runs are not all finished is shown and not chosen. Then come the commands that run what was chosen,
with seeds that the choice has not seen, on the test set. It needs pandas.

    over          settings to choose, with commas between them
    worst         settings whose worst combination counts (none)
    by            settings to choose for separately (all others that vary, but the seed)
    metric        validation_accuracy, or test_accuracy: then the choice has seen the test set
    seeds         how many seeds the printed commands have (5)
    steps         how many steps (as the runs had)
    output_dir    their folder (outputs/best)
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byzshield_exp.commands.arguments import asks_for_help, read_keys, refuse_options, spelled
from byzshield_exp.commands.exits import exit_codes
from byzshield_exp.errors import ConfigError
from byzshield_exp.notices import aligned, say, warn

if TYPE_CHECKING:
    from byzshield_exp.report.best import Candidate, Criterion, Selection
    from byzshield_exp.results.loading import Runs

_METRICS = ("validation_accuracy", "test_accuracy")
_OTHERWISE = {
    "validation_accuracy": "give the runs dataset.num_validation=..., or choose by the test set "
    "with metric=test_accuracy",
    "test_accuracy": "they hold pictures out, so choose by these",
}
_KEYS = {
    "over": (), "worst": (), "by": (), "metric": _METRICS, "seeds": (), "steps": (),
    "output_dir": (),
}  # fmt: skip
_NO_COMMAND = "its runs are too old to have kept their command"


def words(before: Sequence[str]) -> list[str]:
    """List what may come next, for tab completion; the shell offers folders."""
    return spelled(_KEYS)


@exit_codes()
def main(arguments: list[str]) -> int:
    """Choose, and print the tables and commands; returns 1 where nothing can be chosen.

    Raises:
        ConfigError: for bad input, or folders without runs.
    """
    if not arguments or asks_for_help(arguments):
        say(__doc__ or "")
        return 0
    refuse_options(arguments)
    folders = [one for one in arguments if _is_folder(one)]
    given = read_keys((one for one in arguments if one not in folders), _KEYS)
    if not folders:
        raise ConfigError("no folder of runs is given: byzshield best outputs over=...")
    seeds, steps = _count("seeds", given.get("seeds", "5")), given.get("steps")
    length = None if steps is None else _count("steps", steps)
    found = _loaded(folders)
    what = _criterion(found, given)
    from byzshield_exp.report.again import commands_again
    from byzshield_exp.report.best import choose

    selections = choose(found.runs, what)
    say(_headline(what))
    for selection in selections:
        say("")
        _show(selection, what)
        for one in selection.chosen[:1]:
            output_dir = given.get("output_dir", "outputs/best")
            commands = commands_again(one, what, seeds, length, output_dir)
            say("with new seeds, on the test set:" if commands else _NO_COMMAND)
            for command in commands:
                say(f"    {command}")
    return 0 if all(selection.chosen for selection in selections) else 1


def _is_folder(argument: str) -> bool:
    return "=" not in argument or (
        argument.partition("=")[0] not in _KEYS and Path(argument).is_dir()
    )


def _count(key: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"{key}={text} must be a whole number of at least 1")
    return int(text)


def _loaded(folders: Sequence[str]) -> "Runs":
    try:
        from byzshield_exp.results import load

        return load(folders)
    except ImportError as error:  # of pandas
        raise ConfigError(str(error).replace("load needs", "best needs")) from error


def _criterion(found: "Runs", given: dict[str, str]) -> "Criterion":
    """Read what is asked for, and compare it with the runs that there are."""
    from byzshield_exp.report.best import criterion

    lists = {key: given[key].split(",") for key in ("over", "worst", "by") if key in given}
    vary = f"what varies is {', '.join(found.varied) or 'nothing'}"
    if "over" not in lists:
        raise ConfigError(f"over is not given: the settings to choose; {vary}")
    taken: set[str] = set()
    for key, names in lists.items():
        for name in names:
            if name not in found.runs:
                raise ConfigError(f"{key}={given[key]}: no run has a setting {name}; {vary}")
            if name in taken or name == "seed":
                twice = "the mean is over seeds" if name == "seed" else "it is given twice"
                raise ConfigError(f"{key}={given[key]}: {name} cannot be taken, {twice}")
            taken.add(name)
    metric = given.get("metric", _METRICS[0])
    if not found.runs[metric].notna().any():
        raise ConfigError(f"no finished run has a {metric.replace('_', ' ')}: {_OTHERWISE[metric]}")
    if metric == "test_accuracy":
        warn("metric=test_accuracy: what is chosen by the test set looks better there than it is")
    return criterion(found.varied, lists["over"], lists.get("worst", ()), lists.get("by"), metric)


def _headline(what: "Criterion") -> str:
    parts = [what.metric.replace("_", " ")]
    if what.averaged:
        parts.append(f"mean over {', '.join(what.averaged)}")
    if what.worst:
        parts.append(f"under the worst {', '.join(what.worst)}")
    return ", ".join(parts)


def _show(selection: "Selection", what: "Criterion") -> None:
    """Print the table of a case, and what was chosen."""
    from byzshield_exp.report.best import named, spelled_value

    if selection.case:
        say(named(selection.case))
    best = selection.chosen
    worst = f"worst {' '.join(what.worst)}" if what.worst else ""
    rows = [["", *what.over, *([worst] if worst else []), "accuracy", "runs"]]
    for one in selection.candidates:
        said = [" or ".join(map(_values, one.worst)) or "-"] if worst else []
        values = [spelled_value(one.settings[key]) for key in what.over]
        rows.append(["*" if one in best else "", *values, *said, _accuracy(one), _runs(one)])
    for line in aligned(rows):
        say(line)
    for one in selection.candidates:
        if one.lacking:
            more = f", and {len(one.lacking) - 3} more" if len(one.lacking) > 3 else ""
            say(f"not chosen, {named(one.settings)}: {'; '.join(one.lacking[:3])}{more}")
    if not best:
        say("nothing can be chosen: every setting lacks runs")
    else:
        tie = f", and {len(best) - 1} more with the same: the first is taken" if best[1:] else ""
        say(f"best: {named(best[0].settings)}{tie}")


def _values(point: Mapping[str, Any]) -> str:
    from byzshield_exp.report.best import spelled_value

    return " ".join(map(spelled_value, point.values()))


def _accuracy(one: "Candidate") -> str:
    if one.lacking:
        return "-"
    span = f" ({one.low:.4f} to {one.high:.4f})" if one.count > 1 else ""
    return f"{one.value:.4f}{span}"


def _runs(one: "Candidate") -> str:
    diverged = f", {one.diverged} diverged" if one.diverged else ""
    lacking = f", {len(one.lacking)} lacking" if one.lacking else ""
    return f"{len(one.runs)}{diverged}{lacking}"
