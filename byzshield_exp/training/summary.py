"""What a summary says of a run, whatever its protocol."""

import platform
from importlib.metadata import version
from typing import Any

from byzshield_exp.attacks import shares
from byzshield_exp.networks import parameters_sha256
from byzshield_exp.training.experiment import Experiment


def facts_of(experiment: Experiment, steps: int) -> dict[str, Any]:
    """Sizes, the worst case, who lied last, hashes of what was learned, and versions.

    Args:
        experiment: as it is after the run.
        steps: that were done.
    """
    lies = experiment.forge is not None or bool(experiment.cheats)
    liars = experiment.choose.last_set(max(1, steps)) if lies else ()
    return {
        "num_parameters": len(experiment.params),
        "num_corrupt": experiment.num_corrupt,
        "epsilon_hat": experiment.epsilon_hat,
        "num_files": experiment.assignment.num_files,
        "byzantine": list(liars),
        **_attackers(experiment, liars),
        "parameters_sha256": parameters_sha256(experiment.params),
        "buffers_sha256": parameters_sha256(experiment.flat.statistics),
        "attack_effective": experiment.is_attack_effective,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "numpy", "byzshield_exp")},
        },
    }


def _attackers(experiment: Experiment, liars: tuple[int, ...]) -> dict[str, Any]:
    """Who made which of several attacks."""
    made = shares(experiment.forge, liars) if experiment.forge and liars else {}
    named = {name: list(workers) for name, (_, workers) in made.items()}
    return {"attackers": named} if len(named) > 1 else {}
