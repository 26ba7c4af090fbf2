"""What a holder is called when nobody says: the same after a restart, and never the same as another that runs.

A holder that is gone is missed until it is back, so it should be known again. Its name is made of where it listens:
this boot of this machine, the network namespace, the address. A process that still has the name (it drains, with a
descriptor of the same socket) keeps it: to take it away would let the reconciler forget whom that one still relays.
"""

from __future__ import annotations

import os
import socket
import uuid
from hashlib import blake2b
from pathlib import Path

BOOT = Path("/proc/sys/kernel/random/boot_id")
NAMESPACE = "/proc/self/ns/net"


def claimed(address: str) -> tuple[str, socket.socket | None]:
    """The name of a holder that listens at `address`, and what it is claimed by for as long as that is open.

    A random name, claimed by nothing, where another process has it or the machine cannot be told from others.
    """
    host = os.uname().nodename
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        place = f"{BOOT.read_text().strip()} {os.readlink(NAMESPACE)} {address}"
        part = blake2b(place.encode(), digest_size=6).hexdigest()
        claim.bind(f"\0zenvoy-tproxy-{part}")
    except OSError:
        claim.close()
        return f"{host}-{uuid.uuid4().hex[:12]}", None
    return f"{host}-{part}", claim
