"""HOW GOOD IT IS: in a run, or beside it (``python -m byzshield_exp.evaluate``)."""

from byzshield_exp.evaluate.accuracy import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate"]
