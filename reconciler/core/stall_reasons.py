"""One word of a few for the sentence that says why a wake is stalled. Pure.

It is the label `why` of metrics, and all that a refused client is told.

Rule: bounded, whatever an image, a registry or a program says. In a cluster the sentence begins with its word, which
docs/troubleshooting.md explains; on one machine with what became of the program.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

IN_A_CLUSTER = (
    *("ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"),
    *("CrashLoopBackOff", "Crashed", "OOMKilled", "Evicted"),
    *("CreateContainerConfigError", "CreateContainerError", "RunContainerError"),
    *("Unschedulable", "SchedulingGated", "NotScheduled"),
    *("FailedMount", "FailedAttachVolume", "FailedMapVolume"),
    *("QuotaExceeded", "FailedCreate", "NoPods"),
    *("Initializing", "ContainerCreating", "Unhealthy", "NotReady", "NoEndpoint"),
    *("TargetNotFound", "NoSuchKind", "NotScalable", "Forbidden", "ScaleFailed", "ApiUnreachable"),
)
ON_ONE_MACHINE: Mapping[str, str] = {
    "exited": "Exited",
    "killed": "Killed",
    "cannot": "NotStarted",
    "waits": "NotStarted",
    "started": "NotReady",
}
"""By the first word: `exited with code 1`, `killed by SIGKILL`, `cannot be started`, `waits for the end of …`,
`started 30 s ago, but …`."""
TIMED_OUT = "TimedOut"
"""Nothing is known but that it took too long."""
OTHER = "other"
WHYS = tuple(dict.fromkeys((*IN_A_CLUSTER, *ON_ONE_MACHINE.values(), TIMED_OUT, OTHER)))
_BY_FIRST_WORD = {**{word: word for word in IN_A_CLUSTER}, **ON_ONE_MACHINE, "it": TIMED_OUT}
_FIRST_WORD = re.compile(r"[A-Za-z]+")


def why(sentence: str) -> str:
    """One of `WHYS`."""
    found = _FIRST_WORD.match(sentence)
    return _BY_FIRST_WORD.get(found[0], OTHER) if found else OTHER
