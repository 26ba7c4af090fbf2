"""Parts of the tests of the CLI: the command, objects in the state of a controller's, and a fake controller."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from reconciler.kubernetes.client.api import MERGE_PATCH, Api
from reconciler.kubernetes.client.errors import ApiError
from reconciler.kubernetes.types.objects import path
from reconciler.kubernetes.types.scaled_service import API_VERSION, COMMAND_ANNOTATION, KIND, PLURAL
from tests.xds.parts import until_async

BIN = Path(sys.executable).parent
PATIENCE_SECONDS = 60.0
CONTROLLER_SECONDS = 240.0
"""Longest time until a controller manager has seen a change, perhaps after the API server was away."""
SINCE = "2026-01-02T03:04:05.678000Z"


@dataclass(frozen=True, slots=True)
class Done:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Cli:
    """`zenvoy` against one cluster, in one namespace unless another is named."""

    def __init__(self, kubeconfig: Path, namespace: str, folder: Path) -> None:
        self._kubeconfig, self.namespace, self._folder = kubeconfig, namespace, folder

    async def __call__(self, *arguments: str, program: str = "zenvoy", code: int | None = 0) -> Done:
        """Run the command until it ends; with `code` None, with any exit code."""
        async with self.running(*arguments, program=program) as process:
            async with asyncio.timeout(PATIENCE_SECONDS):
                out, err = await process.communicate()
        done = Done(process.returncode or 0, out.decode(), err.decode())
        assert "Traceback" not in done.err, done.err
        assert code is None or done.code == code, done
        return done

    @asynccontextmanager
    async def running(self, *arguments: str, program: str = "zenvoy") -> AsyncIterator[asyncio.subprocess.Process]:
        """Provide the process, which is stopped at the end of the block."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ZENVOY_")}
        process = await asyncio.create_subprocess_exec(
            BIN / program,
            *arguments,
            cwd=self._folder,
            env={**inherited, "KUBECONFIG": str(self._kubeconfig), "COLUMNS": "200"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


class Objects:
    """Makes objects in one namespace."""

    def __init__(self, api: Api, namespace: str) -> None:
        self.api, self.namespace = api, namespace

    async def make(self, api_version: str, plural: str, body: dict[str, Any], namespace: str | None = "") -> Any:
        """Create an object; `namespace` None: one that is in none."""
        within = self.namespace if namespace == "" else namespace
        where = path(api_version, plural, within)
        return json.loads(await self.api.call("POST", where, {"apiVersion": api_version, **body}))

    async def pod(self, body: dict[str, Any]) -> None:
        """Create a pod, once the controllers have made the ServiceAccount that every pod of a namespace needs."""
        account = path("v1", "serviceaccounts", self.namespace, "default")

        async def is_there() -> bool:
            return await self._found(account) is not None

        await until_async(is_there, "the namespace has a ServiceAccount", CONTROLLER_SECONDS)
        await self.make("v1", "pods", {"kind": "Pod", **body})

    async def scaled_service(self, name: str, spec: dict[str, Any] | None = None, **status: Any) -> None:
        """Create a ScaledService with a status as the controller leaves it."""
        await self.make(API_VERSION, PLURAL, {"kind": KIND, "metadata": {"name": name}, "spec": spec or {}})
        if status:
            await self.status(name, **status)

    async def status(self, name: str, **status: Any) -> None:
        where = path(API_VERSION, PLURAL, self.namespace, name, "status")
        await self.api.patch(where, {"status": status}, MERGE_PATCH)

    async def change(self, name: str, patch: dict[str, Any]) -> None:
        """Apply a merge patch."""
        await self.api.patch(path(API_VERSION, PLURAL, self.namespace, name), patch, MERGE_PATCH)

    async def get(self, name: str, api_version: str = API_VERSION, plural: str = PLURAL) -> Any:
        return json.loads(await self.api.get(path(api_version, plural, self.namespace, name)))

    async def find(self, name: str) -> Any:
        """Return a ScaledService, or None if there is none."""
        return await self._found(path(API_VERSION, PLURAL, self.namespace, name))

    async def _found(self, where: str) -> Any:
        try:
            return json.loads(await self.api.get(where))
        except ApiError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            return None

    async def deployment(self, name: str, replicas: int | None = 1, **metadata: Any) -> None:
        await self.make("apps/v1", "deployments", deployment(name, replicas, **metadata))

    async def answering(self, name: str, *states: str, reason: str = "requested by a user") -> str:
        """Stand in for the leader: wait for a command, take the object through these states, and return the command."""
        while not (command := (await self.get(name))["metadata"].get("annotations", {}).get(COMMAND_ANNOTATION)):
            await asyncio.sleep(0.02)
        for state in states:
            await self.status(name, observedCommand=command, **entered(state, reason))
        return str(command)


def entered(state: str, reason: str = "", **more: Any) -> dict[str, Any]:
    """Return the status of a service that has just entered a state."""
    since = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return {"state": state, "since": since, "reason": reason, "holdAddress": "127.64.0.7:18001", **more}


def condition(kind: str, status: str, reason: str, message: str = "") -> dict[str, Any]:
    found = {"type": kind, "status": status, "reason": reason, "message": message}
    return {**found, "lastTransitionTime": "2026-01-02T03:04:05Z", "observedGeneration": 1}


def deployment(name: str, replicas: int | None = 1, **metadata: Any) -> dict[str, Any]:
    """Return a program that does not exist."""
    labels = {"app": name}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "example/main:1"}]}}
    spec: dict[str, Any] = {"selector": {"matchLabels": labels}, "template": pod}
    if replicas is not None:
        spec["replicas"] = replicas
    return {"kind": "Deployment", "metadata": {"name": name, **metadata}, "spec": spec}


@dataclass
class FakeController:
    """A real HTTP server in place of the controller's, with prepared answers by path."""

    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def start(self) -> Callable[[], None]:
        """Start to serve, and return a function that stops it."""
        server = ThreadingHTTPServer(("0.0.0.0", 0), self._handler())
        Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}"

        def end() -> None:
            server.shutdown()
            server.server_close()

        return end

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        controller = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                controller.asked.append(self.path)
                found = controller.answers.get(self.path)
                body = json.dumps({"error": f"there is no {self.path}"} if found is None else found).encode()
                self.send_response(404 if found is None else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Keep the log out of the tests' output."""

        return Handler
