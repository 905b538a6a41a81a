"""Run the sweep of a figure as the command line does, and read its runs."""

import sys

from byzshield_exp.commands import application, run
from byzshield_exp.commands.reproduce.comparison import Comparison
from byzshield_exp.commands.reproduce.contents import needs_root
from byzshield_exp.commands.reproduce.measured import measured
from byzshield_exp.commands.reproduce.published import PaperFigure


def done(figure: PaperFigure, scale: str, overrides: tuple[str, ...]) -> tuple[Comparison, int]:
    """Do the runs of a figure that are not finished.

    Args:
        figure: which.
        scale: one of ``SCALES``.
        overrides: of the command line, for all runs.

    Returns:
        The comparison with the paper, and the exit code of the sweep.
    """
    passed = [
        one
        for one in overrides
        if needs_root(figure.name, scale) or not one.startswith("dataset.root=")
    ]
    application.swept.clear()
    typed = sys.argv
    sys.argv = [typed[0]]  # Hydra reads what follows
    try:
        code = run.main(
            [
                f"experiment={figure.experiment}",
                f"scale={figure.scales[scale]}",
                *figure.only,
                *passed,
            ]
        )
    finally:
        sys.argv = typed
    runs = tuple(measured(curve, folder) for curve, folder in dict.fromkeys(application.swept))
    return Comparison(figure, scale, runs), code
