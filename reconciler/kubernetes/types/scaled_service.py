"""Our own resource, ScaledService, with only the fields that are used: what is not named is skipped, and so cheap.

Rule: plain immutable values; no calls here. A field that the API server leaves out has its zero value; None where zero
would mean something. Counterparts: `objects.py` (metadata, decoders, paths), `builtin.py` (the objects of others),
`informer.py`, which keeps them, and `api.py`, which takes `msgspec.to_builtins` of them.
"""

from __future__ import annotations

from datetime import datetime

from reconciler.kubernetes.types.objects import Condition, ObjectMeta, Struct

GROUP = "zenvoy.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "ScaledService"
PLURAL = "scaledservices"
PREFIX = f"{GROUP}/"
"""Of our labels, annotations and finalizers."""
ENABLED_LABEL = f"{PREFIX}enabled"
MANAGED_LABEL = f"{PREFIX}managed"
"""On a ScaledService that is made of a Service's label and annotations."""
COMMAND_ANNOTATION = f"{PREFIX}command"
"""`<wake|sleep>@<RFC 3339>`; each value is carried out once."""
FINALIZER = f"{PREFIX}restore-replicas"


class TargetRef(Struct, frozen=True):
    """What is scaled. Empty: the default for it."""

    api_version: str = ""
    kind: str = ""
    name: str = ""


class Idle(Struct, frozen=True):
    """What counts as being in use."""

    by: str = ""


class IgnoreAnswer(Struct, frozen=True):
    """What those get that are ignored, while the service does not run."""

    status: int = 200
    body: str = ""


class IgnoreRule(Struct, frozen=True):
    """Some of what is no use of a service. None: not said."""

    paths: tuple[str, ...] | None = None
    user_agents: tuple[str, ...] | None = None
    sources: tuple[str, ...] | None = None
    answer: IgnoreAnswer | None = None


class ScaledServiceSpec(Struct, frozen=True):
    """As it stands in the object: durations are text, and what is not given is None or empty."""

    service: str = ""
    scale_target_ref: TargetRef = TargetRef()
    port: int | str | None = None
    protocol: str = ""
    hosts: tuple[str, ...] = ()
    listen: int | None = None
    replicas: int | str | None = None
    idle_after: str | None = None
    wake_timeout: str | None = None
    hold_timeout: str | None = None
    drain_timeout: str | None = None
    max_held: int | None = None
    idle: Idle = Idle()
    ignore: tuple[IgnoreRule, ...] = ()
    refusal_details: bool = False
    paused: bool = False


class ScaledServiceStatus(Struct, frozen=True):
    """The record, and how it stands. `state` is empty until there is a record."""

    state: str = ""
    target: str = ""
    """What is scaled, as in `Deployment/web`."""
    since: datetime | None = None
    reason: str = ""
    replicas: int = 0
    hold_address: str = ""
    stalled: str | None = None
    zeroed: bool = False
    observed_generation: int = 0
    observed_command: str = ""
    conditions: tuple[Condition, ...] = ()


class ScaledService(Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: ScaledServiceSpec = ScaledServiceSpec()
    status: ScaledServiceStatus = ScaledServiceStatus()
