"""Who is not known yet, and who is awake: so that nothing has to look at all services for it. Pure."""

from __future__ import annotations

from reconciler.core.record import Record, State


class Roll:
    """Names of services, by what their records say."""

    def __init__(self) -> None:
        self.unknown: set[str] = set()
        """Whether they run is not known yet."""
        self.awake: set[str] = set()
        """All that are known, but those that sleep."""

    def note(self, name: str, record: Record | None) -> None:
        """This is the service's record now."""
        self.drop(name)
        if record is None:
            self.unknown.add(name)
        elif record.state is not State.ScaledToZero:
            self.awake.add(name)

    def drop(self, name: str) -> None:
        """The service is no more."""
        if name in self.unknown:
            self.unknown.discard(name)
            if not self.unknown:
                self.unknown.clear()  # at the start it was all services, and a set never shrinks by itself
        self.awake.discard(name)
