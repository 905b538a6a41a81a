"""Say settings, choices and metrics in the words of a figure."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_WORDS = {
    "alie": "ALIE", "arc": "ARC", "btard": "BTARD", "bulyan": "Bulyan", "byzfl": "ByzFL",
    "byzshield": "ByzShield", "caf": "CAF", "cge": "CGE", "detox": "DETOX", "dnc": "DnC",
    "fang": "Fang", "foe": "FoE", "ipm": "IPM", "krum": "Krum", "mda": "MDA", "mols": "MOLS",
    "meamed": "MeaMed",
    "monna": "MoNNA", "nnm": "NNM", "rfa": "RFA", "signsgd": "signSGD", "smea": "SMEA",
    "steiner": "Steiner", "phocas": "Phocas", "garfield": "Garfield", "blades": "Blades",
    "multi": "Multi", "svhn": "SVHN", "mnist": "MNIST", "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100", "lenet": "LeNet", "mlp": "MLP", "vit": "ViT", "wrn": "WRN",
    "sgd": "SGD", "q": "q",
}  # fmt: skip
_CONVENTIONS = ("byzfl", "blades", "byzshield", "garfield", "rfa", "btard")  # whose variant it is
_CHOICES = {
    ("approach", "baseline"): "no redundancy",
    ("approach", "mols"): "ByzShield (MOLS)",
    ("approach", "ramanujan_one"): "ByzShield (Ramanujan 1)",
    ("approach", "ramanujan_two"): "ByzShield (Ramanujan 2)",
    ("approach", "maj_vote"): "DRACO (majority vote)",
    ("approach", "subsets"): "Aspis (subsets)",
    ("approach", "random"): "random placement",
    ("attack", "none"): "no attack",
    ("attack", "min_max"): "Min-Max",
    ("attack", "min_sum"): "Min-Sum",
    ("pre_aggregator", "none"): "",
    ("cheat", "none"): "no cheat",
}
_SETTINGS = {
    "K": "workers K", "r": "replicas of a file r", "q": "Byzantine workers q",
    "approach": "placement", "aggregator": "rule", "pre_aggregator": "before the rule",
    "batch_size": "batch size (samples)", "steps": "steps", "seed": "seed",
    "optimizer.lr": "learning rate", "optimizer.momentum": "momentum",
    "optimizer.weight_decay": "weight decay", "worker_momentum": "momentum of workers",
    "adversary.start": "first step of the attack", "adversary.every": "steps between attacks",
    "dataset": "data", "curve": "curve", "defence": "defence", "precision": "precision",
    "setting": "setting", "_target_": "function",
}  # fmt: skip


@dataclass(frozen=True)
class Measure:
    """A number that a run has, as a figure shows it.

    Attributes:
        name: its column in the tables of ``results.load``.
        title: what it is.
        unit: after division by ``scale``; empty for a share or a count.
        scale: what a shown unit is, in the column's unit.
    """

    name: str
    title: str
    unit: str = ""
    scale: float = 1.0

    @property
    def final(self) -> str:
        """The title of its value at the end of a run."""
        return f"final {self.title}" if self.is_accuracy or "loss" in self.name else self.title

    @property
    def axis(self) -> str:
        """The title with the unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def is_accuracy(self) -> bool:
        """Whether it is a share of samples that are classified rightly."""
        return self.name.endswith("_accuracy")

    @property
    def is_count(self) -> bool:
        """Whether it is a number of files."""
        return "files" in self.name or self.name == "num_corrupt"


_MEASURES = {
    "loss": "training loss (nats)",
    "test_loss": "test loss (nats)",
    "validation_loss": "validation loss (nats)",
    "epsilon_hat": "worst share of files won by liars",
    "num_corrupt": "worst number of files won by liars",
    "distorted_files": "files won by liars",
    "files_without_majority": "files without a majority",
    "seconds_per_step": "time of a step",
    "seconds": "time of a run",
    "server_memory_bytes": "peak memory of the server",
    "bytes_in_per_step": "traffic to the server, per step",
    "bytes_in": "traffic to the server, per step",
}
_POWERS = ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "bytes"))


def measure(name: str, largest: float = math.nan) -> Measure:
    """Return how a figure shows a column.

    Args:
        name: the column of ``results.load``, ``test_accuracy`` or ``seconds.vote``.
        largest: its largest value, which chooses between KiB and MiB, ms and s.
    """
    title = _MEASURES.get(name) or spelled(name.rpartition(".")[2])
    if "bytes" in name:
        scale, unit = next((one for one in _POWERS if largest >= one[0]), (2.0**20, "MiB"))
        return Measure(name, title, unit, scale)
    if name.startswith("seconds"):
        return Measure(name, title, "ms", 1e-3) if largest < 1 else Measure(name, title, "s")
    return Measure(name, title)


def setting(key: str) -> str:
    """Name a setting: ``learning rate`` for ``optimizer.lr``."""
    group, dot, rest = key.partition(".")
    rest = _SETTINGS.get(rest) or spelled(rest)
    return _SETTINGS.get(key) or (f"{rest} of {spelled(group)}" if dot else spelled(key))


def value(key: str, content: Any) -> str:
    """Name a value of a setting: ``ByzShield (MOLS)`` for ``approach``, ``mols``.

    A dotted name is the user's own function or class and stays: ``my_attack.overshoot``.
    """
    if isinstance(content, tuple):
        return " + ".join(filter(None, (value(key, part) for part in content)))
    if isinstance(content, bool) or content is None or content != content:
        return {True: "yes", False: "no"}.get(content, "none")
    if isinstance(content, int | float):
        return f"{content:g}"
    text = str(content)
    if "." in text and all(part.isidentifier() for part in text.split(".")):
        return text
    return _CHOICES.get((key, text), "no" if text == "none" else spelled(text))


def labelled(key: str, content: Any) -> str:
    """Name a setting with its value: ``q = 3``; a choice by the choice alone."""
    said = value(key, content)
    if key in ("K", "q", "r"):
        return f"{key} = {said}"
    is_choice = isinstance(content, str | tuple) and "." not in key and key != "batch_size"
    return said if is_choice else f"{setting(key)} {said}"


def spelled(name: str) -> str:
    """Turn a name of the program into words: ``Krum (ByzFL)``, ``ByzShield, q = 3``."""
    stem, number, count = name, "", ""
    if found := re.fullmatch(r"(.+?)_(K|q|r|tau|z)(\d+)", name):
        stem, number, count = found.groups()
    parts = stem.split("_")
    variant = f" ({_WORDS[parts.pop()]})" if len(parts) > 1 and parts[-1] in _CONVENTIONS else ""
    words = " ".join(_WORDS.get(part, part) for part in parts).replace("Multi Krum", "Multi-Krum")
    return words + variant + (f", {number} = {count}" if number else "")


def joined(said: Mapping[str, Any]) -> str:
    """Name several settings with their values in one line."""
    return ", ".join(filter(None, (labelled(key, content) for key, content in said.items())))
