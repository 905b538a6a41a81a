"""WHERE WORKERS LIVE: one process, or several that connect to the server's."""

from byzshield_exp.assignments import Assignment
from byzshield_exp.clusters.cluster import Cluster, Inbox
from byzshield_exp.clusters.group import Group, Rendezvous, join, join_torchrun, torchrun_size
from byzshield_exp.clusters.introduction import DATA, HOST
from byzshield_exp.clusters.launch import Node, run_ranks, start_forkserver
from byzshield_exp.clusters.server import ServerCluster
from byzshield_exp.clusters.wire import Statement
from byzshield_exp.clusters.worker import WorkerCluster

__all__ = [
    "DATA", "HOST", "Cluster", "Group", "Inbox", "Node", "Rendezvous", "Statement", "cluster_of",
    "join", "join_torchrun", "run_ranks", "start_forkserver", "torchrun_size",
]  # fmt: skip


def cluster_of(
    group: Group, assignment: Assignment, reads_digests: bool, worker_timeout: float, bucket: int
) -> Cluster:
    """This process's end of a run.

    Args:
        group: this process's place.
        assignment: who computes what.
        reads_digests: whether the vote is on digests.
        worker_timeout: seconds after which a rank that has not answered is absent from a step.
        bucket: bytes that the server receives and compares at a time.
    """
    if group.hub is not None:
        return ServerCluster(group, assignment, reads_digests, group.hub, worker_timeout, bucket)
    if group.line is not None:
        return WorkerCluster(group, assignment, reads_digests, group.line)
    return Cluster(group, assignment, reads_digests)
