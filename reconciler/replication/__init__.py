"""Replication between the replicas of the reconciler: records from the leader, reports from the followers.

`replication` does no I/O, and neither do `fleet` and the `cluster_adapters` of the engine. `messages` are those of the
peer stream, `leader` and `follower` its two ends; `peers` is all of it.
"""
