"""The scale subresource: what is read of it, and the patches that change it. Pure.

Rule: a wake changes zero only, a sleep exactly what was observed; whoever else writes in between is never overruled
unseen. A Scale at zero has no `spec.replicas` at all, which is what a wake's patch tests for. Counterpart: `scaler.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from reconciler.kubernetes.types.builtin import Scale
from reconciler.kubernetes.types.objects import LONGEST_SHOWN, decoder

Patch = list[dict[str, Any]]
Wake = Callable[[int], Patch]

_SCALE = decoder(Scale)


@dataclass(frozen=True, slots=True)
class ObservedScale:
    """How many replicas an object asked for, at one version of it."""

    replicas: int
    version: str
    selector: str | None = None
    """The labels of its pods, in the API's own notation; None when not known, empty when it has none."""

    def is_newer_than(self, other: ObservedScale) -> bool:
        """Versions of one object can be compared as numbers; where they are none, what came last counts."""
        if self.version.isdecimal() and other.version.isdecimal():
            return int(self.version) > int(other.version)
        return self.version != other.version


def parse_scale(answer: bytes, key: str) -> ObservedScale:
    """Return the scale of the object that was asked for, `namespace/name`.

    Raises `msgspec.DecodeError` for what is not a Scale, and for the Scale of another object.
    """
    read = _SCALE(answer)
    if read.metadata.key != key:
        raise msgspec.ValidationError(f"the answer is about {read.metadata.key[:LONGEST_SHOWN]!r}, not {key}")
    return ObservedScale(read.spec.replicas, read.metadata.resource_version, read.status.selector)


def wake_patch_absent(replicas: int) -> Patch:
    """From no number at all, as the API server itself writes zero."""
    return [
        {"op": "test", "path": "/spec", "value": {}},
        {"op": "add", "path": "/spec/replicas", "value": replicas},
    ]


def wake_patch_zero(replicas: int) -> Patch:
    """From a zero that is written out, as an aggregated API server may."""
    return [
        {"op": "test", "path": "/spec/replicas", "value": 0},
        {"op": "replace", "path": "/spec/replicas", "value": replicas},
    ]


WAKES: tuple[Wake, ...] = (wake_patch_absent, wake_patch_zero)


def sleep_patch(observed: ObservedScale) -> Patch:
    """To zero, if nobody has written anything since."""
    return [
        {"op": "test", "path": "/metadata/resourceVersion", "value": observed.version},
        {"op": "test", "path": "/spec/replicas", "value": observed.replicas},
        {"op": "replace", "path": "/spec/replicas", "value": 0},
    ]
