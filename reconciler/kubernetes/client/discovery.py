"""Discovery of the resource of an `apiVersion` and `kind`, and of its scale subresource.

A resource that was found is cached until `forget`; one that was not found is looked up again.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import msgspec

from reconciler.core.reasons import Diagnosis, Reason
from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.types.objects import api_path, decoder, is_resource, path

PLAIN = frozenset(
    {("apps/v1", "Deployment"), ("apps/v1", "ReplicaSet"), ("apps/v1", "StatefulSet"), ("v1", "ReplicationController")}
)


class NoSuchKind(Exception):
    """The API server has no such kind, or the kind cannot be scaled."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        super().__init__(str(diagnosis))
        self.diagnosis = diagnosis


@dataclass(frozen=True, slots=True)
class ScalableResource:
    """A resource with a scale subresource."""

    api_version: str
    kind: str
    plural: str

    @property
    def resource(self) -> str:
        """Its name in RBAC and kubectl, such as `deployments.apps`."""
        group = self.api_version.rpartition("/")[0]
        return f"{self.plural}.{group}" if group else self.plural

    @property
    def is_plain(self) -> bool:
        """True if `spec.replicas` is known to be the number of replicas; other kinds need the scale subresource."""
        return (self.api_version, self.kind) in PLAIN

    def path(self, namespace: str | None) -> str:
        """Return the path of all objects of a namespace, or of all namespaces."""
        return path(self.api_version, self.plural, namespace)

    def scale_path(self, namespace: str, name: str) -> str:
        """Return the path of an object's scale subresource."""
        return path(self.api_version, self.plural, namespace, name, "scale")


class _Resource(msgspec.Struct):
    name: str = ""
    kind: str = ""
    namespaced: bool = False


class _Group(msgspec.Struct):
    name: str = ""
    versions: list[dict[str, str]] | None = None


class _Document(msgspec.Struct):
    """The resources of an API version, or all groups."""

    resources: list[_Resource] | None = None
    groups: list[_Group] | None = None


_DECODE = decoder(_Document)


class Discovery:
    """A cached view of the discovery documents."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._known: dict[str, list[_Resource]] = {}

    async def find(self, api_version: str, kind: str) -> ScalableResource:
        """Return the resource of a kind.

        Raises `NoSuchKind`, or `ApiError`, `Unreachable`, or `msgspec.DecodeError` if the lookup fails.
        """
        if found := _find_scalable(self._known.get(api_version, []), api_version, kind):
            return found
        answer = await self._api.find(api_path(api_version))
        if answer is None:
            raise NoSuchKind(await self._explain_missing_version(api_version))
        resources = _DECODE(answer).resources or []
        if found := _find_scalable(resources, api_version, kind):
            self._known[api_version] = resources
            return found
        self.forget(api_version)
        raise NoSuchKind(_explain_missing(resources, api_version, kind))

    def forget(self, api_version: str) -> None:
        """Remove an API version from the cache."""
        self._known.pop(api_version, None)

    async def _explain_missing_version(self, api_version: str) -> Diagnosis:
        group = api_version.rpartition("/")[0]
        groups = {one.name: one for one in _DECODE(await self._api.get("/apis")).groups or ()}
        if group in groups:
            versions = ", ".join(f"{group}/{one.get('version', '')}" for one in groups[group].versions or ())
            message = f"{api_version}, but {versions}"
        elif not group:
            message = f"{api_version}; apiVersion is `group/version`, as in apps/v1"
        elif near := difflib.get_close_matches(group, groups, 1):
            message = f"group {group}; did you mean {near[0]}?"
        else:
            message = f"group {group}; is its CustomResourceDefinition installed?"
        return Diagnosis(Reason.NO_SUCH_KIND, f"the API server has no {message}")


def _find_scalable(resources: list[_Resource], api_version: str, kind: str) -> ScalableResource | None:
    scales = {one.name for one in resources if one.name.endswith("/scale") and one.kind == "Scale"}
    for one in resources:
        if one.kind == kind and one.namespaced and is_resource(one.name) and f"{one.name}/scale" in scales:
            return ScalableResource(api_version, kind, one.name)
    return None


def _explain_missing(resources: list[_Resource], api_version: str, kind: str) -> Diagnosis:
    """Return a diagnosis of a kind that is missing or cannot be scaled."""
    main = [one for one in resources if "/" not in one.name]
    same = next((one for one in main if one.kind == kind), None)
    if same is not None:
        why = "has no scale subresource" if same.namespaced else "is not namespaced"
        return Diagnosis(Reason.NOT_SCALABLE, f"{kind} ({api_version}) {why}")
    by_name = {name: one.kind for one in main for name in (one.name, one.kind.lower(), one.kind)}
    near = by_name.get(kind.lower()) or next(
        (by_name[name] for name in difflib.get_close_matches(kind, by_name, 1)), None
    )
    advice = f"; did you mean {near}?" if near else ""
    return Diagnosis(Reason.NO_SUCH_KIND, f"{api_version} has no kind {kind}{advice}")
