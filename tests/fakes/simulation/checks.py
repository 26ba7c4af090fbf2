"""A world that checks each transition against the actual state when it happens."""

from __future__ import annotations

from reconciler.core.events import SleepCommanded
from reconciler.core.judge import SETTLE_SECONDS
from reconciler.core.record import State, Transition
from reconciler.core.spec import UsageUnit
from reconciler.core.traffic import ServiceUsage, Usage
from tests.fakes.simulation.clients import NAME, Client
from tests.fakes.simulation.replica import STALE_AFTER, Replica
from tests.fakes.simulation.world import World

SILENT = "was silent"
"""The end of a client of a service that is idle by bytes, if it sent none for long enough."""


class CheckedWorld(World):
    """A world whose transitions of leaders are checked. All times are actual ones."""

    drain_began_at = sleep_commanded_at = 0.0
    """Times of the latest drain and sleep command; one that arrives during a drain applies to that drain."""

    def sleep(self) -> None:
        """Let a person command a sleep at every replica."""
        self.sleep_commanded_at = self.now
        for replica in self.replicas.values():
            if replica.record and not replica.is_frozen:
                replica.engine.command(NAME, SleepCommanded("requested by a user"))

    def busy(self) -> list[Client]:
        """Return the clients that must not be cut; by bytes, only those that were not silent for long enough."""
        return [client for client in self.living() if not self._may_be_cut(client)]

    def _may_be_cut(self, client: Client) -> bool:
        spec = self.original
        if spec.idle_by is not UsageUnit.BYTES:
            return False
        was_commanded = 0 < self.drain_began_at <= self.sleep_commanded_at
        silence = min(spec.idle_after, spec.drain_timeout / 2) if was_commanded else spec.idle_after
        return self.now - client.arrived >= silence

    def end(self, client: Client, how: str) -> None:
        super().end(client, SILENT if how == "asleep" and self._may_be_cut(client) else how)

    def saw(self, replica: Replica, transition: Transition, entered_at: float) -> None:
        super().saw(replica, transition, entered_at)
        if transition.source is transition.target:
            return
        if transition.target is State.Draining:
            self.drain_began_at = self.now
        if not replica.engine.leads:
            assert transition.target in (State.Waking, State.Active), f"a follower only wakes: {transition}"
            return
        match transition.event:
            case "Quiet":
                self._check_quiet(replica)
            case "IdleElapsed":
                self._check_idle_elapsed(replica, entered_at)
            case "Drained":
                self._check_drained(replica, entered_at)
            case "WakeTimedOut":
                assert replica.service.seen.held == 0
        if transition.target is State.ScaledToZero and transition.event not in ("ReplicasAtZero", "LeaderChanged"):
            self._check_sleep(replica, transition)

    # Checks of one transition

    def _check_sleep(self, replica: Replica, transition: Transition) -> None:
        """Check that the replica leads, and that no client is served or known to be held."""
        assert transition.event in ("Drained", "WakeTimedOut"), transition
        assert replica.is_valid(), "it does not lead"
        assert not self.is_cluster or self.lease.holder == replica.name
        known = [one for one in self.busy() if one.pod or self._is_known_to(replica, one)]
        assert not known, f"asleep although a client is present: {transition} {known}"
        for envoy in self.envoys.values():
            assert not envoy.up or envoy.holds, "an Envoy does not hold"
        for holder in self.holders.values():
            assert not (holder.up and holder.order and holder.order.release_to), "a holder connects to pods"

    def _is_known_to(self, replica: Replica, client: Client) -> bool:
        """Return whether the holder of a client reports to this replica."""
        return self.holders[self.envoys[client.envoy].holder].at == replica.name

    def _check_quiet(self, replica: Replica) -> None:
        traffic = self._traffic(replica)
        assert traffic.usage is Usage.QUIET
        assert replica.sampled_of, "no Envoy was connected, and unknown is not idle"
        assert not self._unseen(replica, self._at(replica, traffic.window_start), traffic)

    def _check_idle_elapsed(self, replica: Replica, since: float) -> None:
        traffic = self._traffic(replica)
        assert traffic.usage is Usage.QUIET
        assert not replica.service.spec.paused
        assert self.now - since >= self.original.idle_after
        assert not self._unseen(replica, since, traffic), "not quiet for all of idleAfter"

    def _check_drained(self, replica: Replica, since: float) -> None:
        """Check that each Envoy and holder has acknowledged, and that a sample followed."""
        traffic = replica.service.seen.traffic
        assert traffic
        assert traffic.usage is not Usage.UNKNOWN
        taken_at = self._at(replica, traffic.taken_at)
        answer, streams = replica.service.seen.busy, replica.streams
        assert replica.envoys(), "no Envoy is connected"
        for name in replica.envoys():
            envoy = self.envoys[name]
            assert envoy.holds
            assert taken_at >= envoy.holds_since + SETTLE_SECONDS, "the sample was too early"
            if envoy.at == replica.name:
                earliest = min(since, streams.route_sent_at)
                self._check_acknowledged(streams.acks[name], envoy.applied_at, earliest, taken_at)
        for name, holder in self.holders.items():
            assert not (holder.up and holder.order and holder.order.release_to)
            if holder.at == replica.name:
                assert holder.order
                earliest = min(since, streams.order_sent_at)
                self._check_acknowledged(streams.obeyed[name], holder.applied_at, earliest, taken_at)
        if replica.service.spec.has_busy_check:
            assert answer and answer.blocker is None, "the check is not answered, or it failed"
            assert self.job is None, "it works without a client"

    def _check_acknowledged(self, ack: float | None, at: float | None, earliest: float, taken_at: float) -> None:
        assert ack is not None and at is not None, "an acknowledgement is missing"
        # A service without known endpoints had the route of the drain before.
        assert at >= earliest, "that acknowledgement was for the route before"
        assert taken_at >= at + SETTLE_SECONDS, "the sample was too early"

    # Samples

    def _at(self, replica: Replica, time: float) -> float:
        """Return the actual time of a sample of a replica."""
        return replica.sampled_at.get(time, 0.0)

    def _traffic(self, replica: Replica) -> ServiceUsage:
        """Return the usage that a replica knows, which must be recent."""
        traffic = replica.service.seen.traffic
        assert traffic
        assert replica.now() - traffic.taken_at <= STALE_AFTER, "an old sample is unknown, and unknown is not idle"
        return traffic

    def _unseen(self, replica: Replica, start: float, traffic: ServiceUsage) -> list[Client]:
        """Return the clients since `start` that a complete sample must include: new and present ones."""
        end = self._at(replica, traffic.taken_at)
        return [
            client
            for client in self.clients
            if self.envoys[client.envoy].started <= client.arrived <= end
            and (client.arrived > start or self._is_seen_after(client, start, end))
        ]

    def _is_seen_after(self, client: Client, start: float, end: float) -> bool:
        """Return whether a sample until `end` includes a client from before `start`: it is present, or it has ended."""
        if self.original.idle_by is UsageUnit.BYTES:
            return client.end == "served" and client.ended is not None and start <= client.ended < end
        return client.ended is None or client.ended > end
