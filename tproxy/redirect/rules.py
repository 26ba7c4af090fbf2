"""The nftables and iptables rules that redirect a range of local ports to one listening socket. Text only.

`TPROXY` in prerouting at mangle priority applies to packets from other machines and, because loopback is a route like
any other, to packets that this machine sends to itself. Only local addresses are redirected, so the packets are
delivered without an `ip rule` or `ip route`. The kernel finds existing connections before it finds the listening socket
(Documentation/networking/tproxy.rst).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

RuleFamily = Literal["ip", "ip6", "inet"]
RuleTool = Literal["nft", "iptables"]

TABLE = "zenvoy"
CHAIN = "ZENVOY"
DEFAULT_PORTS = (20000, 32767)


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


def installed_port(listing: str) -> int | None:
    """Return the port that the rules in an `nft list` or `iptables -S` listing redirect to; None if there are none."""
    found = re.search(r"tproxy to :(\d+)|--on-port (\d+)", listing)
    return int(found[1] or found[2]) if found else None
