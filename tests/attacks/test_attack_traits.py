"""What attacks declare, and what is assumed of those that declare nothing."""

from functools import partial, wraps

import pytest
import torch
from test_attacks_all import FUNCTIONS

from byzshield_exp.assignments import mols
from byzshield_exp.attacks import (
    PastParameters,
    Setting,
    alie,
    attack_traits,
    check_arguments,
    delayed_gradient,
    forged_files,
    is_declared,
    majorities_only,
    why_idle,
)

SHORT = Setting(num_workers=15, num_byzantine=3, steps=2)


def own(knowledge, delay=1, warmup=1, victim=99):
    """An attack of the user's, whose arguments have names that ours have too."""
    return knowledge.own_rows()


def own_wrapper(knowledge, lie):
    return lie(knowledge)


@attack_traits(recent_steps=lambda arguments: 2 * arguments["width"])
def looking_back(knowledge, width=2):
    return knowledge.own_rows()


def test_all_of_ours_are_declared():
    assert [name for name, attack in FUNCTIONS.items() if not is_declared(attack)] == []


def test_names_of_arguments_mean_nothing():
    state, attack = {}, partial(own, delay=100)
    past = PastParameters(attack, torch.ones(4), state)
    assert not state
    with pytest.raises(ValueError, match="must declare"):
        past.at(0)
    check_arguments("attack", partial(own, delay=-1), 25)
    assert why_idle(attack, SHORT) == ""
    assert forged_files(attack, mols(15, 3), (0, 1)) is None
    assert not is_declared(attack)
    assert not is_declared(partial(majorities_only, attack=attack))


def test_an_attack_of_the_users_declares_what_it_reads():
    state = {}
    PastParameters(partial(looking_back, width=3), torch.ones(4), state)
    assert state["past_params"].shape == (6, 4)


def test_wrapped_attacks_are_asked_whatever_the_argument_is_called():
    attack = partial(own_wrapper, lie=partial(delayed_gradient, delay=0))
    with pytest.raises(ValueError, match=r"^attack\.lie\.delay=0 must be at least 1$"):
        check_arguments("attack", attack, 25)
    weak = partial(own_wrapper, lie=partial(majorities_only, attack=partial(alie, z=0.0)))
    assert why_idle(weak, SHORT) == "the z of alie is 0 at K=15 q=3"
    assert why_idle(partial(own_wrapper, lie=partial(alie, z=1.0)), SHORT) == ""


def test_a_decorated_attack_keeps_its_declaration():
    @wraps(delayed_gradient)
    def louder(*args, **options):
        return 2 * delayed_gradient(*args, **options)

    assert is_declared(louder)
    assert "its delay of 100 steps" in why_idle(partial(louder), SHORT)
