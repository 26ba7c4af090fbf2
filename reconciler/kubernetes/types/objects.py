"""Metadata, conditions, references, decoders, and URL paths that all Kubernetes objects share. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar

import msgspec

from reconciler.kubernetes.types.names import InvalidName, is_api_version, is_kind, is_label, is_resource, is_subdomain

_T = TypeVar("_T")
LONGEST_SHOWN = 100
"""Number of characters of an invalid text that an error shows."""
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)
"""A time with a time zone, as in `2026-11-23T10:00:00Z`."""


class Struct(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """A part of an object. It cannot be part of a reference cycle, so the garbage collector skips it."""


class OwnerReference(Struct, frozen=True):
    """An entry of `ownerReferences`.

    `blockOwnerDeletion` is left out: some clusters require permission to update the owner's finalizers for it.
    """

    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False


class ObjectMeta(Struct, frozen=True):
    """`metadata`."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    annotations: dict[str, str] = msgspec.field(default_factory=dict)
    owner_references: tuple[OwnerReference, ...] = ()
    finalizers: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """`namespace/name`, or the name of a cluster-scoped object."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class Object(Struct, frozen=True):
    """An object of any kind, with its metadata only."""

    metadata: ObjectMeta = ObjectMeta()


class ObjectList(Struct, Generic[_T], frozen=True):
    """A list of objects that is short enough to be read at once."""

    items: tuple[_T, ...] = ()


class Condition(Struct, frozen=True):
    """An entry of `status.conditions`; built-in kinds leave `observedGeneration` out."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: datetime | None = None
    observed_generation: int = 0


class ObjectRef(Struct, frozen=True):
    """A reference to another object, as in endpoints and Events."""

    api_version: str = ""
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """A reference to an object that can be scaled: a Deployment, a StatefulSet, or any kind with a scale.

    It comes from a person. `invalid` is checked before any part of it becomes part of a URL.
    """

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


def decoder(kind: type[_T]) -> Callable[[bytes | msgspec.Raw], _T]:
    """Return a decoder from JSON to this type. It raises `msgspec.DecodeError`."""
    return msgspec.json.Decoder(kind).decode


def path(
    api_version: str, plural: str, namespace: str | None = None, name: str | None = None, subresource: str | None = None
) -> str:
    """Return the URL path of a collection, an object, or a subresource. None leaves a part out.

    Raises `InvalidName` for a part that is not a valid name: it could lead to another object or namespace.
    """
    whole = f"{api_path(api_version)}/{_part('resource', is_resource, plural)}"
    if namespace is not None:
        whole = f"{api_path(api_version)}/namespaces/{_part('namespace', is_label, namespace)}/{plural}"
    if name is not None:
        whole = f"{whole}/{_part('name', is_subdomain, name)}"
    return whole if subresource is None else f"{whole}/{_part('subresource', is_resource, subresource)}"


def api_path(api_version: str) -> str:
    """Return the path of an API version's discovery document. Raises `InvalidName`."""
    _part("apiVersion", is_api_version, api_version)
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def name_selector(field: str, name: str) -> str:
    """Return a selector of one field or label by name. Raises `InvalidName`: a comma would add a requirement."""
    return f"{field}={_part('name', is_subdomain, name)}"


def _part(what: str, is_valid: Callable[[str], bool], text: str) -> str:
    if not is_valid(text):
        raise InvalidName(f"{text[:LONGEST_SHOWN]!r} is not a valid {what}")
    return text


def micro_time(seconds: float) -> str:
    """Return seconds since the epoch as a Kubernetes MicroTime, which has exactly six decimal places."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
