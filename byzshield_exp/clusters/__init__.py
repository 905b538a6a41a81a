"""WHERE WORKERS LIVE: who plays whom, and how messages travel."""

from byzshield_exp.clusters.alone import AloneChannel
from byzshield_exp.clusters.delivery import deliver, in_first_rows
from byzshield_exp.clusters.inbox import Inbox, Statement
from byzshield_exp.clusters.processes import Node, run_ranks, start_forkserver
from byzshield_exp.clusters.seats import Seats
from byzshield_exp.clusters.sockets.joining import Rendezvous, join, join_torchrun, torchrun_size
from byzshield_exp.clusters.transport import Channel, Options, Transport

__all__ = [
    "AloneChannel", "Channel", "Inbox", "Node", "Options", "Rendezvous", "Seats", "Statement",
    "Transport", "deliver", "in_first_rows", "join", "join_torchrun", "run_ranks",
    "start_forkserver", "torchrun_size",
]  # fmt: skip
