"""Commands against a real API server: their output, their changes there, and their exit codes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import yaml

from reconciler.kubernetes.types.objects import path
from reconciler.kubernetes.types.scaled_service import API_VERSION, COMMAND_ANNOTATION, PLURAL
from tests.cluster.cli.parts import SINCE, Cli, FakeController, Objects, condition, entered

FIELDS = {"name", "state", "since", "reason", "held", "relayed", "requests", "deadline", "lastWake"}
LIVE = {"held": 2, "relayed": 1, "requests": 17, "deadline": None, "lastWake": None, "state": "Waking"}


async def test_status_table_looks_like_kubectl(cli: Cli, objects: Objects) -> None:
    asleep = [condition("Ready", "True", "ScaledToZero", "idle for 5m")]
    await objects.scaled_service("web", state="ScaledToZero", since=SINCE, reason="idle for 5m", conditions=asleep)
    broken = [condition("Ready", "False", "BadSpec", "spec.port: the Service has no port 'htpp'; write http")]
    await objects.scaled_service("bad", {"scaleTargetRef": {"kind": "StatefulSet", "name": "db"}}, conditions=broken)
    await objects.scaled_service(
        "slow", {"paused": True}, **entered("Waking", "a client is waiting", stalled="no image")
    )
    head, *rows = [line.rstrip() for line in (await cli("status", "-n", cli.namespace)).out.splitlines()]
    assert head.split() == ["NAME", "STATE", "TARGET", "READY", "SINCE", "WHY"]
    assert [row.split()[:3] for row in rows] == [
        ["bad", "Unknown", "StatefulSet/db"],
        ["slow", "Waking", "(paused)"],
        ["web", "ScaledToZero", "Deployment/web"],
    ]
    assert rows[0].endswith("spec.port: the Service has no port 'htpp'; write http")
    assert rows[1].endswith("no image")
    assert rows[2].split()[3] == "True" and rows[2].endswith("idle for 5m")
    one = (await cli("status", "web", "-n", cli.namespace)).out
    assert "web" in one and "slow" not in one
    head, *rows = (await cli("status", "-A")).out.rstrip().splitlines()
    assert head.split()[:2] == ["NAMESPACE", "NAME"]
    assert [row.split()[1] for row in rows if row.startswith(f"{cli.namespace} ")] == ["bad", "slow", "web"]


async def test_status_selects_by_state_and_problem(cli: Cli, objects: Objects) -> None:
    asleep = [condition("Ready", "True", "ScaledToZero", "idle for 5m")]
    for number in range(20):
        await objects.scaled_service(f"web-{number}", **entered("ScaledToZero", "idle for 5m", conditions=asleep))
    broken = [condition("Ready", "False", "BadSpec", "spec.port: write http")]
    await objects.scaled_service("bad", **entered("Active", "reachable", conditions=broken))
    total = "21 services: 20 ScaledToZero, 1 Active; 1 with a problem"
    assert (await cli("status", "-n", cli.namespace)).out.splitlines()[0] == total
    for options in (("--problems",), ("--state", "active")):
        first, _, *rows = (await cli("status", "-n", cli.namespace, *options)).out.rstrip().splitlines()
        assert first == total and [row.split()[0] for row in rows] == ["bad"]
    answer = json.loads((await cli("status", "-n", cli.namespace, "--problems", "-o", "json")).out)
    assert [one["name"] for one in answer["services"]] == [f"{cli.namespace}/bad"]


async def test_status_json_has_the_controllers_figures(cli: Cli, objects: Objects, controller: FakeController) -> None:
    await objects.scaled_service("web", state="ScaledToZero", since=SINCE, reason="idle for 5m")
    key = f"{cli.namespace}/web"
    controller.answers = {
        f"/v1/services/{key}": {"name": key, **LIVE},
        "/v1/services": {"services": [{"name": key, **LIVE}], "envoys": [], "holders": ["holder-1"]},
    }
    where = ("-n", cli.namespace, "--controller", controller.url)
    done = await cli("status", "web", "-o", "json", *where)
    assert done.json.keys() >= FIELDS and done.err == ""
    assert (done.json["name"], done.json["held"], done.json["state"], done.json["live"]) == (key, 2, "Waking", True)
    many = yaml.safe_load((await cli("status", "-o", "yaml", *where)).out)
    assert many["holders"] == ["holder-1"]
    assert [(one["name"], one["requests"], one["target"]) for one in many["services"]] == [(key, 17, "Deployment/web")]


async def test_status_without_controller_is_noted(cli: Cli, objects: Objects) -> None:
    await objects.scaled_service("web", state="ScaledToZero", since=SINCE, reason="idle for 5m")
    done = await cli("status", "web", "-o", "json", "-n", cli.namespace, "--system-namespace", cli.namespace)
    assert "without live figures" in done.err and f"{cli.namespace}/zenvoy has no holder" in done.err
    assert done.json.keys() >= FIELDS
    assert (done.json["state"], done.json["since"], done.json["held"]) == (
        "ScaledToZero",
        "2026-01-02T03:04:05.678+00:00",
        None,
    )
    lease = {"kind": "Lease", "metadata": {"name": "zenvoy"}, "spec": {"holderIdentity": "zenvoy-0"}}
    await objects.make("coordination.k8s.io/v1", "leases", lease)
    done = await cli("status", "-o", "json", "-n", cli.namespace, "--system-namespace", cli.namespace)
    assert "the controller zenvoy-0 does not answer through the API server" in done.err
    assert [one["name"] for one in done.json["services"]] == [f"{cli.namespace}/web"]


async def test_status_watch_shows_changes(cli: Cli, objects: Objects) -> None:
    await objects.scaled_service("web", **entered("Idle", "no traffic"))
    async with cli.running("status", "-w", "-n", cli.namespace) as process, asyncio.timeout(240):
        assert process.stdout
        assert (await process.stdout.readline()).split()[:2] == [b"NAME", b"STATE"]
        assert (await process.stdout.readline()).split()[:2] == [b"web", b"Idle"]
        await objects.status("web", **entered("Draining", "idle for 5m"))
        assert (await process.stdout.readline()).split()[:2] == [b"web", b"Draining"]
        await objects.scaled_service("db", **entered("Active", "reachable"))
        while (line := (await process.stdout.readline()).split())[:2] != [b"db", b"Active"]:
            assert line[:2] == [b"db", b"Unknown"]
        await objects.api.call("DELETE", path(API_VERSION, PLURAL, cli.namespace, "db"))
        assert await process.stdout.readline() == f"{cli.namespace}/db is deleted\n".encode()


async def test_status_watch_json_of_one_service(cli: Cli, objects: Objects, controller: FakeController) -> None:
    await objects.scaled_service("other", **entered("Active"))
    await objects.scaled_service("web", **entered("Idle", "no traffic"))
    asked = ("status", "web", "-w", "-o", "yaml", "-n", cli.namespace, "--controller", controller.url)
    async with cli.running(*asked) as process, asyncio.timeout(240):
        assert process.stdout
        seen: list[str] = []
        await objects.status("web", **entered("Draining"))
        while seen[-1:] != ["state: Draining"]:
            line = (await process.stdout.readline()).decode().strip()
            seen += [line] if line.startswith(("state", "name:")) else []
        assert set(seen) <= {f"name: {cli.namespace}/web", "state: Idle", "state: Draining"}


async def test_wake_command_waits_until_awake(cli: Cli, objects: Objects) -> None:
    await objects.scaled_service("web", **entered("ScaledToZero", "idle for 5m"))
    leader = asyncio.create_task(objects.answering("web", "Waking", "Active"))
    done = await cli("wake", "web", "-n", cli.namespace)
    assert done.out == f"{cli.namespace}/web is Active: requested by a user\n"
    assert f"{cli.namespace}/web: wake requested" in done.err
    verb, _, at = (await leader).partition("@")
    assert verb == "wake" and at.endswith("Z") and len(at) == len("2026-01-02T03:04:05.678901Z")


async def test_sleep_command_waits_until_asleep(cli: Cli, objects: Objects) -> None:
    await objects.scaled_service("web", **entered("Active", "reachable"))
    leader = asyncio.create_task(objects.answering("web", "Draining", "ScaledToZero"))
    done = await cli("sleep", f"{cli.namespace}/web")
    assert done.out == f"{cli.namespace}/web is ScaledToZero: requested by a user\n"
    assert (await leader).startswith("sleep@")


async def test_sleep_command_service_in_use_exits_1(cli: Cli, objects: Objects) -> None:
    await objects.scaled_service("web", **entered("Active", "reachable"))
    leader = asyncio.create_task(objects.answering("web", "Draining", "Active", reason="2 requests in flight"))
    done = await cli("sleep", "web", "-n", cli.namespace, code=1)
    assert done.out == f"{cli.namespace}/web stays Active: 2 requests in flight\n"
    await leader


async def test_command_without_effect_ends(cli: Cli, objects: Objects) -> None:
    await objects.scaled_service("web", **entered("Waking", "a client is waiting"))
    given = asyncio.create_task(cli("sleep", "web", "-n", cli.namespace, code=1))
    while not (reported := (await objects.get("web"))["metadata"].get("annotations", {}).get(COMMAND_ANNOTATION)):
        await asyncio.sleep(0.02)
    await objects.status("web", observedCommand=reported)
    assert (await given).out == f"{cli.namespace}/web stays Waking: a client is waiting\n"


async def test_command_without_controller_names_the_next_step(cli: Cli, objects: Objects) -> None:
    await objects.scaled_service("web", **entered("ScaledToZero"))
    done = await cli("wake", "web", "-n", cli.namespace, "--timeout", "1s", code=1)
    assert "no controller carried out the command within 1 s" in done.out and "zenvoy doctor" in done.out
    done = await cli("wake", "web", "-n", cli.namespace, "--no-wait")
    assert "wake requested" in done.out
    assert (await cli("wake", "web", "-n", cli.namespace, "--timeout", "soon", code=2)).err


async def test_pause_and_resume_change_the_spec(cli: Cli, objects: Objects) -> None:
    await objects.scaled_service("web")
    assert "is paused" in (await cli("pause", "web", "-n", cli.namespace)).out
    assert (await objects.get("web"))["spec"]["paused"] is True
    assert "is resumed" in (await cli("resume", "web", "-n", cli.namespace)).out
    assert not (await objects.get("web"))["spec"].get("paused")


async def test_pause_of_a_labelled_service_sets_its_annotation(cli: Cli, objects: Objects) -> None:
    service = {"metadata": {"name": "web"}, "kind": "Service", "spec": {"ports": [{"port": 80}]}}
    made = await objects.make("v1", "services", service)
    owner = {"apiVersion": "v1", "kind": "Service", "name": "web", "uid": made["metadata"]["uid"], "controller": True}
    meta = {"name": "web", "labels": {"zenvoy.dev/managed": "true"}, "ownerReferences": [owner]}
    await objects.make(API_VERSION, PLURAL, {"kind": "ScaledService", "metadata": meta, "spec": {}})

    async def annotation() -> str | None:
        found = (await objects.get("web", "v1", "services"))["metadata"].get("annotations", {})
        return found.get("zenvoy.dev/paused")

    done = await cli("pause", "web", "-n", cli.namespace)
    assert "is paused" in done.out and "set zenvoy.dev/paused=true on its Service web" in done.out
    assert await annotation() == "true"
    await cli("resume", "web", "-n", cli.namespace)
    assert await annotation() is None
    assert not (await objects.get("web"))["spec"].get("paused")


async def test_explain_without_controller_uses_object_and_events(cli: Cli, objects: Objects) -> None:
    stalled = {"stalled": "ImagePullBackOff: no such image", "replicas": 3}
    conditions = [condition("Ready", "False", "ImagePullBackOff", "ImagePullBackOff: no such image")]
    await objects.scaled_service("web", **entered("Waking", "a client is waiting", conditions=conditions, **stalled))
    for at, reason in ((1, "Idle"), (2, "WakeRequested"), (3, "WakeStalled")):
        await objects.make(
            "v1",
            "events",
            {
                "kind": "Event",
                "metadata": {"name": f"web.{at}"},
                "involvedObject": {"kind": "ScaledService", "name": "web", "namespace": cli.namespace},
                "reason": reason,
                "message": f"message {at}",
                "lastTimestamp": f"2026-01-02T03:04:0{at}Z",
                "type": "Normal",
            },
        )
    done = await cli("explain", "web", "-n", cli.namespace, "--system-namespace", cli.namespace)
    assert "showing the object and its Events only" in done.err
    first, *_ = done.out.splitlines()
    assert first.startswith(f"{cli.namespace}/web is Waking since ") and first.endswith("a client is waiting")
    for words in ("Deployment/web", "ImagePullBackOff: no such image", "127.64.0.7:18001", "Ready"):
        assert words in done.out
    reported = [line.split()[1] for line in done.out.splitlines() if " message " in line]
    assert reported == ["WakeStalled", "WakeRequested", "Idle"]
    data = await cli("explain", "web", "-n", cli.namespace, "--system-namespace", cli.namespace, "-o", "json")
    assert [move["event"] for move in data.json["transitions"]] == reported


async def test_command_unknown_service_exits_4(cli: Cli, objects: Objects) -> None:
    for arguments in (("status",), ("wake",), ("sleep",), ("pause",), ("resume",), ("explain",), ("status", "-w")):
        done = await cli(arguments[0], "missing", "-n", cli.namespace, *arguments[1:], code=4)
        assert f"ScaledService 'missing' does not exist in namespace '{cli.namespace}'" in done.err
        assert done.out == ""


async def test_command_unreachable_cluster_exits_3(cli: Cli, tmp_path: Path) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "gone", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "me", "user": {"token": "secret-token"}}],
        "contexts": [{"name": "gone", "context": {"cluster": "gone", "user": "me"}}],
        "current-context": "gone",
    }
    (tmp_path / "gone").write_text(json.dumps(config))
    done = await cli("status", "--kubeconfig", "gone", code=3)
    assert "http://127.0.0.1:1" in done.err and "does not answer" in done.err and "secret-token" not in done.err
    assert "--kubeconfig: nowhere does not exist" in (await cli("status", "--kubeconfig", "nowhere", code=3)).err
    assert "nope" in (await cli("status", "--context", "nope", code=3)).err


async def test_command_works_as_kubectl_plugin(cli: Cli, objects: Objects) -> None:
    await objects.scaled_service("web", **entered("Idle", "no traffic"))
    done = await cli("status", "-n", cli.namespace, program="kubectl-zenvoy")
    assert "web" in done.out
    assert "Usage: kubectl zenvoy status" in (await cli("status", "--help", program="kubectl-zenvoy")).out
