"""Names, metadata, conditions, references, decoders, and URL paths that all Kubernetes objects share. Pure.

Text becomes part of a URL or a selector only if it is a valid name, so that it cannot lead anywhere else. The patterns
are those of the API server. The CRD (deploy/chart/crds) has them too, but may be older than this module.
https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2s
from typing import Generic, TypeVar

import msgspec

LONGEST_SUBDOMAIN, LONGEST_LABEL = 253, 63
_COMPANION_SUFFIX = "-zenvoy-pods"
_LABEL = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_LABELS = re.compile(_LABEL)
_DNS_1035 = re.compile(r"[a-z](?:[-a-z0-9]*[a-z0-9])?")
_KIND = re.compile(r"[A-Za-z](?:[-A-Za-z0-9]*[A-Za-z0-9])?")
_URL_PATH = re.compile(r"(?:/[A-Za-z0-9][-A-Za-z0-9._:]*)+")
"""No segment is empty, `.`, or `..`, and nothing needs escaping. In a proxy call, a colon separates pod and port."""
_T = TypeVar("_T")
LONGEST_SHOWN = 100
"""Number of characters of an invalid text that an error shows."""
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)
"""A time with a time zone, as in `2026-11-23T10:00:00Z`."""


class InvalidName(ValueError):
    """Text that is not a valid name of the expected form; the message is for people."""


def is_subdomain(text: str) -> bool:
    """Return whether the text can name most objects: lower-case labels joined by dots."""
    return len(text) <= LONGEST_SUBDOMAIN and _SUBDOMAIN.fullmatch(text) is not None


def is_label(text: str) -> bool:
    """Return whether the text can name a namespace or a Service."""
    return len(text) <= LONGEST_LABEL and _LABELS.fullmatch(text) is not None


def is_kind(text: str) -> bool:
    """Return whether the text can be a kind, such as `Deployment`."""
    return len(text) <= LONGEST_LABEL and _KIND.fullmatch(text) is not None


def is_resource(text: str) -> bool:
    """Return whether the text can be a plural resource name, a version, or a subresource."""
    return len(text) <= LONGEST_LABEL and _DNS_1035.fullmatch(text) is not None


def is_api_version(text: str) -> bool:
    """Return whether the text is `version` or `group/version`."""
    group, slash, version = text.rpartition("/")
    return is_resource(version) and (is_subdomain(group) if slash else True)


def checked_path(path: str) -> str:
    """Return the URL path unchanged if it needs no escaping or normalization. Raises `InvalidName`."""
    if _URL_PATH.fullmatch(path) is None:
        raise InvalidName(f"{path[:200]!r} is not a path of the API server: a part of it is not a valid name")
    return path


def companion_name(service: str) -> str:
    """Return the name of the Service that selects the pods of a captured Service, which is a valid one of its own."""
    if len(service) + len(_COMPANION_SUFFIX) > LONGEST_LABEL:
        digest = blake2s(service.encode(), digest_size=4).hexdigest()
        kept = LONGEST_LABEL - len(_COMPANION_SUFFIX) - len(digest) - 1
        service = f"{service[:kept].rstrip('-')}-{digest}"
    return f"{service}{_COMPANION_SUFFIX}"


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
