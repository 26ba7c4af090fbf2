"""Replication between the replicas of the reconciler: records from the leader, reports from the followers.

`messages` are those of the peer stream; `fleet`, `aggregation` and `merged` do no I/O; `leader` and `follower` are its
two ends; `peers` is all of it in one piece.
"""

from reconciler.replication.fleet import ReplicaContext
from reconciler.replication.leader import CLAIMS
from reconciler.replication.merged import Merged
from reconciler.replication.peers import Peers

__all__ = ["CLAIMS", "Merged", "Peers", "ReplicaContext"]
