"""Pacing of the dials to the endpoints of one service. Pure: times are arguments. Counterpart: `dialer.py`.

*When to retry* after refused dials: at intervals that start at 2 ms and stay at a quarter percent of the time since the
first refusal. An endpoint that begins to listen is found at once, and one that takes long costs little.

*How many at once*: the accept queue of an endpoint may be as short as five (Python's http.server). If it is full, Linux
drops the SYN, which is sent again only after a second. Dials are therefore started in bursts. A burst grows with each
success, as TCP's window does, and halves when a dial is not answered; from then on there is a gap between bursts. A
dial that is not answered is abandoned after a few round trips.

*After a lost connection*, which the endpoint accepted and ended without an answer, there is one dial at a time with
pauses between them, until a connection is answered.
"""

from __future__ import annotations

from dataclasses import dataclass

RETRY_SECONDS_MIN = 0.002
RETRY_SECONDS_MAX = 0.050
RETRY_SHARE = 1 / 400
RETRY_SECONDS_PER_SERVICE = 0.0002
"""Added to the interval of every service for each service that is retried at the same time: it bounds the total
cost."""
MAX_IN_FLIGHT = 64
GAP_SECONDS = 0.001

LOST_SECONDS_MIN = 0.010
LOST_SECONDS_MAX = 0.250
LOST_SHARE = 1 / 20
"""Share of the time since the first lost connection, as the pause before the next dial."""

TIMEOUT_SECONDS_FIRST = 0.250
TIMEOUT_SECONDS_MIN = 0.020
TIMEOUT_SECONDS_MAX = 3.0


@dataclass(slots=True)
class DialPace:
    """The pace of the dials of one service."""

    gap_seconds: float = 0.0
    """Pause between two bursts; 0 until a dial is not answered."""
    timeout_seconds: float = TIMEOUT_SECONDS_FIRST
    """Time after which a dial that is not answered is abandoned."""
    _window: float = 1.0
    _failing_since: float | None = None
    _refused_in_a_row: int = 0
    _round_trip: float | None = None
    _losing_since: float | None = None

    @property
    def window(self) -> int:
        """Maximum number of dials in flight and in one burst."""
        return int(self._window)

    @property
    def is_losing(self) -> bool:
        """True from the first lost connection until one is answered."""
        return self._losing_since is not None

    def lost(self, now: float) -> float:
        """Record a connection that the endpoint ended without an answer; return the seconds until the next dial."""
        if self._losing_since is None:
            self._losing_since = now
        self._window = 1.0
        return min(LOST_SECONDS_MAX, max(LOST_SECONDS_MIN, (now - self._losing_since) * LOST_SHARE))

    def answered(self) -> None:
        """Record the first byte of an endpoint."""
        self._losing_since = None

    def succeeded(self, seconds: float) -> None:
        """Record a dial that succeeded after `seconds`."""
        self._round_trip = seconds if self._round_trip is None else 0.8 * self._round_trip + 0.2 * seconds
        self.timeout_seconds = min(TIMEOUT_SECONDS_MAX, max(TIMEOUT_SECONDS_MIN, 4 * self._round_trip))
        if not self.is_losing:
            self._window = min(float(MAX_IN_FLIGHT), self._window + (1 / self._window if self.gap_seconds else 1))
        self._failing_since = None
        self._refused_in_a_row = 0

    def refused(self, now: float, endpoints: int, retrying: int) -> float:
        """Record a refused dial and return the seconds until the next one; 0 if an endpoint was not tried since.

        `retrying` is the number of services whose dials are refused at present.
        """
        if self._failing_since is None:
            self._failing_since = now
        self._refused_in_a_row += 1
        if self._refused_in_a_row % max(1, endpoints):
            return 0.0
        self._window = 1.0
        share = (now - self._failing_since) * RETRY_SHARE
        return min(RETRY_SECONDS_MAX, max(RETRY_SECONDS_MIN, share, retrying * RETRY_SECONDS_PER_SERVICE))

    def unanswered(self) -> None:
        """Record a dial that was not answered: the accept queue is full, or the host is down."""
        self.gap_seconds = GAP_SECONDS
        self._window = max(1.0, self._window / 2)
        self.timeout_seconds = min(TIMEOUT_SECONDS_MAX, self.timeout_seconds * 2)
