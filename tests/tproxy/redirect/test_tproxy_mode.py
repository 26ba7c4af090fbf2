"""Mode tproxy in a network namespace: a port range on local addresses, IPv4 and IPv6, nft and iptables."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.tproxy.harness import PATIENCE_SECONDS, HolderProcess, eventually
from tproxy.redirect.rules import RuleFamily, RuleTool

IPV4, IPV6 = "192.0.2.7", "2001:db8::7"

# What runs inside the namespace is one process: a reconciler, a service and a client, which get each step as a line.
INSIDE = """
import socket, sys
from tests.tproxy.harness import FakeReconciler, eventually, go
from tproxy.wire import Assignment, Hold

reconciler = FakeReconciler()
upstream = socket.create_server(("127.0.0.1", 0))
upstream.settimeout(60)
print(reconciler.port, flush=True)


def rules(holder):
    said = [up.hello.rules if up.hello else up.rules for up in reconciler.by_holder.get(holder, ())]
    return str(([None] + [one for one in said if one is not None])[-1])


for line in sys.stdin:
    host, port, *again = line.split()
    if host == "rules":
        eventually(lambda: rules(again[0]) == port, f"rules {port}")
        print("counted", sum(len(up.counts) for up in reconciler.by_holder[again[0]]), flush=True)
        continue
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    assignment = lambda verdict: Assignment(address, f"at-{host}", "tcp", verdict, 10, 600.0)
    eventually(lambda: reconciler.ups)
    reconciler.is_acked(reconciler.say(assignment(Hold())))
    with socket.create_connection((host, int(port)), 60) as client:
        client.sendall(b"to ")
        reconciler.sees(address, held=1)
        reconciler.say(assignment(go(upstream)))
        server, _ = upstream.accept()
        with server:
            server.sendall(server.recv(10) + address.encode())
            print(client.recv(100).decode(), flush=True)
            if again:
                sys.stdin.readline()
                client.sendall(b"still ")
                server.sendall(server.recv(10) + address.encode())
                print(client.recv(100).decode(), flush=True)
"""


NO_RULES = "no rules redirect connections to the holder"


class Namespace:
    def __init__(self) -> None:
        self.name = f"zenvoy-{os.getpid()}"
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        self.prefix = ("ip", "netns", "exec", self.name)
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "addr", "add", f"{IPV4}/32", "dev", "lo")
        self.run("ip", "-6", "addr", "add", f"{IPV6}/128", "dev", "lo", "nodad")
        self.inside = subprocess.Popen(
            [*self.prefix, sys.executable, "-c", INSIDE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.inside.stdout is not None
        self.reconciler_port = int(self.inside.stdout.readline())

    def close(self) -> None:
        self.inside.kill()
        self.inside.communicate()
        subprocess.run(["ip", "netns", "del", self.name], check=True)

    def run(self, *command: str) -> str:
        done = subprocess.run(
            [*self.prefix, *command], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
        )
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout

    def tproxy(self, *args: str) -> str:
        return self.run(sys.executable, "-m", "tproxy", *args)

    def holder(self, *args: str, listen: str = "[::]:0", prefix: tuple[str, ...] = ()) -> HolderProcess:
        given = ["--mode", "tproxy", "--listen", listen, "--drain-timeout", "600", *args]
        return HolderProcess(self.reconciler_port, *given, prefix=prefix or self.prefix)

    def page(self, address: str) -> str:
        """Return the metrics of a holder."""
        fetch = f"import urllib.request as u; print(u.urlopen('http://{address}/metrics').read().decode())"
        return self.run(sys.executable, "-c", fetch)

    def converse(self, *line: object) -> str:
        """Hold and release a connection to an address, and return the response."""
        assert self.inside.stdin is not None
        assert self.inside.stdout is not None
        print(*line, file=self.inside.stdin)
        self.inside.stdin.flush()
        return self.inside.stdout.readline().strip()

    def installed(self) -> str:
        """Return the installed rules of both tools."""
        saved = [self.run(command) for command in ("iptables-save", "ip6tables-save")]
        parts = self.run("nft", "list", "ruleset").split("\ntable ")
        tables = [part for part in parts if part.partition(" {")[0].endswith(" zenvoy")]
        return "\n".join([*tables, *(line for text in saved for line in text.splitlines() if "ZENVOY" in line)])


@pytest.fixture(scope="module")
def namespace() -> Iterator[Namespace]:
    namespace = Namespace()
    yield namespace
    namespace.close()


TOOLS = pytest.mark.parametrize("tool", ["nft", "iptables"])


@pytest.mark.root
@TOOLS
def test_tproxy_both_families_keep_the_dialled_address(namespace: Namespace, tool: RuleTool) -> None:
    with namespace.holder("--rules", tool) as holder:
        assert namespace.converse(IPV4, 20000) == f"to {IPV4}:20000"
        assert namespace.converse(IPV4, 32767) == f"to {IPV4}:32767"
        assert namespace.converse("127.0.0.1", 25001) == "to 127.0.0.1:25001"
        assert namespace.converse(IPV6, 20001) == f"to [{IPV6}]:20001"
        assert namespace.converse("::1", 20002) == "to [::1]:20002"
        holder.signal(signal.SIGTERM)
        assert holder.wait() == 0
    assert namespace.installed() == ""


@pytest.mark.root
def test_tproxy_ipv4_only_listener_serves_ipv4(namespace: Namespace) -> None:
    with namespace.holder(listen="0.0.0.0:0") as holder:
        assert namespace.converse(IPV4, 20000) == f"to {IPV4}:20000"
        holder.signal(signal.SIGTERM)
        assert holder.wait() == 0
    assert namespace.installed() == ""


@pytest.mark.root
@pytest.mark.parametrize("after", ["nft", "iptables"])
@TOOLS
def test_rules_of_a_killed_holder_are_replaced(namespace: Namespace, tool: RuleTool, after: RuleTool) -> None:
    with namespace.holder("--rules", tool) as killed:
        killed.signal(signal.SIGKILL)
        killed.wait()
    assert f":{killed.port}" in namespace.installed() or f"--on-port {killed.port}" in namespace.installed()
    with namespace.holder("--rules", after) as holder:
        assert str(killed.port) not in namespace.installed()
        assert namespace.converse(IPV6, 20003) == f"to [{IPV6}]:20003"
        holder.signal(signal.SIGTERM)
        assert holder.wait() == 0
    assert namespace.installed() == ""


@pytest.mark.root
def test_rules_of_a_successor_survive_its_predecessor(namespace: Namespace) -> None:
    with namespace.holder() as old, namespace.holder() as new:
        old.signal(signal.SIGTERM)
        assert old.wait() == 0
        assert f"tproxy to :{new.port}" in namespace.installed()
        assert namespace.converse(IPV4, 20004) == f"to {IPV4}:20004"
        new.signal(signal.SIGTERM)
        assert new.wait() == 0
    assert namespace.installed() == ""


@pytest.mark.root
@TOOLS
def test_rules_of_an_init_step_are_kept(namespace: Namespace, tool: RuleTool) -> None:
    for _ in range(2):
        namespace.tproxy("rules", "--install", "--port", "18001", "--tool", tool)
    installed = namespace.installed()
    with namespace.holder("--rules", "keep", listen="[::]:18001") as holder:
        assert NO_RULES not in holder.log
        assert namespace.converse(IPV4, 20005) == f"to {IPV4}:20005"
        holder.signal(signal.SIGTERM)
        assert holder.wait() == 0
    assert namespace.installed() == installed
    namespace.tproxy("rules", "--remove", "--port", "18001")
    assert namespace.installed() == ""


@pytest.mark.root
def test_rules_missing_are_reported(namespace: Namespace) -> None:
    with namespace.holder("--rules", "keep", listen="[::]:18001") as holder:
        eventually(lambda: NO_RULES in holder.log)


@pytest.mark.root
@pytest.mark.parametrize("listen", ["[::]:18001", "0.0.0.0:18001"])
@TOOLS
def test_self_check_without_tool_notices_rules_come_and_go(namespace: Namespace, tool: RuleTool, listen: str) -> None:
    install = ("rules", "--install", "--port", "18001", "--tool", tool)
    namespace.tproxy(*install)
    prefix = (*namespace.prefix, "env", "PATH=/nowhere")
    name = f"looks-with-{tool}-at-{listen}"
    keep = ("--rules", "keep", "--rules-check-interval", "1", "--metrics", "127.0.0.1:18081", "--holder-id", name)
    with namespace.holder(*keep, listen=listen, prefix=prefix) as holder:
        before = namespace.converse("rules", True, name)
        namespace.tproxy("rules", "--remove", "--port", "18001")
        assert namespace.converse("rules", False, name) == before, "it counts nothing of its own"
        eventually(lambda: NO_RULES in holder.log)
        assert "zenvoy_holder_redirect_up 0.0" in namespace.page("127.0.0.1:18081")
        namespace.tproxy(*install)
        assert namespace.converse("rules", True, name) == before
        page = namespace.page("127.0.0.1:18081")
        assert "zenvoy_holder_redirect_up 1.0" in page
        assert 'zenvoy_holder_refused_total{reason="unassigned"' not in page
        assert 'zenvoy_holder_held{service=""} 0.0' in page
        assert namespace.converse(IPV4, 20008) == f"to {IPV4}:20008"
        holder.signal(signal.SIGTERM)
        assert holder.wait() == 0
    namespace.tproxy("rules", "--remove", "--port", "18001")


@pytest.mark.root
@TOOLS
def test_self_check_rules_for_ipv4_only_are_enough(namespace: Namespace, tool: RuleTool) -> None:
    namespace.tproxy("rules", "--install", "--port", "18001", "--tool", tool, "--family", "ip")
    prefix = (*namespace.prefix, "env", "PATH=/nowhere")
    name = f"looks-with-{tool}-for-ipv4"
    looks = ("--rules", "keep", "--rules-check-interval", "1", "--holder-id", name)
    with namespace.holder(*looks, listen="[::]:18001", prefix=prefix) as holder:
        namespace.converse("rules", True, name)
        assert NO_RULES not in holder.log
        holder.signal(signal.SIGTERM)
        assert holder.wait() == 0
    namespace.tproxy("rules", "--remove", "--port", "18001")


@pytest.mark.root
def test_relayed_connection_survives_removal_of_rules(namespace: Namespace) -> None:
    """The packets go to a local address, and the kernel finds the existing socket."""
    with namespace.holder() as holder:
        assert namespace.converse(IPV4, 20006, "again") == f"to {IPV4}:20006"
        holder.signal(signal.SIGTERM)
        eventually(lambda: namespace.installed() == "")
        assert namespace.converse() == f"still {IPV4}:20006"
        assert holder.wait() == 0


@pytest.mark.root
@pytest.mark.parametrize("family", ["ip", "ip6", "inet"])
def test_rules_command_output_is_accepted_by_nft(namespace: Namespace, family: RuleFamily) -> None:
    shown = namespace.tproxy("rules", "--family", family, "--port", "18001")
    done = subprocess.run(
        [*namespace.prefix, "nft", "-c", "-f", "-"],
        input=shown,
        text=True,
        capture_output=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    assert "tproxy to :18001" in shown
