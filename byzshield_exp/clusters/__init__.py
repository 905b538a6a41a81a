"""WHERE WORKERS LIVE: one process, or ranks of torch.distributed."""

from byzshield_exp.clusters.cluster import Cluster, Inbox, Message
from byzshield_exp.clusters.group import broadcast_text, join, leave
from byzshield_exp.clusters.launch import run_ranks

__all__ = ["Cluster", "Inbox", "Message", "broadcast_text", "join", "leave", "run_ranks"]
