"""Start, use and end of a service with all its processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from tests.reconciler.local.processes.conftest import Stage
from tests.reconciler.local.processes.scene import (
    CHILDREN,
    DAEMON,
    DOWN,
    STUBBORN,
    UP,
    children,
    eventually,
    is_running,
    pid_of,
    reply,
    server,
)


async def test_configure_sleeping_service_is_reported_at_once(stage: Stage) -> None:
    scene = stage(server())
    assert [(report.replicas, report.endpoints) for report in scene.reports] == [(0, ())]


async def test_converge_starts_and_stops_service(stage: Stage) -> None:
    scene = stage(server())
    before = time.time()
    running = await scene.up()
    assert (running.replicas, running.diagnosis) == (1, None)
    assert list(running.milestones) == ["started", "reachable"]
    assert before <= running.milestones["started"] <= running.milestones["reachable"] <= time.time()
    pid, service, port = await reply(running)
    assert (service, f"127.0.0.1:{port}") == ("s", running.endpoints[0])
    await scene.down()
    assert not is_running(int(pid))
    assert scene.now().endpoints == ()


async def test_stop_removes_endpoints_before_process_ends(stage: Stage) -> None:
    scene = stage(server())
    await scene.up()
    await scene.down()
    assert [(report.replicas, bool(report.endpoints)) for report in scene.all()] == [
        (0, False),
        (1, False),
        (1, True),
        (1, False),
        (0, False),
    ]


async def test_restart_keeps_port(stage: Stage) -> None:
    scene = stage(server())
    first = await scene.up()
    await scene.down()
    assert (await scene.up()).endpoints == first.endpoints


async def test_stop_ignored_signal_kills_after_drain_timeout(stage: Stage) -> None:
    scene = stage(server(STUBBORN, drain_timeout=0.3))
    pid = await pid_of(await scene.up())
    before = time.monotonic()
    await scene.down()
    assert time.monotonic() - before >= 0.3
    assert not is_running(pid)


async def test_stop_sends_configured_signal(stage: Stage) -> None:
    polite = "import os, signal, sys\nsignal.signal(signal.SIGINT, lambda *_: (os.write(1, b'bye'), sys.exit()))\n"
    scene = stage(replace(server(STUBBORN + polite), stop_signal=signal.SIGINT))
    await scene.up()
    await scene.down()
    assert "bye" in scene.log()


async def test_stop_ends_grandchildren(stage: Stage) -> None:
    scene = stage(server(CHILDREN, drain_timeout=0.3))
    await scene.up()
    await eventually(lambda: scene.log().count("child") == 4)
    pids = children(scene.log())
    assert all(map(is_running, pids))
    await scene.down()
    assert not any(map(is_running, pids))


async def test_stop_ends_process_in_other_session(stage: Stage) -> None:
    scene = stage(server(DAEMON))
    await scene.up()
    await eventually(lambda: "child" in scene.log())
    await scene.down()
    assert not any(map(is_running, children(scene.log())))


async def test_wake_while_ending_waits_for_the_end(stage: Stage) -> None:
    scene = stage(server(STUBBORN))
    old = await pid_of(await scene.up())
    scene.converge(DOWN)
    await scene.until(lambda running: not running.endpoints)
    scene.converge(UP)
    assert is_running(old)
    os.kill(old, signal.SIGKILL)
    new = await pid_of(await scene.until(lambda running: running.endpoints))
    assert not is_running(old)
    assert new != old
    assert all(report.replicas for report in list(scene.all())[1:])


async def test_converge_without_scale_changes_nothing(stage: Stage) -> None:
    scene = stage(a=server(), b=server())
    pid = await pid_of(await scene.up("a"))
    for service in "ab":
        scene.converge(None, service)
    assert await pid_of(scene.now("a")) == pid
    assert scene.now("b").replicas == 0


async def test_start_slow_program_is_waited_for(stage: Stage) -> None:
    scene = stage(server(delay=2.5))
    before = time.time()
    running = await scene.up()
    assert running.milestones["reachable"] - before >= 2.5
    assert not any(report.diagnosis for report in scene.reports)


async def test_start_inherits_only_its_log(stage: Stage) -> None:
    held = os.open("/", os.O_RDONLY)
    os.set_inheritable(held, True)
    scene = stage(server("import os; print('fds', sorted(os.listdir('/proc/self/fd')), flush=True)\n"))
    pid = await pid_of(await scene.up())
    os.close(held)
    assert "fds ['0', '1', '2', '3']" in scene.log()
    assert Path(f"/proc/{pid}/fd/0").readlink() == Path("/dev/null")
    assert os.getsid(pid) == pid


async def test_start_many_services_run_in_parallel(stage: Stage) -> None:
    names = [f"s{number}" for number in range(20)]
    scene = stage(**{name: server() for name in names})
    await asyncio.gather(*(scene.up(name) for name in names))
    endpoints = {scene.now(name).endpoints for name in names}
    assert len(endpoints) == 20
    assert {(await reply(scene.now(name)))[1] for name in names} == set(names)


async def test_close_waits_for_each_drain_timeout(stage: Stage) -> None:
    slow = "import signal, time\nsignal.signal(signal.SIGTERM, lambda *_: (time.sleep(4), print('saved'), exit()))\n"
    scene = stage(a=server(slow, drain_timeout=1000), b=server(), c=server(STUBBORN, drain_timeout=0.3))
    pids = [await pid_of(await scene.up(name)) for name in "abc"]
    await scene.backend.close()
    assert not any(map(is_running, pids))
    assert "saved" in scene.log("a")
    assert [scene.now(name).replicas for name in "abc"] == [0, 0, 0]


async def test_kill_ends_close_at_once(stage: Stage) -> None:
    scene = stage(a=server(STUBBORN, drain_timeout=1000), b=server(STUBBORN, drain_timeout=1000))
    pids = [await pid_of(await scene.up(name)) for name in "ab"]
    scene.converge(DOWN, "b")
    closing = asyncio.create_task(scene.backend.close())
    await asyncio.sleep(0)
    scene.backend.kill()
    await closing
    assert not any(map(is_running, pids))


async def test_start_hard_limit_on_mark_is_reported() -> None:
    """In a process of its own: a hard limit cannot be raised again without a privilege."""
    limits = "import resource, sys; resource.setrlimit(10, (1, 1)); from reconciler.local.processes.mark import marking"
    code = f"{limits}\ntry:\n    with marking(1 << 61): pass\nexcept ValueError as error: print(error)"
    done = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert (await done.communicate())[0].decode() == (
        "the hard limit of file locks is 1, and marks need it unlimited: ulimit -Hx unlimited\n"
    )
