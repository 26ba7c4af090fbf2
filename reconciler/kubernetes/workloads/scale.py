"""The scale subresource: its observed state and the patches that change it. Pure.

A wake changes zero only, and a sleep exactly what was observed, so that a concurrent write is never overwritten. A
Scale at zero has no `spec.replicas`, which is what the patch of a wake tests for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from reconciler.kubernetes.types.builtin import Scale
from reconciler.kubernetes.types.objects import LONGEST_SHOWN, decoder

Patch = list[dict[str, Any]]

_SCALE = decoder(Scale)


@dataclass(frozen=True, slots=True)
class ObservedScale:
    """The requested replicas of an object at one version."""

    replicas: int
    version: str
    selector: str | None = None
    """Label selector of its pods; None if not known, empty if it has none."""

    def is_newer_than(self, other: ObservedScale) -> bool:
        """Return whether this version is newer. Versions that are not numbers differ by order of arrival."""
        if self.version.isdecimal() and other.version.isdecimal():
            return int(self.version) > int(other.version)
        return self.version != other.version


def parse_scale(answer: bytes, key: str) -> ObservedScale:
    """Return the scale of the object `key`.

    Raises `msgspec.DecodeError` if the answer is not a Scale, or is the Scale of another object.
    """
    read = _SCALE(answer)
    if read.metadata.key != key:
        raise msgspec.ValidationError(f"the answer is about {read.metadata.key[:LONGEST_SHOWN]!r}, not {key}")
    return ObservedScale(read.spec.replicas, read.metadata.resource_version, read.status.selector)


def wake_patches(replicas: int) -> tuple[Patch, ...]:
    """Return the patches from zero replicas that are left out, as the API server writes them, and written out.

    An aggregated API server may do the latter.
    """
    return (
        [{"op": "test", "path": "/spec", "value": {}}, {"op": "add", "path": "/spec/replicas", "value": replicas}],
        [
            {"op": "test", "path": "/spec/replicas", "value": 0},
            {"op": "replace", "path": "/spec/replicas", "value": replicas},
        ],
    )


def sleep_patch(observed: ObservedScale) -> Patch:
    """Return the patch to zero, which fails if the object changed since it was observed."""
    return [
        {"op": "test", "path": "/metadata/resourceVersion", "value": observed.version},
        {"op": "test", "path": "/spec/replicas", "value": observed.replicas},
        {"op": "replace", "path": "/spec/replicas", "value": 0},
    ]
