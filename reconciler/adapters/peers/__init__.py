"""Between the replicas of the reconciler: the leader's records down, what they have come to up.

`wire` has the messages; `presence`, `ledger`, `sums` and `merged` do no I/O; `server` is the leader's end and `client`
a follower's; `peers` has all of it in one piece.
"""

from reconciler.adapters.peers.ledger import Terms
from reconciler.adapters.peers.merged import Merged
from reconciler.adapters.peers.peers import Peers
from reconciler.adapters.peers.server import CLAIMS

__all__ = ["CLAIMS", "Merged", "Peers", "Terms"]
