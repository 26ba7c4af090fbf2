"""The reconciler process of a cluster: one replica, started and ended in order.

Counterparts: `replica.py`, which has its parts, and `reconcile.py`, the process of one machine.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import structlog

from reconciler.app.cluster_settings import Settings
from reconciler.app.replica import Replica
from reconciler.engine.engine import Adapters
from reconciler.kubernetes.client.api import connect
from reconciler.kubernetes.workloads.wake_client import WARM_CONNECTIONS
from reconciler.local.open_files import raise_limit
from reconciler.server import credentials
from reconciler.server.http import report_exhaustion

log = structlog.get_logger()

GRPC_GRACE_SECONDS = 0.5
FLUSH_SECONDS = 3.0
LOOK_SECONDS = 0.05
PLAINTEXT = (
    "the gRPC port is open without TLS: any process that reaches it can read every route, wake services and keep them "
    "awake; remove --plaintext (in the chart: mtls.enabled=true)"
)
SEEN_SECONDS = 15.0
"""How long the first look at all targets may take before the lease is asked for without it."""


class Controller(Replica):
    """The life of one replica."""

    async def run(self) -> None:
        """Until SIGTERM. Raises what broke."""
        report_exhaustion()
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        try:
            await self._http.serve_probes(*self._settings.http)
            if self._settings.inspect:
                await self._http.serve_readings(*self._settings.inspect)
        except OSError:
            await self._backend.close()
            raise
        work = (
            self._catalogue.run(),
            self._replicas.run(),
            self._peers.run(),
            self._store.run(),
            self._events.run(),
            self._finalizers.run(),
            self._sampler.run(),
        )
        optional = [part.run() for part in (self._proxies, self._certificates) if part]
        tasks = [asyncio.create_task(one) for one in (*work, *optional, self._begin())]
        electing = asyncio.create_task(self._elect())
        for task in (*tasks, electing):
            task.add_done_callback(lambda _: stopped.set() if _failed([*tasks, electing]) else None)
        await stopped.wait()
        log.info("stopping")
        faults = _failed([*tasks, electing])
        await self._close(tasks, electing)
        if faults:
            raise faults[0]

    async def _begin(self) -> None:
        """Answer Envoys and holders, once every service is known: a part of the world is shown to nobody."""
        while self._asked is None or not (self._replicas.synced and (self._proxies is None or self._proxies.synced)):
            await asyncio.sleep(LOOK_SECONDS)
        self._alarm.start()
        self._metrics.start()
        merged = self._peers.merged
        self.engine.start(Adapters(self._backend, merged, merged, self._alarm, self._store, self._sampler.ask, merged))
        self._peers.follow(None)
        self._started = True
        self._configure(*self._asked)
        handlers = (self._router.handler(), self._holders.handler(), self._peers.handler())
        self._grpc.add_generic_rpc_handlers(handlers)
        while not (self.engine.synced and self._peers.synced):
            await asyncio.sleep(LOOK_SECONDS)
        await self._certified()
        # Not before: a holder that is told of half of all services refuses whoever waits for the other half.
        self._listen()
        await self._grpc.start()
        self._opened = True
        self._router.open()
        log.info("serving", services=len(self.engine.services), leads=self._leads())

    def _listen(self) -> None:
        if self._certificates:
            self._grpc.add_secure_port(self._settings.grpc, credentials.Server(self._certificates.read).credentials)
        else:
            log.warning(PLAINTEXT, grpc=self._settings.grpc)
            self._grpc.add_insecure_port(self._settings.grpc)

    async def _certified(self) -> None:
        """Return once there is a certificate to serve with: the port is never open without one."""
        while self._certificates:
            try:
                self._certificates.read()
                return
            except credentials.NoCertificates:
                await asyncio.sleep(LOOK_SECONDS)

    async def _elect(self) -> None:
        """Stand for election once all targets were looked at: a new leader begins with what runs."""
        end = time.monotonic() + SEEN_SECONDS
        while not (self._started and self._seen()) and (not self._started or time.monotonic() < end):
            await asyncio.sleep(LOOK_SECONDS)
        await self._elector.run()

    def _seen(self) -> bool:
        return self._reported >= self.engine.services.keys()

    async def _close(self, tasks: list[asyncio.Task[None]], electing: asyncio.Task[None]) -> None:
        """What was said is written first, as who does not lead writes nothing; then the next one may lead."""
        self._closing = True
        self._tell.close()
        if self._leads():
            await asyncio.gather(self._store.flush(FLUSH_SECONDS), self._events.flush(FLUSH_SECONDS))
        electing.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, electing, return_exceptions=True)
        await self._backend.close()  # a zero under way is answered before anybody else may lead
        await self._elector.close()
        await self._peers.close()
        await self._router.close()
        await self._grpc.stop(GRPC_GRACE_SECONDS)
        await self._source.close()
        self._alarm.close()
        self._metrics.close()
        await self._http.close()


async def run_until_stopped(settings: Settings, kubeconfig: Path | None, context: str | None) -> None:
    """Run one replica. Raises `NoCluster` when there is no cluster to talk to."""
    raise_limit()
    api = await connect(kubeconfig, context)
    urgent = await connect(kubeconfig, context, WARM_CONNECTIONS)
    try:
        await Controller(settings, api, urgent).run()
    finally:
        await urgent.close()
        await api.close()


def _failed(tasks: Iterable[asyncio.Task[None]]) -> list[BaseException]:
    ended = [task for task in tasks if task.done() and not task.cancelled()]
    return [error for task in ended if (error := task.exception())]
