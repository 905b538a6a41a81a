"""Requests to stop are heard in a run only."""

import os
import signal
import time

import pytest
import torch
from torch import nn

from byzshield_exp import interrupts
from byzshield_exp.errors import Stopped
from byzshield_exp.training.accuracy import evaluate


@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")]
)
def test_a_signal_is_noted_until_the_run_looks(number, name):
    interrupts.forget()
    before = signal.getsignal(number)
    with interrupts.heard():
        interrupts.check()
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # as terminals may, at once
        assert interrupts.requested()
        with pytest.raises(Stopped, match=f"stopped by {name}"):
            interrupts.check()
        with pytest.raises(Stopped):  # a long evaluation does not wait for its end
            evaluate(nn.Flatten(), [(torch.zeros(3, 1, 2, 2), torch.zeros(3, dtype=torch.int64))])
    assert not interrupts.requested()
    assert signal.getsignal(number) is before


def test_ctrl_c_that_is_not_obeyed_for_seconds_interrupts(monkeypatch):
    monkeypatch.setattr(interrupts, "_PATIENCE_S", 0.05)
    interrupts.forget()
    with interrupts.heard():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert interrupts.is_by_ctrl_c()
    interrupts.forget()
