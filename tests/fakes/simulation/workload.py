"""The pods of the simulated service.

On one machine, the reconciler replaces a changed program. In a cluster, Kubernetes rolls out a changed template, and
others may scale the workload.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from reconciler.core.reasons import Diagnosis, Reason
from reconciler.ports.backend import WorkloadStatus
from tests.fakes.simulation.clients import NAME, ROLLOUT

EXITED = Diagnosis(Reason.EXITED, "exit code 1")


class Workload:
    """The pods by address, each with a phase: `starting`, `ready`, `crashed` or `terminating`."""

    def __init__(self, pod_ended: Callable[[str, str], None]) -> None:
        """`pod_ended` receives a pod that stops to serve clients, and why."""
        self._pod_ended = pod_ended
        self.replicas = 0
        self.version = 0
        """Version of the object that has the replicas."""
        self.pods: dict[str, str] = {}
        self.fates: dict[str, str] = {}
        """The reason why a pod is no longer ready."""
        self.programs: dict[str, int] = {}
        """The version of the program of each pod."""
        self.configured = 1
        """The configured version of the program."""
        self.is_asked = False
        """True if the reconciler asked for the configured program."""
        self._addresses = 0

    def ready(self) -> tuple[str, ...]:
        return tuple(pod for pod, phase in self.pods.items() if phase == "ready")

    def status(self) -> WorkloadStatus:
        """Return the present status of the workload."""
        diagnosis = EXITED if "crashed" in self.pods.values() else None
        return WorkloadStatus(NAME, self.replicas, self.ready(), diagnosis)

    def scale_to(self, replicas: int, why: str) -> None:
        """Set the number of replicas; pods that are not needed end because of `why`."""
        self.replicas, self.version = replicas, self.version + 1
        current = [pod for pod in self.pods if self._is_current(pod)]
        for pod in current[replicas:] if replicas else list(self.pods):
            self._remove(pod, why)
        for _ in range(replicas - len(current)):
            self._add()

    def _is_current(self, pod: str) -> bool:
        return self.programs[pod] == self.configured and self.pods[pod] != "terminating"

    def _add(self) -> None:
        self._addresses += 1
        self._start(f"10.0.0.{self._addresses}:80")

    def _start(self, pod: str) -> None:
        self.pods[pod], self.programs[pod] = "starting", self.configured

    def _remove(self, pod: str, why: str) -> None:
        self.fates[pod] = why
        del self.pods[pod], self.programs[pod]
        self._pod_ended(pod, why)

    def get_ready(self) -> None:
        self.pods = {pod: "ready" if phase == "starting" else phase for pod, phase in self.pods.items()}

    def crash(self) -> None:
        for pod in self.pods:
            self.pods[pod], self.fates[pod] = "crashed", "crash"
            self._pod_ended(pod, "crash")

    def start_again(self) -> None:
        for pod, phase in self.pods.items():
            if phase == "crashed":
                self._start(pod)

    # Programs of one machine

    def outdated(self) -> frozenset[str]:
        """Return the service if it runs an earlier program."""
        return frozenset({NAME} if set(self.programs.values()) - {self.configured} else ())

    def restart(self, service: str) -> None:
        """Ask for the configured program."""
        self.is_asked = True

    def change_program(self) -> None:
        """Configure another program; pods that were never ready start again with it."""
        self.configured += 1
        for pod, phase in self.pods.items():
            if phase == "starting":
                self._start(pod)

    def replace_program(self) -> None:
        """Replace the pods if the reconciler asked for it."""
        if self.is_asked and self.replicas:
            replicas = self.replicas
            self.scale_to(0, "rollout")
            self.scale_to(replicas, "")
        self.is_asked = False

    # Templates of a cluster

    def change_template(self) -> None:
        """Start pods of another template beside those of the earlier one, of which the unready ones end."""
        self.configured, self.version = self.configured + 1, self.version + 1
        for pod in [pod for pod, phase in self.pods.items() if phase in ("starting", "crashed")]:
            self._remove(pod, ROLLOUT)
        for _ in range(self.replicas):
            self._add()

    def roll_out(self, used: Collection[str | None]) -> None:
        """Terminate pods of the earlier template once another one is ready; those not in `used` end."""
        is_replaced = any(phase == "ready" and self._is_current(pod) for pod, phase in self.pods.items())
        for pod in [pod for pod in self.pods if self.programs[pod] != self.configured and is_replaced]:
            self.pods[pod], self.fates[pod] = "terminating", ROLLOUT
        for pod in [pod for pod, phase in self.pods.items() if phase == "terminating" and pod not in used]:
            self._remove(pod, ROLLOUT)
