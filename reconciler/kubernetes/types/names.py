"""Validation of Kubernetes names. Pure.

Text becomes part of a URL or a selector only if it is a valid name, so that it cannot lead anywhere else. The patterns
are those of the API server. The CRD (deploy/chart/crds) has them too, but may be older than this module.
https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
"""

from __future__ import annotations

import re
from hashlib import blake2s

LONGEST_SUBDOMAIN, LONGEST_LABEL = 253, 63
_COMPANION_SUFFIX = "-zenvoy-pods"
_LABEL = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_LABELS = re.compile(_LABEL)
_DNS_1035 = re.compile(r"[a-z](?:[-a-z0-9]*[a-z0-9])?")
_KIND = re.compile(r"[A-Za-z](?:[-A-Za-z0-9]*[A-Za-z0-9])?")
_URL_PATH = re.compile(r"(?:/[A-Za-z0-9][-A-Za-z0-9._:]*)+")
"""No segment is empty, `.`, or `..`, and nothing needs escaping. In a proxy call, a colon separates pod and port."""


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
