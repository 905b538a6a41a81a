"""The siblings have the same verbs, with the same arguments."""

import inspect

import pytest

from byzshield_exp.clusters.alone import Alone, AloneChannel
from byzshield_exp.clusters.group_channel import ProcessGroupChannel
from byzshield_exp.clusters.process_group import ProcessGroup
from byzshield_exp.clusters.sockets.channel import ServerChannel, WorkerChannel
from byzshield_exp.clusters.sockets.server import SocketServer
from byzshield_exp.clusters.sockets.worker import SocketWorker
from byzshield_exp.clusters.transport import Channel, Transport
from byzshield_exp.training.parameter_server import ParameterServer
from byzshield_exp.training.protocol import TrainingProtocol


@pytest.mark.parametrize(
    ("sibling", "protocol"),
    [(Alone, Transport), (SocketServer, Transport), (SocketWorker, Transport),
     (ProcessGroup, Transport), (AloneChannel, Channel), (ServerChannel, Channel),
     (WorkerChannel, Channel), (ProcessGroupChannel, Channel),
     (ParameterServer, TrainingProtocol)],
)  # fmt: skip
def test_a_sibling_has_every_verb(sibling, protocol):
    verbs = [name for name in vars(protocol) if not name.startswith("_")]
    for verb in verbs:
        wanted, found = getattr(protocol, verb), getattr(sibling, verb, None)
        if inspect.isfunction(wanted):
            assert list(inspect.signature(found).parameters) == list(
                inspect.signature(wanted).parameters
            ), verb
    assert protocol not in sibling.__mro__
