"""Between the replicas of the reconciler: the leader's records down, what they have come to up.

`wire` has the messages; `presence`, `ledger`, `sums` and `merged` do no I/O; `server` is the leader's end and `client`
a follower's; `peers` has all of it in one piece.
"""

from reconciler.replication.ledger import Terms
from reconciler.replication.merged import Merged
from reconciler.replication.peers import Peers
from reconciler.replication.server import CLAIMS

__all__ = ["CLAIMS", "Merged", "Peers", "Terms"]
