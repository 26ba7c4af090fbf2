"""The content of a valid services file: immutable values. Two equal ones mean that nothing changed."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.core.spec import Spec
from reconciler.local.processes import Program
from reconciler.local.services_file.problems import FileProblem
from reconciler.ports.proxy import ProxySettings


@dataclass(frozen=True, slots=True)
class Entry:
    """One service: its spec and its program."""

    spec: Spec
    program: Program


@dataclass(frozen=True, slots=True)
class ServicesFile:
    """A whole file. Durations are in seconds."""

    listen_http: str | None
    """`ip:port` of the shared listener of http, h2c, and auto services."""
    listen_tls: str | None
    """`ip:port` of the shared listener of tls services."""
    proxy: ProxySettings
    """The settings of Envoy's listeners."""
    sample_interval: float
    services: tuple[Entry, ...]
    unavailable: tuple[FileProblem, ...] = ()
    """Programs and folders that are missing on this machine. Their services fail to wake; the others run."""
