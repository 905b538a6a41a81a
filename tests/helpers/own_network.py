"""A network of a user's own, with running statistics and dropout."""

import torch

from byzshield_exp.datasets import Batches, synthetic
from byzshield_exp.networks import flatten
from byzshield_exp.training.gradients import TrueGradients

USERS = """
from torch import nn

def network(shape, num_classes: int, dropout=0.0, momentum: float | None = 0.1, bad: int = 0):
    channels, height, width = shape
    rest = 8 * (height // 2) * (width // 2)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8, momentum=momentum), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(dropout), nn.Linear(rest + bad, 32),
        nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, num_classes),
    )
"""
NETWORK = ("network._target_=users_network.network", "~network.hidden_relu")
SMALL = (*NETWORK, "dataset=synthetic", "steps=7", "eval_every=4")


def truth_of(network, num_threads=1, seed=None, size=8, **more):
    torch.manual_seed(0)
    data = synthetic(num_train=200, num_test=1, size=size)
    made = network(data.shape, 10)
    flat = flatten(made)
    batches = Batches(200, 50, 5, seed=0)
    truth = TrueGradients(made, data, batches, 5, num_threads, seed, **more)
    return truth, made, flat, data, batches
