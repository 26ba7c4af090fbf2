"""How eagerly one service's endpoints are dialled. Pure: times are arguments; its counterpart is `dial.py`.

Two things are paced. *When to try again* after a refused dial: on a grid that starts at 2 ms and stays at a quarter
percent of the time already waited, so that an endpoint that begins to listen is found at once, and one that takes
long costs little. *How many at once*: an endpoint's accept queue may be as short as five (Python's http.server), and
past it Linux drops the SYN, which would be sent again only after a second. So dials go in bursts; a burst grows with
each success as TCP's window does, and halves when a dial gets no answer, from when on there is a gap between bursts;
and a dial without an answer is given up after a few round trips.
"""

from __future__ import annotations

GRID_SECONDS = 0.002
SLOWEST_SECONDS = 0.050
GRID_SHARE = 1 / 400
CROWD_SECONDS = 0.0002
"""What each service that is probed at the same time adds to everybody's grid: it bounds what probing costs in all."""
MAX_IN_FLIGHT = 64
GAP_SECONDS = 0.001

FIRST_PATIENCE_SECONDS = 0.250
SHORTEST_PATIENCE_SECONDS = 0.020
LONGEST_PATIENCE_SECONDS = 3.0


class Pace:
    """The pace of one service's dials."""

    __slots__ = ("_failing_since", "_in_a_row", "_patience", "_round_trip", "_window", "gap_seconds")

    def __init__(self) -> None:
        self.gap_seconds = 0.0
        """Between two bursts; 0 until a dial got no answer."""
        self._window = 1.0
        self._failing_since: float | None = None
        self._in_a_row = 0
        self._round_trip: float | None = None
        self._patience = FIRST_PATIENCE_SECONDS

    @property
    def window(self) -> int:
        """Dials that may be in flight, and be started in one burst."""
        return int(self._window)

    @property
    def patience(self) -> float:
        """Seconds after which a dial that got no answer is given up."""
        return self._patience

    def succeeded(self, took: float) -> None:
        """A dial was answered after `took` seconds."""
        self._round_trip = took if self._round_trip is None else 0.8 * self._round_trip + 0.2 * took
        self._patience = min(LONGEST_PATIENCE_SECONDS, max(SHORTEST_PATIENCE_SECONDS, 4 * self._round_trip))
        self._window = min(float(MAX_IN_FLIGHT), self._window + (1 / self._window if self.gap_seconds else 1))
        self._failing_since = None
        self._in_a_row = 0

    def refused(self, now: float, endpoints: int, probing: int) -> float:
        """A dial was refused: seconds until the next, 0 if there is an endpoint that was not tried since."""
        if self._failing_since is None:
            self._failing_since = now
            self._in_a_row = 0
        self._in_a_row += 1
        if self._in_a_row % max(1, endpoints):
            return 0.0
        self._window = 1.0
        waited = now - self._failing_since
        return min(SLOWEST_SECONDS, max(GRID_SECONDS, waited * GRID_SHARE, probing * CROWD_SECONDS))

    def unanswered(self) -> None:
        """A dial got no answer within `patience`: the accept queue is full, or nobody is there."""
        self.gap_seconds = GAP_SECONDS
        self._window = max(1.0, self._window / 2)
        self._patience = min(LONGEST_PATIENCE_SECONDS, self._patience * 2)
