"""Replication between the replicas of the reconciler: records from the leader, reports from the followers.

`replication` and `fleet` do no I/O. `messages` are those of the peer stream, `leader` and `follower` its two ends;
`peers` is all of it.
"""
