"""What all objects of Kubernetes have in common, how they are decoded, and where they are found. Pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

import msgspec

from reconciler.kubernetes.types.names import InvalidName, is_api_version, is_label, is_resource, is_subdomain

_T = TypeVar("_T")
LONGEST_SHOWN = 100
"""Characters of invalid text that an error shows."""


class Struct(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """Part of an object. Cannot be part of a cycle, so the collector need not look at it."""


class OwnerReference(Struct, frozen=True):
    """An entry of `ownerReferences`.

    `blockOwnerDeletion` is left out: some clusters grant it only to who may update the owner's finalizers.
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
        """`namespace/name`; the name alone outside namespaces."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class Object(Struct, frozen=True):
    """Of any kind, when only its metadata matters."""

    metadata: ObjectMeta = ObjectMeta()


class Condition(Struct, frozen=True):
    """An entry of `status.conditions`; core kinds leave `observedGeneration` out."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: datetime | None = None
    observed_generation: int = 0


class ObjectRef(Struct, frozen=True):
    """Another object, as endpoints and events name it."""

    api_version: str = ""
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    resource_version: str = ""
    field_path: str = ""


def decoder(kind: type[_T]) -> Callable[[bytes | msgspec.Raw], _T]:
    """What makes such an object of JSON. Raises `msgspec.DecodeError`."""
    return msgspec.json.Decoder(kind).decode


def path(
    api_version: str, plural: str, namespace: str | None = None, name: str | None = None, subresource: str | None = None
) -> str:
    """Return the path of a kind's objects, of one object, or of a subresource. None leaves a part out.

    Raises `InvalidName` for any part that is not a name, which could lead to another object or namespace.
    """
    whole = f"{api_path(api_version)}/{_part('resource', is_resource, plural)}"
    if namespace is not None:
        whole = f"{api_path(api_version)}/namespaces/{_part('namespace', is_label, namespace)}/{plural}"
    if name is not None:
        whole = f"{whole}/{_part('name', is_subdomain, name)}"
    return whole if subresource is None else f"{whole}/{_part('subresource', is_resource, subresource)}"


def api_path(api_version: str) -> str:
    """Return the path of an API's discovery document. Raises `InvalidName`."""
    _part("apiVersion", is_api_version, api_version)
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def name_selector(field: str, name: str) -> str:
    """Return a selector of one field or label by a name. Raises `InvalidName`: a comma would select by more."""
    return f"{field}={_part('name', is_subdomain, name)}"


def _part(what: str, is_valid: Callable[[str], bool], text: str) -> str:
    if not is_valid(text):
        raise InvalidName(f"{text[:LONGEST_SHOWN]!r} is not a valid {what}")
    return text


def micro_time(seconds: float) -> str:
    """Seconds since the epoch as Kubernetes writes a MicroTime, which must have six digits after the point."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
