"""A network for each thread of a process."""

import threading

from torch import Tensor, nn

from byzshield_exp.networks import running_statistics, twin


class NetworkCopies:
    """One network per thread: parameters are shared, running statistics are not.

    Args of the constructor:
        network: the published one.
        is_shared: whether all may use it, as it has no statistics and there is one thread.
    """

    def __init__(self, network: nn.Module, is_shared: bool) -> None:
        self._network, self._is_shared = network, is_shared
        self._copies = threading.local()

    def mine(self) -> tuple[nn.Module, list[Tensor]]:
        """This thread's network and its running statistics."""
        if self._is_shared:
            return self._network, []
        if not hasattr(self._copies, "mine"):
            network = twin(self._network)
            self._copies.mine = network, statistics_of(network)
        mine: tuple[nn.Module, list[Tensor]] = self._copies.mine
        return mine


def has_twin(network: nn.Module) -> bool:
    """Whether a network can be copied beside its parameters."""
    try:
        twin(network)
    except Exception:  # it holds what it computed last, or a lock, or ...
        return False
    return True


def statistics_of(network: nn.Module) -> list[Tensor]:
    """The tensors of a network's running statistics."""
    return [getattr(module, name) for module, name in running_statistics(network)]
