"""Selection of the parts that are served: those of all services, except services with an error.

Pure. A service that is invalid, or has a part that Envoy rejected, keeps the parts that Envoy accepted last. Without
these it has only its cluster, so that its endpoints are kept. It is tried again when its configuration changes. All
other services are served as configured.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import replace

from xds import ir
from xds.resources.translation import Parts, SharedResource, parts
from xds.resources.validation import faults, is_name

Translate = Callable[[ir.Upstream, ir.ListenerOptions], Parts]
LONGEST_MESSAGE = 500
_NONE: Mapping[str, Parts] = {}


class Selection:
    """The parts to serve: `served`, by service, in the order of the configuration. It is never changed in place."""

    def __init__(self, translate: Translate = parts) -> None:
        self._translate = translate
        self.listen: ir.Listen | None = None
        self.configured: dict[str, ir.Upstream] = {}
        """The services of the configuration, by name, in its order."""
        self.good: dict[str, Parts] = {}
        """The parts of valid services, as configured, including those that Envoy rejected."""
        self._mistakes: dict[str, str] = {}
        self._rejected: dict[str, dict[ir.Upstream, str]] = {}
        """The configurations of each service that Envoy rejected, with its message, since they last changed."""
        self.accepted: dict[SharedResource, Mapping[str, Parts]] = {}
        """The parts that were served when Envoy last accepted a shared resource."""
        self.served: Mapping[str, Parts] = _NONE

    @property
    def faults(self) -> dict[str, str]:
        """The errors of services that are not served as configured, by service."""
        present = ((name, found.get(self.configured[name])) for name, found in self._rejected.items())
        return self._mistakes | {name: message for name, message in present if message is not None}

    def choose(self, listen: ir.Listen, services: tuple[ir.Upstream, ...]) -> None:
        """Replace the configuration.

        Raises `ValueError`, and changes nothing, if it is invalid as a whole.
        """
        is_known = self._is_known if listen == self.listen else lambda _: False
        wrong = faults(listen, services, is_known)
        mistakes = {name: _without_name(name, lines) for name, lines in wrong.items()}
        good = {}
        for service in services:
            if service.name not in mistakes:
                try:
                    known = self.good[service.name] if is_known(service) else None
                    good[service.name] = known or self._translate(service, listen.options)
                except ValueError as error:  # such as a character that cannot be encoded
                    mistakes[service.name] = f"cannot be encoded for Envoy: {error}"
        same = {service.name for service in services if service in self._rejected.get(service.name, ())}
        self._rejected = {name: found for name, found in self._rejected.items() if name in same}
        self.configured = {service.name: service for service in services}
        self.listen, self.good, self._mistakes = listen, good, mistakes
        self._compose()

    def reject(self, tried: Mapping[str, Parts], messages: Mapping[str, str]) -> None:
        """Leave out the services that Envoy rejected; `tried` are the parts that were tried, by service."""
        for name, message in messages.items():
            if name in self.configured:  # an inquiry may find a service that was removed meanwhile
                self._rejected.setdefault(name, {})[tried[name].service] = message
        self._compose()

    def pardon(self, names: Container[str]) -> None:
        """Forget the rejections of these services."""
        self._rejected = {name: found for name, found in self._rejected.items() if name not in names}
        self._compose()

    def suspects(self, kind: SharedResource) -> tuple[list[str], list[str]]:
        """Return the services with a part in a shared resource: those whose part Envoy has accepted, and the others."""
        accepted = self.accepted.get(kind, _NONE)
        known: list[str] = []
        new: list[str] = []
        for name, present in self.served.items():
            if part := kind.part(present):
                before = accepted.get(name)
                (known if before and kind.part(before) == part else new).append(name)
        return known, new

    def _is_known(self, service: ir.Upstream) -> bool:
        known = self.good.get(service.name)
        return known is not None and (known.service is service or known.service == service)

    def _compose(self) -> None:
        """Choose what is served: valid parts, and for a service with an error its earlier parts or only its cluster."""
        out = self.faults.keys()
        if not out:
            self.served = self.good
            return
        kept = {name: found for name in out if (found := self._kept(name))}
        good = [service for service in self.configured.values() if service.name not in out]
        assert self.listen is not None
        # A kept part must not take a name or address from a service that is served as configured.
        everyone = [*good, *(found.service for found in kept.values())]
        collides = faults(self.listen, everyone, lambda _: True)
        served = {}
        for name, service in self.configured.items():
            if name not in out:
                served[name] = self.good[name]
            elif name in kept and name not in collides:
                served[name] = kept[name]
            elif is_name(name):
                served[name] = parts(replace(service, leaving=True), self.listen.options)
        self.served = served

    def _kept(self, name: str) -> Parts | None:
        """Return the earlier parts to serve for a service with an error."""
        rejected = self._rejected.get(name, {})
        for found in (self._accepted_whole(name), self.served.get(name)):
            if found and found.service not in rejected:
                return found
        return None

    def _accepted_whole(self, name: str) -> Parts | None:
        """Return the latest parts of a service that Envoy accepted in every shared resource."""
        for accepted in self.accepted.values():
            found = accepted.get(name)
            kinds = [kind for kind in SharedResource if found and kind.part(found)]
            if found and kinds and all(self.accepted.get(kind, _NONE).get(name) is found for kind in kinds):
                return found
        return None


def _without_name(name: str, lines: list[str]) -> str:
    return "; ".join(line.removeprefix(f"service {name}: ") for line in lines)[:LONGEST_MESSAGE]
