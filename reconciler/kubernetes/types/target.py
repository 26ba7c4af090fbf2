"""References to objects that can be scaled: a Deployment, a StatefulSet, or any kind with a scale. Pure.

A reference comes from a person. `invalid` is checked before any part of it becomes part of a URL.
"""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.kubernetes.types.names import is_api_version, is_kind, is_subdomain
from reconciler.kubernetes.types.objects import LONGEST_SHOWN


@dataclass(frozen=True, slots=True)
class Target:
    """A reference to an object of any kind."""

    api_version: str
    kind: str
    name: str
    namespace: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def invalid(self) -> tuple[str, str, str] | None:
        """The first part that is not a valid name, its value, and a remedy."""
        for part, value, is_valid, right in (
            ("apiVersion", self.api_version, is_api_version, "write group/version, as in apps/v1"),
            ("kind", self.kind, is_kind, "write a kind such as Deployment: at most 63 letters, digits and -"),
            ("name", self.name, is_subdomain, "write a name such as web: at most 253 of a-z, 0-9, - and ."),
        ):
            if not is_valid(value):
                return part, value[:LONGEST_SHOWN], right
        return None
