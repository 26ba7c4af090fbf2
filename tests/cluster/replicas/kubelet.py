"""The work of a kubelet and the EndpointSlice controller, where there is no node.

A Deployment that has replicas answers HTTP at an address of this machine, which its EndpointSlice lists. Runs in a
thread of its own.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

from reconciler.kubernetes.client.api import MERGE_PATCH, Api, connect
from reconciler.kubernetes.client.errors import ApiError, Unreachable

LOOK_SECONDS = 0.05
PORT = 8080


class Kubelet:
    """The kubelet of one namespace.

    Each service is one server that replies with its name and the path; `/until/PATH` waits until that file exists.
    Requests that are in flight when a service is scaled to zero are cut, and recorded in `cut`.
    """

    def __init__(self, kubeconfig: Path, namespace: str, addresses: dict[str, str]) -> None:
        """Start the thread; `addresses` are the IP addresses of services by name, and may grow."""
        self._kubeconfig, self._namespace, self._addresses = kubeconfig, namespace, addresses
        self._servers: dict[str, asyncio.Server] = {}
        self._writers: dict[str, set[asyncio.StreamWriter]] = {}
        self.cut: list[str] = []
        """Requests that were under way when their service was put to sleep."""
        self.asked: list[str] = []
        """Paths that came to a server, as `name path`."""
        self.ended: list[str] = []
        """Names of services, each time that one is stopped."""
        self._listed: set[str] = set()
        """Names of services whose EndpointSlices list their servers."""
        self._held: set[str] = set()
        self._forgiven: set[str] = set()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()

    def hold(self, name: str) -> None:
        """Let nothing of it start from now on."""
        self._held.add(name)

    def let_go(self, name: str) -> None:
        self._held.discard(name)

    def forgive(self, name: str, path: str) -> None:
        """Do not record that this request was cut, now or later: the test cut it."""
        self._forgiven.add(f"{name} {path}")
        self.cut = [cut for cut in self.cut if cut not in self._forgiven]

    def close(self) -> None:
        self._stopped.set()
        self._thread.join(10)

    async def _run(self) -> None:
        api = await connect(self._kubeconfig)
        while not self._stopped.is_set():
            try:
                await self._look(api)
            except (ApiError, Unreachable):
                pass  # the API server is stopped by some tests
            await asyncio.sleep(LOOK_SECONDS)
        for name in list(self._servers):
            self._stop(name)
        await api.close()

    async def _look(self, api: Api) -> None:
        answer = json.loads(await api.get(f"/apis/apps/v1/namespaces/{self._namespace}/deployments", timeout=2))
        wanted = {item["metadata"]["name"] for item in answer["items"] if item["spec"].get("replicas")}
        for name in wanted - self._servers.keys():
            if name in self._addresses and name not in self._held:
                self._writers[name] = set()
                self._servers[name] = await asyncio.start_server(self._serving(name), self._addresses[name], PORT)
        for name in self._servers.keys() - wanted:
            self._stop(name)
        # By what the API server has taken: a call that fails is repeated.
        for name in self._servers.keys() ^ self._listed:
            await self._say(api, name)
            self._listed ^= {name}

    def _stop(self, name: str) -> None:
        self._servers.pop(name).close()
        for writer in self._writers.pop(name):
            writer.transport.abort()
        self.ended.append(name)

    async def _say(self, api: Api, name: str) -> None:
        ready = [{"addresses": [self._addresses[name]], "conditions": {"ready": True}}] if name in self._servers else []
        slices = f"/apis/discovery.k8s.io/v1/namespaces/{self._namespace}/endpointslices"
        body = {
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": PORT, "protocol": "TCP"}],
            "endpoints": ready,
        }
        try:
            await api.call("POST", slices, body)
        except ApiError as error:
            if error.status != 409:
                raise
            await api.patch(f"{slices}/{name}", {"endpoints": ready}, MERGE_PATCH)

    def _note(self, cut: str) -> None:
        if cut not in self._forgiven:
            self.cut.append(cut)

    def _serving(self, name: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers = self._writers[name]
            writers.add(writer)
            try:
                while head := await reader.readuntil(b"\r\n\r\n"):
                    path = head.split(b" ", 2)[1].decode()
                    self.asked.append(f"{name} {path}")
                    if path.startswith("/until/"):
                        while not Path(path.removeprefix("/until")).exists():
                            await asyncio.sleep(0.01)
                            if writer.transport.is_closing():
                                self._note(f"{name} {path}")
                                return
                    body = f"{name} {path}\n".encode()
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            except (asyncio.IncompleteReadError, OSError):
                pass
            finally:
                writers.discard(writer)
                writer.close()

        return serve
