"""The rules that divert a range of local ports to the one listening socket, for nftables or iptables. Texts only.

`TPROXY` in prerouting at mangle priority catches what comes from elsewhere and, because the loopback is a route like
any other, what this machine sends to itself. Only addresses that are local anyway are diverted, so no `ip rule` or
`ip route` is needed to have the packets delivered; and connections that exist already are found by the kernel before
the listening socket is (Documentation/networking/tproxy.rst).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Family = Literal["ip", "ip6", "inet"]
Tool = Literal["nft", "iptables"]

TABLE = "zenvoy"
CHAIN = "ZENVOY"
DEFAULT_PORTS = (20000, 32767)


@dataclass(frozen=True, slots=True)
class Rules:
    """What is diverted to where."""

    port: int
    """Of the listening socket."""
    ports: tuple[int, int] = DEFAULT_PORTS
    """First and last of the hold addresses' ports."""
    family: Family = "inet"


def parse_ports(text: str) -> tuple[int, int]:
    """The first and last of `20000-32767`. Raises ValueError, saying what would be right."""
    found = re.fullmatch(r"(\d+)-(\d+)", text.strip())
    if not found or not 0 < int(found[1]) <= int(found[2]) <= 65535:
        raise ValueError(f"{text!r} is not a range of ports; write {DEFAULT_PORTS[0]}-{DEFAULT_PORTS[1]}")
    return int(found[1]), int(found[2])


def nft_remove() -> str:
    """Input for `nft -f -` that removes whatever is there; adding the table first makes that no error."""
    return "".join(f"table {family} {TABLE}\ndelete table {family} {TABLE}\n" for family in ("ip", "ip6", "inet"))


def nft_install(rules: Rules) -> str:
    """Input for `nft -f -`: one transaction that replaces what an earlier holder left."""
    return nft_remove() + nft_table(rules)


def nft_table(rules: Rules) -> str:
    """The table itself."""
    first, last = rules.ports
    return (
        f"table {rules.family} {TABLE} {{\n"
        "\tchain divert {\n"
        "\t\ttype filter hook prerouting priority mangle; policy accept;\n"
        f"\t\tfib daddr type local tcp dport {first}-{last} tproxy to :{rules.port} accept\n"
        "\t}\n"
        "}\n"
    )


def iptables_commands(rules: Rules) -> list[str]:
    """The command families that the rules are for."""
    return {"ip": ["iptables"], "ip6": ["ip6tables"], "inet": ["iptables", "ip6tables"]}[rules.family]


def iptables_install(rules: Rules) -> str:
    """Input for `iptables-restore --noflush`: one transaction, which also empties a chain of that name.

    The jump to it is not in here, for a second one must not be added: `iptables -C PREROUTING …` asks first.
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
    """The arguments that check, insert or delete the jump to the chain."""
    return ["-w", "5", "-t", "mangle", action, "PREROUTING", "-j", CHAIN]


def text(rules: Rules, tool: Tool) -> str:
    """What is shown to people: what would be installed, as its tool takes it."""
    if tool == "nft":
        return nft_table(rules)
    shown = []
    for command in iptables_commands(rules):
        jump = " ".join([command, *iptables_jump("-I")])
        shown.append(f"# {command}-restore --noflush\n{iptables_install(rules)}# {jump}\n")
    return "".join(shown)


def installed_port(listing: str) -> int | None:
    """The port that the rules in an `nft list` or `iptables -S` listing divert to; None if there is no such rule."""
    found = re.search(r"tproxy to :(\d+)|--on-port (\d+)", listing)
    return int(found[1] or found[2]) if found else None
