"""The points of a sweep: those of Hydra's basic sweeper, for every sweep with a list."""

import random

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper

from byzshield_exp.commands import config as configuration
from byzshield_exp.commands.choices import conf_dir
from byzshield_exp.errors import ConfigError
from hydra_plugins.byzshield_sweeper._points import grid

LINES = [
    ["q=0,2", "approach=mols,detox"],
    ["q=0,2", "seed=1", "q=4,5"],  # the last counts, in the place of the first
    ["seed=range(3)", "seed=range(4, 0, step=-1)"],
    ["optimizer.lr=range(0.1, 0.5, step=0.1)"],
    ["attack=glob(a*)", "aggregator=glob([m*, k*], exclude=krum*)"],
    ["q=choice(3, 1, 2)", "seed=sort(3, 1, 2)", "K=sort(choice(1, 3, 2), reverse=true)"],
    ["q=shuffle(1, 2, 3, 4, 5)", "seed=shuffle(range(1, 6))"],
    ["pre_aggregator=[nnm],[nnm,bucketing]", "network.hidden=[16],[]"],
    ["curve='a, b',\"c = d\"", 'curve=it,"a \\"quoted\\" one"', "output_dir=a\\ b"],
    ["optimizer.lr=1e-3,0.10,.5,1_0", "x=null,true,NaN", "+y={a: 1, b: [2, 3]},{a: 2}"],
    ["+new=1,2", "~gone", "++forced=a,b", "~other=1", "output_dir='a/${steps}'"],
    ["q=int(1.0,2)", "seed=tag(t, choice(1, 2))", "curve=str([1,2])"],
    ["optimizer.lr=0.1", "q=", "attack@other=alie,foe"],
]


@pytest.fixture
def parser():
    with initialize_config_dir(conf_dir(), **configuration.VERSION_BASE):
        yield OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_points_are_those_of_the_basic_sweeper(parser, line):
    (basic,) = (one for one in Plugins.instance().discover(Sweeper) if "Basic" in one.__name__)
    overrides = parser.parse_overrides(line)
    random.seed(7)  # shuffle() draws from it
    (wanted,) = basic.split_arguments(overrides, None)
    random.seed(7)
    assert grid(overrides) == wanted
    assert len(wanted) >= 1


def test_an_interval_is_not_a_list_of_points(parser):
    with pytest.raises(ConfigError, match=r"optimizer.lr=interval\(0, 1\): .*sweeper=optuna"):
        grid(parser.parse_overrides(["optimizer.lr=interval(0, 1)"]))
