"""zenvoy as its chart installs it on the node, and the workloads that sleep there.

It runs the commands that people type: helm, kubectl, curl, psql. The node is this machine, so that Services
are reached from here as pods reach them.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from tests.cluster.crd import has_idle_after
from tests.cluster.harness import TOOL, TOOLING_SECONDS, Cluster, ToolFailed, run
from tests.e2e.harness import until

ROOT = Path(__file__).parent.parent.parent
CHART = ROOT / "deploy" / "chart"
SYSTEM = "zenvoy-system"
VERSION = "0.1.0"
WEB, POSTGRES, CURL = "localhost/web:test", "localhost/postgres:test", "localhost/curl:test"
IMAGES = {
    "zenvoy": f"ghcr.io/zenvoy/zenvoy:{VERSION}",
    "tproxy-rules": f"ghcr.io/zenvoy/zenvoy:{VERSION}-tproxy-rules",
    "envoy": "docker.io/envoyproxy/envoy:v1.40.0",
    "web": WEB,
    "postgres": POSTGRES,
    "curl": CURL,
}
"""By kind (images/build), the names that the chart's values have."""
POSTGRES_PORT = 5432
PATIENCE_SECONDS = 240.0


def load_images(node: Cluster) -> None:
    """Build missing images, and load them into the node. Your own cluster must have them."""
    if node.folder is None:
        return
    wanted = [f"{kind}={name}" for kind, name in IMAGES.items()]
    archives = run(TOOL.parent / "images" / "build", *wanted, timeout=TOOLING_SECONDS).split()
    node.run(TOOL, "load", *archives, timeout=600)


@dataclass(frozen=True)
class Answer:
    """An answer that curl received."""

    status: int
    body: str
    seconds: float


@dataclass
class Release:
    """zenvoy, installed. Made by `install`, ended by `uninstall`."""

    node: Cluster
    values: Mapping[str, str] = field(default_factory=dict)
    """Values for `--set`."""

    def install(self) -> None:
        """Install zenvoy like the README does, with `values`."""
        self.node.run(*self._helm("install"), "--create-namespace", "--wait", "--timeout", "10m", timeout=660)

    def upgrade(self, **values: str) -> None:
        self.node.run(*self._helm("upgrade", values), "--wait", "--timeout", "10m", timeout=660)

    def uninstall(self) -> None:
        self.node.run("helm", "uninstall", "zenvoy", "-n", SYSTEM, "--wait", "--timeout", "10m", timeout=660)
        # A terminating Envoy would join the next installation, and be missing there for minutes. Nothing has to drain.
        self.node.run("kubectl", "delete", "pods", "--all", "--now", "-n", SYSTEM, timeout=300)
        # The next installation need not wait until the Lease has expired.
        self.node.kubectl("delete", "lease", "zenvoy", "-n", SYSTEM, "--ignore-not-found")

    def _helm(self, verb: str, more: Mapping[str, str] | None = None) -> list[str]:
        command = ["helm", verb, "zenvoy", str(CHART), "-n", SYSTEM]
        for key, value in {**self.values, **(more or {})}.items():
            command += ["--set", f"{key}={value}"]
        return command

    @property
    def address(self) -> str:
        """Return the address of the proxy's Service."""
        return self.node.kubectl("get", "service", "-n", SYSTEM, "zenvoy-proxy", "-o", "jsonpath={.spec.clusterIP}")

    def owners(self, component: str) -> set[str]:
        """Return the kinds of the owners of the component's pods that are not terminating."""
        labelled = f"app.kubernetes.io/component={component}"
        pods = json.loads(self.node.kubectl("get", "pods", "-n", SYSTEM, "-l", labelled, "-o", "json"))["items"]
        live = [pod["metadata"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        return {owner["kind"] for one in live for owner in one["ownerReferences"]}

    def curl(self, host: str, path: str = "/", *options: str, seconds: float = 60) -> Answer:
        """Run `curl -H 'Host: …' http://<zenvoy-proxy>:10000/`. Raises `ToolFailed` if the connection breaks."""
        return curl(f"http://{self.address}:10000{path}", "-H", f"Host: {host}", *options, seconds=seconds)

    def refusal(self, host: str, *words: str) -> Answer:
        """Return the refusal with these words. A client that comes early may be refused before they are known."""

        def asked() -> Answer | None:
            answer = self.curl(host)
            assert answer.status == 503, answer
            return answer if all(word in answer.body for word in words) else None

        return until(f"a refusal of {host} with {words}", asked, PATIENCE_SECONDS)

    def explained(self) -> str:
        """Return the state of the cluster, for a failed test."""
        shown = []
        for command in (
            ("get", "pods", "-A", "-o", "wide"),
            ("get", "ssvc", "-A", "-o", "wide"),
            ("get", "events", "-A", "--sort-by=.lastTimestamp"),
            ("logs", "-n", SYSTEM, "-l", "app.kubernetes.io/component=reconciler", "--tail=60", "--prefix"),
            (
                "logs",
                "-n",
                SYSTEM,
                "-l",
                "app.kubernetes.io/component=proxy",
                "--all-containers",
                "--tail=40",
                "--prefix",
            ),
        ):
            try:
                shown.append(self.node.kubectl(*command)[-8000:])
            except ToolFailed as error:
                shown.append(str(error))
        return "\n".join(shown)


def curl(url: str, *options: str, seconds: float = 60) -> Answer:
    """Send a request with curl. Raises `ToolFailed` if there is no answer."""
    before = time.monotonic()
    said = run("curl", "-sS", "--max-time", f"{seconds}", "-w", "\n%{http_code}", *options, url, timeout=seconds + 10)
    body, _, status = said.rpartition("\n")
    return Answer(int(status), body, time.monotonic() - before)


@dataclass(frozen=True)
class Shop:
    """A namespace with things to put to sleep."""

    node: Cluster
    namespace: str

    def apply(self, *objects: Mapping[str, Any]) -> None:
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.node.kubectl("apply", "-n", self.namespace, "-f", "-", given=json.dumps(listed))

    def host(self, name: str) -> str:
        """Return the host that clients use."""
        return f"{name}.{self.namespace}"

    def on_disk(self, name: str) -> Path:
        """Return a folder of the node that every user of its pods may write to."""
        assert self.node.folder, "only on a node that the tests started"
        folder = self.node.folder / "data" / f"{name}-{secrets.token_hex(4)}"
        folder.mkdir(parents=True)
        folder.chmod(0o777)
        return folder

    def kubectl(self, *arguments: str) -> str:
        return self.node.kubectl("-n", self.namespace, *arguments)

    def get(self, kind: str, name: str) -> Any:
        return json.loads(self.kubectl("get", kind, name, "-o", "json"))

    def label(self, name: str, **annotations: str) -> None:
        """Run `kubectl label service NAME zenvoy.dev/enabled=true`; annotations as `idle_after="2s"`.

        Without `capture`, the Service is not captured, as a capture postpones the first sleep by seconds.
        """
        annotations = {"capture": "none", **annotations}
        said = [f"zenvoy.dev/{key.replace('_', '-')}={value}" for key, value in annotations.items()]
        self.kubectl("annotate", "--overwrite", "service", name, *said)
        self.kubectl("label", "--overwrite", "service", name, "zenvoy.dev/enabled=true")

    def idles_after(self, name: str, idle_after: str) -> None:
        """Change the annotation of a labelled Service, and wait until the leader has observed it."""
        self.label(name, idle_after=idle_after)
        until(
            f"the leader observes idleAfter of {name}",
            lambda: has_idle_after(self.get("ssvc", name), idle_after),
            PATIENCE_SECONDS,
        )

    def make_ready(self, name: str) -> None:
        """Let the pod of a service become ready that has `READY="503"` in its environment."""
        address = ("get", "pods", "-l", f"app={name}", "-o", "jsonpath={.items[*].status.podIP}")

        def is_told() -> bool:
            try:
                return curl(f"http://{self.kubectl(*address)}:8080/ready?status=200", "-X", "PUT").status == 200
            except ToolFailed:  # it does not listen yet
                return False

        until(f"{name} becomes ready", is_told, PATIENCE_SECONDS)

    def state(self, name: str) -> str:
        """Return the state that `kubectl get ssvc` shows; empty if there is none."""
        try:
            return self.kubectl("get", "ssvc", name, "-o", "jsonpath={.status.state}")
        except ToolFailed:
            return ""

    def until(self, name: str, *states: str, seconds: float = PATIENCE_SECONDS) -> None:
        seen: list[str] = []

        def reached() -> bool:
            state = self.state(name)
            if state not in seen[-1:]:
                seen.append(state)
            return state in states

        try:
            until(f"{name} in {states}", reached, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; was {seen}") from None

    def until_asleep(self, name: str, kind: str = "deployment") -> None:
        """Wait until a service sleeps and its workload is at zero, of which either may come first."""
        self.until(name, "ScaledToZero")
        until(f"{name} is at zero", lambda: self.replicas(name, kind) == 0, PATIENCE_SECONDS)

    def until_rolled_out(self, *names: str, kind: str = "deployment") -> None:
        """Wait until all pods of these workloads are ready."""
        for name in names:
            self.kubectl("rollout", "status", f"{kind}/{name}", "--timeout=240s")

    def replicas(self, name: str, kind: str = "deployment") -> int:
        return int(self.get(kind, name)["spec"].get("replicas", 0))

    def events(self, name: str) -> set[str]:
        """Return the reasons of the Events on the ScaledService."""
        return set(self.reported(name))

    def reported(self, name: str) -> dict[str, str]:
        """Return the text of the latest Event on the ScaledService, by reason."""
        said = self.kubectl("get", "events", "--field-selector", f"involvedObject.name={name}", "-o", "json")
        events = sorted(json.loads(said)["items"], key=lambda event: event["metadata"]["creationTimestamp"])
        return {event["reason"]: event["message"] for event in events}

    def first_client(self, name: str) -> str:
        """Return the client that woke a service, from the Event; assert that it is not Envoy or another pod."""
        reported = self.reported(name)["WakeRequested"]
        said = re.search(r", first client ([\d.]+)(?::\d+)? through Envoy", reported)
        assert said, reported
        pods = self.node.kubectl("get", "pods", "-A", "-o", "jsonpath={.items[*].status.podIP}").split()
        assert said[1] not in pods
        assert not ip_address(said[1]).is_loopback
        return said[1]


@contextmanager
def new_shop(node: Cluster) -> Iterator[Shop]:
    """Provide a new namespace on a node, which is deleted at the end of the block."""
    name = f"shop-{secrets.token_hex(2)}"
    node.kubectl("create", "namespace", name)
    yield Shop(node, name)
    node.kubectl("delete", "namespace", name, "--wait=false")


def web(name: str, replicas: int = 1, image: str = WEB, **environment: str) -> list[dict[str, Any]]:
    """Return a Deployment and its Service on port 80."""
    container = {
        "name": "web",
        "image": image,
        "ports": [{"name": "http", "containerPort": 8080}],
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 1},
    }
    return [
        workload("Deployment", name, container, replicas),
        service(name, 80, "http"),
    ]


def postgres(name: str, folder: Path) -> list[dict[str, Any]]:
    """Return a StatefulSet whose data outlives its pods in a folder of the node, and its Service."""
    container = {
        "name": "postgres",
        "image": POSTGRES,
        "ports": [{"name": "postgres", "containerPort": POSTGRES_PORT}],
        "readinessProbe": {"tcpSocket": {"port": "postgres"}, "periodSeconds": 1},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    made = workload("StatefulSet", name, container, 1)
    made["spec"]["serviceName"] = name
    made["spec"]["template"]["spec"]["volumes"] = [{"name": "data", "hostPath": {"path": str(folder)}}]
    return [made, service(name, POSTGRES_PORT, "postgres")]


def workload(kind: str, name: str, container: Mapping[str, Any], replicas: int) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}},
        },
    }


def service(name: str, port: int, target: str) -> dict[str, Any]:
    ports = [{"name": target, "port": port, "targetPort": target}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": ports},
    }


def psql(address: str, statement: str) -> str:
    """Return the output of psql."""
    target = f"host={address} port={POSTGRES_PORT} user=postgres dbname=postgres connect_timeout=90"
    return run("psql", "--no-psqlrc", "--tuples-only", "--no-align", target, "-c", statement, timeout=120).strip()
