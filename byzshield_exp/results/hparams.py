"""Say what TensorBoard's HPARAMS page shows of a run."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from byzshield_exp.assignments import Assignment
from byzshield_exp.results.tags import SPLITS

_CHOICES = ("approach", "aggregator", "attack")
_FIRST = ("approach", "aggregator", "attack", "q", "lr")  # the page shows five columns by itself


class Hparams(NamedTuple):
    """Summaries of the ``hparams`` plugin.

    Attributes:
        experiment: the columns; TensorBoard takes those of any run, so all runs have the same.
        start: the values of this run.
        end: that it ended well.
    """

    experiment: Any
    start: Any
    end: Any


def hparams_of(config: Mapping[str, Any], assignment: Assignment) -> dict[str, Any]:
    """Return the settings that people sweep, the same keys for every run.

    ``r`` is the placement's, as some approaches do not read the key.
    """
    lr = config["optimizer"].get("lr")
    return {
        **{key: config["choices"][key] for key in _CHOICES},
        "q": config["q"],
        "K": assignment.num_workers,
        "r": assignment.replication,
        "lr": math.nan if lr is None else lr,
        "seed": config["seed"],
    }


def hparams_summaries(config: Mapping[str, Any], assignment: Assignment) -> Hparams:
    """Make the summaries of a run; its result is the last value of its accuracy."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
    from torch.utils.tensorboard.summary import hparams

    metrics = dict.fromkeys((f"accuracy/{split}" for split in SPLITS), 0.0)
    made = Hparams(*hparams(hparams_of(config, assignment), metrics))
    plugin = made.experiment.value[0].metadata.plugin_data
    data = HParamsPluginData.FromString(plugin.content)
    for info in data.experiment.hparam_infos:
        info.differs = info.name in _FIRST  # those come first
    for metric in data.experiment.metric_infos:
        metric.display_name = f"final {metric.name.tag.partition('/')[2]} accuracy"
    plugin.content = data.SerializeToString()
    return made
