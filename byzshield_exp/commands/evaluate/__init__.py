"""``byzshield evaluate``: evaluates the checkpoints of a run, beside it or later.

    byzshield evaluate run=outputs/default
    byzshield evaluate run=outputs/default follow=true timeout=600

It reads the run's folder, which may be shared by machines and closed to writing, and appends a
line a checkpoint to evaluations.jsonl: test loss, top-1 and top-5 accuracy. What is there already
is not done again.

    run           the folder of a run, the one with config.yaml
    follow        true: wait for the run and its checkpoints until it is finished (false)
    every         seconds between two looks at the folder (2.0)
    timeout       seconds without anything new after which it ends with exit code 1 (none)
    output        the folder of the results (the run's)
    device        cpu or cuda (the run's)
    dataset.root  the folder of the data on this machine (the run's)
"""

from collections.abc import Sequence

from byzshield_exp.commands.arguments import asks_for_help, spelled
from byzshield_exp.commands.evaluate.settings import KEYS, settings_of
from byzshield_exp.commands.exits import exit_codes
from byzshield_exp.notices import say


def words(before: Sequence[str]) -> list[str]:
    """List what may come next, for tab completion."""
    return spelled(KEYS)


@exit_codes("the same command resumes")
def main(arguments: list[str]) -> None:
    """Evaluate the checkpoints of a run."""
    if not arguments or asks_for_help(arguments):
        say(__doc__ or "")
        return
    settings = settings_of(arguments)
    from byzshield_exp.commands.evaluate.follow import evaluate_run

    evaluate_run(settings)
