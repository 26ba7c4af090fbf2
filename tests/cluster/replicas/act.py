"""A service in a chosen state, with the request that keeps it there."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from tests.cluster.replicas.scene import PATIENCE_SECONDS, Scene
from tests.e2e.harness import Reply, until

STAYS = {"idle_after": "10m", "wake_timeout": "150s", "hold_timeout": "170s", "drain_timeout": "150s"}


class Act:
    """One service in one scene."""

    def __init__(self, scene: Scene, name: str, folder: Path, pool: ThreadPoolExecutor) -> None:
        self.scene, self.name, self.gate, self.pool = scene, name, folder / name, pool
        self.path = f"/until{self.gate}"
        self.under_way: Future[Reply] | None = None

    def ask(self, path: str = "/") -> Future[Reply]:
        return self.pool.submit(self.scene.request, self.name, path)

    def bring(self, state: str, **annotations: str) -> None:
        """Bring a new service into a state; a request is in flight in Waking, Active and Draining."""
        scene, name = self.scene, self.name
        scene.serve(name, **{**STAYS, **annotations})
        match state:
            case "ScaledToZero" | "Waking":
                self.sleep()
            case "Active" | "Draining":
                # A new leader, or one with a missing peer, ends each drain at once.
                until("drains may last", lambda: not scene.unknown(), PATIENCE_SECONDS)
                self.under_way = self.ask(self.path)
                until("the service is asked", lambda: f"{name} {self.path}" in scene.kubelet.asked, PATIENCE_SECONDS)
            case "Idle":
                scene.wait(name, "Idle")
        if state == "Waking":
            scene.kubelet.hold(name)
            self.under_way = self.ask()
        if state == "Draining":
            until("it drains", self._drains, PATIENCE_SECONDS)
        scene.wait(name, state)

    def sleep(self) -> None:
        """Put it to sleep, and wait until nothing of it runs."""

        def sleeps() -> bool:
            if self.scene.state(self.name) in ("Active", "Idle"):
                self.scene.command(self.name, "sleep")
            return self.scene.state(self.name) == "ScaledToZero" and self.scene.wanted(self.name) == 0

        until(f"{self.name} sleeps", sleeps, PATIENCE_SECONDS)

    def answered(self) -> None:
        """Assert that the request in flight gets its whole reply."""
        self.gate.touch()
        self.scene.kubelet.let_go(self.name)
        if self.under_way:
            reply = self.under_way.result()
            said = (f"{self.name} /\n", f"{self.name} {self.path}\n")
            assert (reply.status, reply.body.decode() in said) == (200, True), reply

    def lives_on(self) -> None:
        """Assert that it answers, sleeps and wakes again, and that no request was cut."""
        assert self.scene.request(self.name, "/after").body.decode() == f"{self.name} /after\n"
        self.sleep()
        assert self.scene.request(self.name, "/again").body.decode() == f"{self.name} /again\n"
        assert not [cut for cut in self.scene.kubelet.cut if cut.startswith(f"{self.name} ")]

    def _drains(self) -> bool:
        if self.scene.state(self.name) in ("Active", "Idle"):
            self.scene.command(self.name, "sleep")
        return self.scene.state(self.name) == "Draining"
