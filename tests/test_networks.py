import pytest
import torch

from byzshield_exp.networks import flatten_parameters, lenet, mlp


def size(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_lenet_has_the_research_codes_size():
    assert size(lenet((1, 28, 28), 10)) == 431_080
    assert size(lenet((1, 28, 28), 10, hidden_relu=False)) == 431_080


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28), (2, 9, 13), (1, 4, 4)])
@pytest.mark.parametrize("make", [lenet, mlp])
def test_networks_fit_the_pictures(make, shape):
    assert make(shape, 7)(torch.zeros(2, *shape)).shape == (2, 7)


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="3 x 8"):
        lenet((1, 3, 8), 10)
    with pytest.raises(ValueError, match="hidden"):
        mlp((1, 8, 8), 10, hidden=[0])


def test_parameters_are_views_of_the_flat_vector():
    network = lenet((1, 8, 8), 10)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    flat = flatten_parameters(network)
    assert torch.equal(flat, torch.cat([parameter.flatten() for parameter in before]))
    flat.zero_()
    assert all(bool((parameter == 0).all()) for parameter in network.parameters())
