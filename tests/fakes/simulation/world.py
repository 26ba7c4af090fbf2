"""A simulated world around one service, on one machine or in a cluster with any number of replicas.

Nothing happens by itself: each method is one event at the actual time `now`. The actual state is separate from the
reports to the engines, so that a test can compare the two. In a cluster, informers lag, messages wait until a test
delivers or drops them, each replica has its own clock, and it may be frozen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from math import inf

from reconciler.core.reasons import Blocker
from reconciler.core.record import Record, State, Transition
from reconciler.core.spec import Spec
from reconciler.engine.engine import Engine
from reconciler.engine.service import ManagedService, Wake
from reconciler.ports.backend import WorkloadStatus
from tests.fakes.simulation.clients import INSTANT, NAME, NOT_CONFIGURED, Client
from tests.fakes.simulation.elapsed import apply_elapsed
from tests.fakes.simulation.lease import Lease
from tests.fakes.simulation.parts import Parts, cluster_parts, machine_parts
from tests.fakes.simulation.peers import PeerStreams
from tests.fakes.simulation.proxies import Envoy, Holder
from tests.fakes.simulation.replica import Replica
from tests.fakes.simulation.store import Records
from tests.fakes.simulation.workload import Workload

LEADER, MACHINE_HOLDER = "L", "h"
"""The replica that leads first, and the holder of one machine."""


Acks = Callable[[Replica], dict[str, float | None]]
"""Returns the acknowledgements of a replica's Envoys or holders."""


class World:
    """A simulated world with two Envoys. Durations in the spec are short, so that few steps exceed them.

    On one machine, both Envoys use one holder. In a cluster, each has a holder in its pod.
    """

    def __init__(self, spec: Spec, skews: tuple[float, ...] | None = None) -> None:
        """Create one machine, or a cluster with a replica for each of `skews`, the deviations of their clocks."""
        self.is_cluster = skews is not None
        self.original = spec
        self.spec: Spec | None = spec
        """The configured spec; None while the service is removed."""
        self.now = 1_000_000.0
        self.clients: list[Client] = []
        self.transitions: list[Transition] = []
        self.wakes: list[Wake] = []
        self.job: Blocker | None = None
        """The answer of the busy check; None: the program is idle."""
        self.removed_at = 0.0
        self.removals = 0
        """Number of removals of the service's object."""
        self.removal_was_hopeless = False
        """True if the service could not become ready when its object was removed."""
        self.records = Records()
        self.workload = Workload(self._pod_ended)
        names = ("a", "b")
        self.envoys = {name: Envoy(self._holder_of(name), self.now - 100) for name in names}
        self.holders = {name: Holder() for name in dict.fromkeys(map(self._holder_of, names))}
        self.replicas: dict[str, Replica] = {}
        self.peers = PeerStreams(self.replicas, lambda: self.now)
        self.lease = Lease(self.peers, lambda: self.now)
        for name, skew in zip("LFG", skews or (0.0,), strict=False):
            self._start_replica(name, skew)
        if not self.is_cluster:
            self._connect_all()
            self.replica.report_workload()

    def _holder_of(self, envoy: str) -> str:
        return envoy if self.is_cluster else MACHINE_HOLDER

    def saw(self, replica: Replica, transition: Transition, entered_at: float) -> None:
        """Note a transition of a replica, from a state that it entered at the actual time `entered_at`."""
        self.transitions.append(transition)

    # The first replica, which is the only one of a machine

    @property
    def replica(self) -> Replica:
        return self.replicas[LEADER]

    @property
    def engine(self) -> Engine:
        return self.replica.engine

    @property
    def service(self) -> ManagedService:
        return self.replica.service

    @property
    def record(self) -> Record | None:
        return self.replica.record

    @property
    def state(self) -> State | None:
        return self.replica.state

    def is_asleep(self) -> bool:
        """Return whether no pod runs, and every replica knows."""
        states = {replica.state for replica in self.replicas.values()}
        return self.workload.replicas == 0 and states == {State.ScaledToZero}

    def workload_status(self) -> WorkloadStatus:
        """Return the status that backends observe."""
        return self.workload.status()

    # Clients

    def living(self, pod: str | None = None) -> list[Client]:
        return [client for client in self.clients if client.ended is None and (pod is None or client.pod == pod)]

    def held(self) -> list[Client]:
        return [client for client in self.living() if client.pod is None]

    def served(self) -> list[Client]:
        return [client for client in self.living() if client.pod]

    def arrive(self, name: str, lagging_worker: bool = False) -> None:
        """Connect a client to an Envoy, perhaps to a worker that uses the route before."""
        self.now += INSTANT
        envoy, client = self.envoys[name], Client(name, self.now)
        if not envoy.up or not envoy.route:
            return
        envoy.requests += 1
        envoy.bytes += 100
        self.clients.append(client)
        self._connect(client, envoy.route_for(lagging_worker, self.now))
        self.report_counts(envoy.holder)

    def _connect(self, client: Client, route: tuple[str, ...]) -> None:
        if route[0].startswith("127."):
            holder = self.holders[self.envoys[client.envoy].holder]
            if not holder.up or holder.is_closed:
                self.end(client, NOT_CONFIGURED if holder.up else "holder died")
            return
        ready = [pod for pod in route if self.workload.pods.get(pod) == "ready"]
        if ready:
            client.pod, client.direct = ready[0], True
        else:
            self.end(client, self.workload.fates.get(route[0], "no listener"))

    def end(self, client: Client, how: str) -> None:
        client.ended, client.end = self.now, how
        self.report_counts(self.envoys[client.envoy].holder)

    def finish(self, client: Client) -> None:
        self.envoys[client.envoy].bytes += 100
        self.end(client, "served")

    def _pod_ended(self, pod: str, why: str) -> None:
        for client in self.living(pod):
            self.end(client, why)

    # Holders

    def _clients_of(self, holder: str) -> list[Client]:
        return [one for one in self.living() if not one.direct and self.envoys[one.envoy].holder == holder]

    def report_counts(self, name: str) -> None:
        """Report the clients of a holder, if it has a stream."""
        mine, at = self._clients_of(name), self.holders[name].at
        if at:
            replica, held = self.replicas[at], sum(client.pod is None for client in mine)
            replica.deliver(partial(self._counted, replica, name, (held, len(mine) - held)))

    def _counted(self, replica: Replica, name: str, counts: tuple[int, int]) -> None:
        replica.streams.counts[name] = counts
        if name in replica.streams.obeyed:
            replica.report_held()

    def holder_obeys(self, name: str = MACHINE_HOLDER) -> None:
        """Let a holder apply the latest order of its replica."""
        holder = self.holders[name]
        replica = self.replicas[holder.at] if holder.at else None
        if replica is None or replica.is_frozen or not replica.streams.has_order:
            return
        if replica.streams.obeyed.get(name, 0.0) is None:
            holder.apply(replica.streams.order_sent, self.now)
            replica.streams.obeyed[name] = replica.now()
            for client in self._clients_of(name) if holder.is_closed else ():
                if client.pod is None:
                    self.end(client, NOT_CONFIGURED if self.removal_was_hopeless else "refused")
            replica.report_held()

    def holder_releases(self, name: str = MACHINE_HOLDER) -> None:
        order = self.holders[name].order
        ready = [pod for pod in (order.release_to if order else ()) if self.workload.pods.get(pod) == "ready"]
        if self.holders[name].up and ready:
            for client in self._clients_of(name):
                client.pod = client.pod or ready[0]
            self.report_counts(name)

    def holder_dies(self, name: str = MACHINE_HOLDER) -> None:
        self.holder_leaves(name)
        mine, self.holders[name] = self._clients_of(name), Holder(up=False, lost_at=self.now)
        for client in mine:
            self.end(client, "holder died")

    def holder_joins(self, name: str, where: str) -> None:
        """Connect a holder, which starts if it has died, to a replica."""
        holder, replica = self.holders[name], self.replicas[where]
        holder.up = True
        if holder.at is None and not replica.is_frozen:
            holder.at, replica.streams.obeyed[name] = where, None
            replica.report_members()
            self.report_counts(name)

    def holder_leaves(self, name: str = MACHINE_HOLDER) -> None:
        self._leaves(self.holders, name, lambda replica: replica.streams.obeyed)

    # Envoys

    def envoy_obeys(self, name: str) -> None:
        """Let an Envoy apply the latest route of its replica."""
        envoy = self.envoys[name]
        replica = self.replicas[envoy.at] if envoy.at else None
        if replica is None or replica.is_frozen or replica.streams.route_sent is None:
            return
        if replica.streams.acks.get(name, 0.0) is None:
            envoy.apply(replica.streams.route_sent, self.now)
            replica.streams.acks[name] = replica.now()
            replica.report_route()

    def envoy_dies(self, name: str) -> None:
        for client in self.living():
            if client.envoy == name:
                self.end(client, "Envoy died")
        self.envoy_leaves(name)
        self.envoys[name] = Envoy(self._holder_of(name), inf, up=False, lost_at=self.now)

    def envoy_joins(self, name: str, where: str) -> None:
        """Connect an Envoy, which starts if it has died, to a replica."""
        if not self.envoys[name].up:
            self.envoys[name] = Envoy(self._holder_of(name), self.now, lost_at=self.now)
        envoy, replica = self.envoys[name], self.replicas[where]
        if envoy.at is None and not replica.is_frozen:
            envoy.at, replica.streams.acks[name] = where, None
            replica.report_members()

    def envoy_leaves(self, name: str) -> None:
        self._leaves(self.envoys, name, lambda replica: replica.streams.acks)

    def _leaves(self, members: Mapping[str, Envoy | Holder], name: str, acks: Acks) -> None:
        """Break the stream of a member; its replica learns of it unless it is frozen."""

        def lost() -> None:
            if members[name].at != replica.name:  # otherwise it is connected again
                acks(replica).pop(name, None)
                replica.report_members()

        member = members[name]
        if member.at:
            replica, member.at, member.lost_at = self.replicas[member.at], None, self.now
            replica.deliver(lost)

    # Proxy pods of a cluster: an Envoy and a holder of the same name

    def obeys(self, name: str) -> None:
        self.envoy_obeys(name)
        self.holder_obeys(name)

    def joins(self, name: str, where: str) -> None:
        self.envoy_joins(name, where)
        self.holder_joins(name, where)

    def leaves(self, name: str) -> None:
        self.envoy_leaves(name)
        self.holder_leaves(name)

    def proxy_dies(self, name: str) -> None:
        self.envoy_dies(name)
        self.holder_dies(name)

    # The configuration

    def remove(self) -> None:
        """Remove the service from the file of one machine: it has no route, and held clients are refused."""
        self.spec, self.removed_at = None, self.now
        self.replica.configure()
        for name in self.envoys:
            self.envoy_obeys(name)
        self.holder_obeys()
        if not self.replica.lifecycles.removed:
            self.removal_ended(self.replica)

    def removal_ended(self, replica: Replica) -> None:
        """Stop the program of the removed service; in a cluster, the workload stays as it is."""
        if not self.is_cluster:
            timed_out = self.now >= self.removed_at + self.original.drain_timeout
            self.workload.scale_to(0, "drain timed out" if timed_out else "removal")

    def delete(self) -> None:
        """Request the deletion of the service's object in a cluster."""
        if self.spec:
            self.spec = replace(self.spec, departing=True)

    def finalize(self) -> None:
        """Let the leader remove the finalizer of a deleted object that no client needs."""
        leader = self.leader()
        if leader and self.spec and self.spec.departing and leader.is_configured() and not leader.needs_object():
            self.spec, self.removals = None, self.removals + 1
            self.removal_was_hopeless = not leader.service.seen.endpoints
            self.records.saved.pop(NAME, None)

    def add_again(self) -> None:
        """Configure the removed service again."""
        self.spec = self.original
        if not self.is_cluster:
            self.replica.configure()
            self.replica.report_workload()

    def pause(self, paused: bool) -> None:
        """Pause or resume the service: by a command on one machine, by its spec in a cluster."""
        if not self.is_cluster and self.spec:
            self.engine.pause(NAME, paused)
        elif self.is_cluster and self.original.paused != paused:
            self.original = replace(self.original, paused=paused)
            self.spec = self.spec and replace(self.spec, paused=paused)

    # Replicas

    def leader(self) -> Replica | None:
        """Return the replica that leads by the Lease and is not frozen."""
        valid = (replica for replica in self.replicas.values() if replica.is_valid() and not replica.is_frozen)
        return next(valid, None)

    def _start_replica(self, name: str, skew: float) -> None:
        self.replicas[name] = Replica(self, name, skew)
        self.replicas[name].configure()

    def _connect_all(self) -> None:
        for holder in [name for name, one in self.holders.items() if one.up]:
            self.holder_joins(holder, LEADER)
        for envoy in [name for name, one in self.envoys.items() if one.up]:
            self.envoy_joins(envoy, LEADER)

    def restart(self) -> None:
        """Restart the reconciler of one machine after a crash."""
        members: list[Envoy | Holder] = [*self.envoys.values(), *self.holders.values()]
        for member in members:
            member.at = None
        self._start_replica(LEADER, self.replica.skew)
        self._connect_all()

    def restarts(self, name: str, releases: bool) -> None:
        """Replace a replica's process by a new one of the same name."""
        old = self.replicas[name]
        if releases and old.is_valid() and self.lease.holder == name:
            old.zero_arrives()
            self.lease.holder = None
        for link in self.peers.of(name):
            self.peers.end(link)
        self.disconnect_proxies(name)
        old.zero_arrives()
        self._start_replica(name, old.skew)

    def disconnect_proxies(self, name: str) -> None:
        """Break the streams of all Envoys and holders to a replica."""
        for proxy in self.envoys:
            if self.envoys[proxy].at == name:
                self.envoy_leaves(proxy)
            if self.holders[proxy].at == name:
                self.holder_leaves(proxy)

    def freezes(self, name: str) -> None:
        """Freeze the process of a replica."""
        replica = self.replicas[name]
        replica.is_frozen, replica.frozen_at = True, self.now
        self.peers.cut(name)

    def thaws(self, name: str, notices_first: bool = False) -> None:
        """Thaw a replica, which handles queued inputs, perhaps before it reads the Lease."""
        self.replicas[name].is_frozen = False
        if notices_first:
            self.lease.notice(self.replicas[name])
        self.replicas[name].handle_inbox()

    def clock_is_set(self, seconds: float, name: str = LEADER) -> None:
        """Change the wall clock of a replica's machine."""
        self.replicas[name].skew += seconds

    def alarms(self) -> None:
        for replica in self.replicas.values():
            replica.alarm()

    # Time

    def passes(self, seconds: float) -> None:
        """Advance the time without alarms."""
        left = seconds
        while left > 0:
            step = min(left, 0.5)
            left -= step
            self.now += step
            apply_elapsed(self)

    def all_goes_well(self, seconds: int, finishing: bool = True, but: str = "") -> None:
        """Run all components each second without new clients; `but` is the prefix of components that do not run."""
        for _ in range(seconds):
            self._second(finishing, but)

    def all_goes_well_until(self, condition: Callable[[], bool], at_most: int) -> None:
        """Run all components, and let served clients finish, until a condition holds."""
        for _ in range(at_most):
            if condition():
                return
            self._second(True, "")

    def _second(self, finishing: bool, but: str) -> None:
        for part, happens in self.parts().items():
            if not but or not part.startswith(but):
                happens()
        for client in self.served() if finishing else ():
            self.finish(client)
        self.passes(0.5)
        for replica in self.replicas.values():
            if replica.leads and but != "samples" and not (replica.is_frozen and replica.samples):
                replica.take_sample(but.removeprefix("sample of ") if but.startswith("sample of ") else None)
        self.passes(0.5)
        for replica in self.replicas.values():
            replica.deliver_samples()
        if but != "alarms":
            self.alarms()
        if self.is_cluster:
            self._write_records()

    def _write_records(self) -> None:
        for replica in self.replicas.values():
            if not replica.is_frozen:
                replica.store.write(replica.is_valid() and self.spec is not None)

    def parts(self) -> Parts:
        """Return the action of each component, in an order without faults."""
        return cluster_parts(self) if self.is_cluster else machine_parts(self)
