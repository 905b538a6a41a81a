"""Running statistics for whoever evaluates."""

from torch.optim.swa_utils import update_bn

from byzshield_exp.streams import Stream, generator, torch_seeded
from byzshield_exp.training.experiment import Experiment

_FILES = 16  # at most: their samples estimate a mean and a variance


def refresh_statistics(experiment: Experiment, step: int) -> None:
    """Compute the network's running statistics from public files at its parameters.

    Args:
        experiment: its network is changed; nothing is done where there are no statistics.
        step: whose files are taken.
    """
    if len(experiment.flat.statistics) == 0:
        return
    files = range(min(experiment.assignment.num_files, _FILES))
    batches, dataset = experiment.batches, experiment.dataset
    pictures = (
        dataset.train_batch(batches.file(step, file), batches.random(step, file))[0]
        for file in files
    )
    with torch_seeded(generator(experiment.seed, Stream.DROPOUT, step), experiment.params.device):
        update_bn(pictures, experiment.network)
