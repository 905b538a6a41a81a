"""WHERE WORKERS LIVE: who plays whom, and how messages travel."""

from byzshield_exp.clusters.alone import AloneChannel
from byzshield_exp.clusters.delivery import deliver, in_first_rows
from byzshield_exp.clusters.inbox import Inbox, Statement
from byzshield_exp.clusters.meeting import Rendezvous, torchrun_size
from byzshield_exp.clusters.processes import Node, run_ranks, start_forkserver
from byzshield_exp.clusters.seats import Seats
from byzshield_exp.clusters.torchrun import Torchrun, join
from byzshield_exp.clusters.transport import Channel, Transport, TransportOptions

__all__ = [
    "AloneChannel",
    "Channel",
    "Inbox",
    "Node",
    "Rendezvous",
    "Seats",
    "Statement",
    "Torchrun",
    "Transport",
    "TransportOptions",
    "deliver",
    "in_first_rows",
    "join",
    "run_ranks",
    "start_forkserver",
    "torchrun_size",
]  # fmt: skip
