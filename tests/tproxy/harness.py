"""A holder process, a scripted reconciler, clients, and upstreams."""

from __future__ import annotations

import os
import queue
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, TypeVar

import grpc

from tests.ports import free_port
from tproxy.wire import ENCODER, SERVICE, UP, Assignment, AssignmentUpdate, Count, Go, Hold, HolderReport, Verdict

T = TypeVar("T")
PATIENCE_SECONDS = 60.0
HOST = "127.64.0.7"


def eventually(look: Callable[[], T | Literal[False] | None], what: str = "") -> T:
    """Return the result of `look` once it is true."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        seen = look()
        if seen:
            return seen
        assert time.monotonic() < deadline, f"it did not come to that: {what} (last seen: {seen!r})"
        time.sleep(0.005)


def fail(error: Exception) -> None:
    """Fail the test that runs a loop, at an error of one of its callbacks."""
    raise error


class FakeReconciler:
    """The other end of the holder stream, over real gRPC."""

    def __init__(self, port: int = 0, assigned: Iterable[Assignment] = ()) -> None:
        self.ups: list[HolderReport] = []
        self.by_holder: dict[str, list[HolderReport]] = {}
        """The reports of each holder by its id: those of a holder that has ended may arrive after its successor's."""
        self.arrived: list[float] = []
        self.streams = 0
        self.version = 0
        self._streams: set[queue.SimpleQueue[AssignmentUpdate | None]] = set()
        self._lock = threading.Lock()
        self._assigned = {one.address: one for one in assigned}
        self._pool = ThreadPoolExecutor(8)
        self._server = grpc.server(self._pool)
        handler = grpc.stream_stream_rpc_method_handler(self._stream, UP.decode, ENCODER.encode)
        methods = grpc.method_handlers_generic_handler(SERVICE, {"Stream": handler})
        self._server.add_generic_rpc_handlers((methods,))
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self._server.start()

    def __enter__(self) -> FakeReconciler:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._server.stop(None).wait()
        self._pool.shutdown()

    def _stream(self, ups: Iterator[HolderReport], context: grpc.ServicerContext) -> Iterator[AssignmentUpdate]:
        downs: queue.SimpleQueue[AssignmentUpdate | None] = queue.SimpleQueue()
        context.add_callback(lambda: downs.put(None))
        reader = threading.Thread(target=self._read, args=(ups,))
        reader.start()
        with self._lock:
            self.streams += 1
            self._streams.add(downs)
            first = AssignmentUpdate(self.version, tuple(self._assigned.values()), full=True)
        yield first
        while (down := downs.get()) is not None:
            yield down
        with self._lock:
            self._streams.discard(downs)
        reader.join()

    def _read(self, ups: Iterator[HolderReport]) -> None:
        reports = list[HolderReport]()
        try:
            for up in ups:
                if up.hello:
                    reports = self.by_holder.setdefault(up.hello.holder, [])
                reports.append(up)
                self.arrived.append(time.time())
                self.ups.append(up)
        except Exception:  # grpcio raises a bare Exception here when the call is over
            return

    def say(self, *assign: Assignment, remove: tuple[str, ...] = (), full: bool = False) -> int:
        """Send a `AssignmentUpdate` and return its version."""
        with self._lock:
            self.version += 1
            if full:
                self._assigned.clear()
            self._assigned.update({one.address: one for one in assign})
            for address in remove:
                del self._assigned[address]
            down = AssignmentUpdate(self.version, assign, remove, full)
            for stream in self._streams:
                stream.put(down)
            return self.version

    def is_acked(self, version: int) -> None:
        """Wait until the version is in force."""
        eventually(lambda: self.ups and self.ups[-1].acked >= version, f"acked {version}")

    def count(self, address: str) -> Count | None:
        """Return the latest count of an address."""
        found = [count for up in self.ups[:] for count in up.counts if count.address == address]
        return found[-1] if found else None

    def sees(self, address: str, **wanted: int) -> Count:
        """Wait for these counts and return them."""

        def look() -> Count | None:
            count = self.count(address)
            return count if count and all(getattr(count, name) == value for name, value in wanted.items()) else None

        return eventually(look, f"{wanted} of {self.count(address)}")


class HolderProcess:
    """A process of `zenvoy-tproxy run`."""

    def __init__(
        self,
        reconciler_port: int,
        *args: str,
        nofile: int | None = None,
        prefix: tuple[str, ...] = (),
        pass_fds: tuple[int, ...] = (),
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="zenvoy-tproxy-"))
        self.log_path = self.directory / "log"
        self.listen_file = self.directory / "listen"
        given = list(args)
        if "--listen" not in given:
            given += ["--listen", f"0.0.0.0:{free_port('0.0.0.0')}"]
        command = [*prefix, sys.executable, "-m", "tproxy", "run", "--reconciler", f"127.0.0.1:{reconciler_port}"]
        command += ["--listen-file", str(self.listen_file), "--log", "json", *given]
        if nofile is not None:
            command = ["prlimit", f"--nofile={nofile}:{nofile}", *command]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, pass_fds=pass_fds)
        eventually(lambda: self.listen_file.exists() or self.process.poll() is not None, "the holder listens")
        assert self.process.poll() is None, self.log
        self.port = int(self.listen_file.read_text().rpartition(":")[2])
        self.address = f"{HOST}:{self.port}"

    def __enter__(self) -> HolderProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        for path in self.directory.iterdir():
            path.unlink()
        self.directory.rmdir()

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    @property
    def memory(self) -> int:
        """Private resident bytes."""
        rollup = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines()
        return 1024 * sum(int(line.split()[1]) for line in rollup if line.startswith("Private_"))

    @property
    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    @property
    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def is_idle(self, share: float) -> None:
        """Wait until the process uses at most this share of a CPU for half a second."""

        def look() -> bool:
            before, begin = self.cpu_seconds, time.monotonic()
            eventually(lambda: time.monotonic() >= begin + 0.5)
            return self.cpu_seconds - before < share * (time.monotonic() - begin)

        eventually(look, f"the holder uses less than {share:.0%} of a CPU")

    def connect(self, host: str = HOST) -> socket.socket:
        client = socket.create_connection((host, self.port), PATIENCE_SECONDS)
        client.settimeout(PATIENCE_SECONDS)
        return client

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(PATIENCE_SECONDS)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class World(ExitStack):
    """A reconciler, its holder, and everything that a test opens; all of it ends with the test."""

    def __init__(self) -> None:
        super().__init__()
        self.reconciler = self.enter_context(FakeReconciler(free_port()))
        self._holder: HolderProcess | None = None

    @property
    def holder(self) -> HolderProcess:
        return self._holder or self.start()

    def start(self, *args: str, **options: Any) -> HolderProcess:
        earlier = self._hellos()
        self._holder = self.enter_context(HolderProcess(self.reconciler.port, *args, **options))
        eventually(lambda: self._hellos() > earlier, "the holder says hello")
        return self._holder

    def _hellos(self) -> int:
        return sum(1 for up in self.reconciler.ups[:] if up.hello)

    def use(self, holder: HolderProcess) -> None:
        """Use another holder from now on."""
        self._holder = holder

    def assignment(
        self,
        verdict: Verdict | None = None,
        protocol: str = "tcp",
        max_held: int = 1024,
        hold_timeout: float = 600.0,
        reason: str | None = None,
        address: str | None = None,
        service: str = "web",
        has_header: bool = False,
    ) -> Assignment:
        at = address or self.holder.address
        return Assignment(at, service, protocol, verdict or Hold(), max_held, hold_timeout, reason, has_header)

    def assign(self, verdict: Verdict | None = None, **rest: Any) -> None:
        """Send an assignment and wait until it is in force."""
        self.reconciler.is_acked(self.reconciler.say(self.assignment(verdict, **rest)))

    def sees(self, **wanted: int) -> Count:
        return self.reconciler.sees(self.holder.address, **wanted)

    def client(self, host: str = HOST) -> socket.socket:
        return self.enter_context(self.holder.connect(host))

    def is_refused(self, sent: bytes = b"", host: str = HOST) -> bool:
        """Return whether a new connection is reset."""
        return is_refused(lambda: self.client(host), sent)

    def clients(self, number: int) -> list[socket.socket]:
        return [self.client() for _ in range(number)]

    def upstream(self, backlog: int = 4096) -> socket.socket:
        server = self.enter_context(socket.create_server(("127.0.0.1", 0), backlog=backlog))
        server.settimeout(PATIENCE_SECONDS)
        return server

    def accept(self, server: socket.socket) -> socket.socket:
        accepted, _ = server.accept()
        accepted.settimeout(PATIENCE_SECONDS)
        return self.enter_context(accepted)


def go(*servers: socket.socket) -> Go:
    return Go(tuple("{}:{}".format(*server.getsockname()) for server in servers))


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def is_reset(sock: socket.socket) -> bool:
    """Return whether a reset comes next."""
    try:
        return sock.recv(1) is None
    except ConnectionResetError:
        return True


def is_refused(connect: Callable[[], socket.socket], sent: bytes = b"") -> bool:
    """Return whether a new connection is reset, which may be before `connect` or `sendall` returns."""
    try:
        client = connect()
        client.sendall(sent)
    except ConnectionResetError:
        return True
    return is_reset(client)


def read_exactly(sock: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        chunk = sock.recv(min(65_536, length - len(data)))
        assert chunk, f"it ended after {len(data)} of {length} bytes"
        data += chunk
    return bytes(data)


def read_all(sock: socket.socket) -> bytes:
    data = bytearray()
    while chunk := sock.recv(65_536):
        data += chunk
    return bytes(data)
