"""The nftables and iptables rules that redirect a range of local ports to one listening socket.

First their text; then their installation, detection and removal, with nft or iptables.

`TPROXY` in prerouting at mangle priority applies to packets from other machines and, because loopback is a route like
any other, to packets that this machine sends to itself. Only local addresses are redirected, so the packets are
delivered without an `ip rule` or `ip route`. The kernel finds existing connections before it finds the listening socket
(Documentation/networking/tproxy.rst).
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import Literal

RuleFamily = Literal["ip", "ip6", "inet"]
RuleTool = Literal["nft", "iptables"]

TABLE = "zenvoy"
CHAIN = "ZENVOY"
DEFAULT_PORTS = (20000, 32767)
_TIMEOUT_SECONDS = 10


class CannotInstall(Exception):
    """The rules could not be installed or removed; the text has the reason and the remedy."""


@dataclass(frozen=True, slots=True)
class RedirectRules:
    """A redirection."""

    port: int
    """The port of the listening socket."""
    ports: tuple[int, int] = DEFAULT_PORTS
    """First and last port of hold addresses."""
    family: RuleFamily = "inet"


def parse_ports(text: str) -> tuple[int, int]:
    """Return the first and last port of `20000-32767`. Raises ValueError with a remedy."""
    found = re.fullmatch(r"(\d+)-(\d+)", text.strip())
    if not found or not 0 < int(found[1]) <= int(found[2]) <= 65535:
        raise ValueError(f"{text!r} is not a port range; write, for example, {DEFAULT_PORTS[0]}-{DEFAULT_PORTS[1]}")
    return int(found[1]), int(found[2])


def nft_remove() -> str:
    """Return input for `nft -f -` that removes the table; adding it first makes that succeed if there is none."""
    return "".join(f"table {family} {TABLE}\ndelete table {family} {TABLE}\n" for family in ("ip", "ip6", "inet"))


def nft_table(rules: RedirectRules) -> str:
    """Return the table."""
    first, last = rules.ports
    return (
        f"table {rules.family} {TABLE} {{\n"
        "\tchain divert {\n"
        "\t\ttype filter hook prerouting priority mangle; policy accept;\n"
        f"\t\tfib daddr type local tcp dport {first}-{last} tproxy to :{rules.port} accept\n"
        "\t}\n"
        "}\n"
    )


def iptables_commands(rules: RedirectRules) -> list[str]:
    """Return the iptables commands that the rules need."""
    return {"ip": ["iptables"], "ip6": ["ip6tables"], "inet": ["iptables", "ip6tables"]}[rules.family]


def iptables_install(rules: RedirectRules) -> str:
    """Return input for `iptables-restore --noflush`: one transaction that also empties an existing chain.

    The jump to the chain is not included, because it must not be added twice: `iptables -C PREROUTING …` checks first.
    """
    first, last = rules.ports
    return (
        "*mangle\n"
        f":{CHAIN} - [0:0]\n"
        f"-A {CHAIN} -p tcp -m addrtype --dst-type LOCAL -m tcp --dport {first}:{last}"
        f" -j TPROXY --on-port {rules.port} --tproxy-mark 0x0/0x0\n"
        "COMMIT\n"
    )


def iptables_jump(action: Literal["-C", "-I", "-D"]) -> list[str]:
    """Return the arguments that check, insert or delete the jump to the chain."""
    return ["-w", "5", "-t", "mangle", action, "PREROUTING", "-j", CHAIN]


def as_text(rules: RedirectRules, tool: RuleTool) -> str:
    """Return the rules as their tool accepts them, for people."""
    if tool == "nft":
        return nft_table(rules)
    shown = []
    for command in iptables_commands(rules):
        jump = " ".join([command, *iptables_jump("-I")])
        shown.append(f"# {command}-restore --noflush\n{iptables_install(rules)}# {jump}\n")
    return "".join(shown)


def port_in(listing: str) -> int | None:
    """Return the port that the rules in an `nft list` or `iptables -S` listing redirect to; None if there are none."""
    found = re.search(r"tproxy to :(\d+)|--on-port (\d+)", listing)
    return int(found[1] or found[2]) if found else None


def find_tool(wanted: Literal["auto", "nft", "iptables"] = "auto") -> RuleTool:
    """Return nft if it is available, else iptables. Raises CannotInstall."""
    candidates: tuple[RuleTool, ...] = ("nft", "iptables") if wanted == "auto" else (wanted,)
    for tool in candidates:
        if shutil.which(tool):
            return tool
    package = "nftables" if "nft" in candidates else "iptables"
    raise CannotInstall(f"{' or '.join(candidates)} not found. Install it, for example with: apt-get install {package}")


def install(wanted: RedirectRules, tool: RuleTool) -> None:
    """Install rules, and remove those that an earlier holder left with either tool. Raises CannotInstall."""
    if tool == "nft":
        # One transaction, which replaces the table of an earlier holder.
        _run(["nft", "-f", "-"], nft_remove() + nft_table(wanted))
        _remove_chains("iptables", "ip6tables")
        return
    for command in iptables_commands(wanted):
        _run([f"{command}-restore", "-w", "5", "--noflush"], iptables_install(wanted))
        if not _succeeds([command, *iptables_jump("-C")]):
            _run([command, *iptables_jump("-I")])
    _remove_chains(*{"iptables", "ip6tables"}.difference(iptables_commands(wanted)))
    if shutil.which("nft"):
        _run(["nft", "-f", "-"], nft_remove())


def remove(port: int) -> None:
    """Remove the rules that redirect to `port`, and leave those of another holder, which may have replaced them.

    Raises CannotInstall.
    """
    if installed_port("nft") == port:
        _run(["nft", "-f", "-"], nft_remove())
    if installed_port("iptables") == port:
        _remove_chains("iptables", "ip6tables")


def installed_port(tool: RuleTool) -> int | None:
    """Return the port that installed rules redirect to; None if there are none or they may not be listed.

    Raises CannotInstall if the tool does not answer.
    """
    if tool == "nft":
        commands = [["nft", "list", "table", one, TABLE] for one in ("inet", "ip", "ip6")]
    else:
        commands = [[one, "-w", "5", "-t", "mangle", "-S", CHAIN] for one in ("iptables", "ip6tables")]
    for command in commands:
        if shutil.which(command[0]):
            port = port_in(_run_tool(command).stdout)
            if port is not None:
                return port
    return None


def _remove_chains(*commands: str) -> None:
    for command in commands:
        if not shutil.which(command) or not _succeeds([command, "-w", "5", "-t", "mangle", "-S", CHAIN]):
            continue
        while _succeeds([command, *iptables_jump("-C")]):
            _run([command, *iptables_jump("-D")])
        _run([command, "-w", "5", "-t", "mangle", "-F", CHAIN])
        _run([command, "-w", "5", "-t", "mangle", "-X", CHAIN])


def _run_tool(command: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotInstall(f"{command[0]}: {error}") from error


def _succeeds(command: list[str]) -> bool:
    return _run_tool(command).returncode == 0


def _run(command: list[str], text: str = "") -> None:
    result = _run_tool(command, text)
    if result.returncode:
        output = " ".join(result.stderr.split())
        hint = ""
        if "ermitted" in output or "ermission" in output or "be root" in output:
            hint = "; CAP_NET_ADMIN is required: run `zenvoy-tproxy rules --install` as root in an init step"
        raise CannotInstall(f"`{' '.join(command)}` failed: {output}{hint}")
