"""Replication between the replicas of the reconciler: records from the leader, reports from the followers.

`replication` does no I/O, and neither do `fleet` and the `cluster_adapters` of the engine. `messages` are those of the
peer stream, `leader` and `follower` its two ends; `peers` is all of it.
"""

from reconciler.replication.fleet import NoMembers, ReplicaContext
from reconciler.replication.leader import CLAIMS
from reconciler.replication.peers import Peers
from reconciler.replication.replication import Replication

__all__ = ["CLAIMS", "NoMembers", "Peers", "ReplicaContext", "Replication"]
