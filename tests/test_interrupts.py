"""Requests to stop are heard in a run only."""

import os
import signal

import pytest
import torch
from torch import nn

from byzshield_exp import interrupts
from byzshield_exp.errors import Stopped
from byzshield_exp.training.accuracy import evaluate


def test_sigterm_is_noted_until_the_run_looks():
    before = signal.getsignal(signal.SIGTERM)
    with interrupts.heard():
        interrupts.check()
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupts.requested()
        with pytest.raises(Stopped, match="SIGTERM"):
            interrupts.check()
        with pytest.raises(Stopped):  # a long evaluation does not wait for its end
            evaluate(nn.Flatten(), [(torch.zeros(3, 1, 2, 2), torch.zeros(3, dtype=torch.int64))])
    assert not interrupts.requested()
    assert signal.getsignal(signal.SIGTERM) is before
