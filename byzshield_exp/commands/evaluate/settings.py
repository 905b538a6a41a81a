"""Read the settings of an evaluation from a command line."""

from dataclasses import dataclass
from pathlib import Path

from byzshield_exp.commands.arguments import read_keys, seconds
from byzshield_exp.errors import ConfigError

KEYS = {
    "run": (), "follow": ("true", "false"), "every": (), "timeout": (), "output": (),
    "device": ("cpu", "cuda"), "dataset.root": (),
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """What to evaluate.

    Attributes:
        run: the run's folder; only read, unless ``output`` is the same.
        output: the folder for the results.
        follow: whether to wait for checkpoints until the run is finished.
        every: seconds between two looks at the folder.
        timeout: seconds without anything new after which to give up; None: never.
        device: torch's device; None: the run's own.
        root: folder of the data set; None: the run's own.
    """

    run: Path
    output: Path
    follow: bool = False
    every: float = 2.0
    timeout: float | None = None
    device: str | None = None
    root: str | None = None


def settings_of(arguments: list[str]) -> Settings:
    """Read the settings of a command line.

    Raises:
        ConfigError: for the first argument that is wrong.
    """
    given = read_keys(arguments, KEYS)
    if "run" not in given:
        raise ConfigError("run is not given: the folder of a run")
    return Settings(
        run=Path(given["run"]),
        output=Path(given.get("output", given["run"])),
        follow=given.get("follow") == "true",
        every=seconds("every", given.get("every", "2")),
        timeout=seconds("timeout", given["timeout"]) if "timeout" in given else None,
        device=given.get("device"),
        root=given.get("dataset.root"),
    )
