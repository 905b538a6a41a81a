"""WHICH MODEL: functions of the data set's shape and classes that return a module."""

from byzshield_exp.networks.alexnet import alexnet
from byzshield_exp.networks.cifar_resnet import resnet20, resnet32, resnet44, resnet56, resnet110
from byzshield_exp.networks.densenet import densenet121
from byzshield_exp.networks.flat import (
    Flat,
    are_variances,
    entries_of,
    flatten,
    parameters_sha256,
    running_statistics,
    twin,
    views_of,
)
from byzshield_exp.networks.l46_net import l46_net
from byzshield_exp.networks.lenet import lenet
from byzshield_exp.networks.mlp import fc, mlp
from byzshield_exp.networks.resnet import resnet18, resnet34, resnet50, resnet101, resnet152
from byzshield_exp.networks.vgg import vgg11, vgg13, vgg16, vgg19
from byzshield_exp.networks.vit import vit
from byzshield_exp.networks.wrn import wrn

__all__ = [
    "Flat",
    "alexnet",
    "are_variances",
    "densenet121",
    "entries_of",
    "fc",
    "flatten",
    "l46_net",
    "lenet",
    "mlp",
    "parameters_sha256",
    "resnet18",
    "resnet20",
    "resnet32",
    "resnet34",
    "resnet44",
    "resnet50",
    "resnet56",
    "resnet101",
    "resnet110",
    "resnet152",
    "running_statistics",
    "twin",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
    "views_of",
    "vit",
    "wrn",
]
