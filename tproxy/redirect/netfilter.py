"""Installation, detection and removal of the rules in `rules.py`, with nft or iptables."""

from __future__ import annotations

import shutil
import subprocess
from typing import Literal

from tproxy.redirect import rules
from tproxy.redirect.rules import RedirectRules, RuleTool

_TIMEOUT_SECONDS = 10


class CannotInstall(Exception):
    """The rules could not be installed or removed; the text has the reason and the remedy."""


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
        _run(["nft", "-f", "-"], rules.nft_remove() + rules.nft_table(wanted))
        _remove_chains("iptables", "ip6tables")
        return
    for command in rules.iptables_commands(wanted):
        _run([f"{command}-restore", "-w", "5", "--noflush"], rules.iptables_install(wanted))
        if not _succeeds([command, *rules.iptables_jump("-C")]):
            _run([command, *rules.iptables_jump("-I")])
    _remove_chains(*{"iptables", "ip6tables"}.difference(rules.iptables_commands(wanted)))
    if shutil.which("nft"):
        _run(["nft", "-f", "-"], rules.nft_remove())


def remove(port: int) -> None:
    """Remove the rules that redirect to `port`, and leave those of another holder, which may have replaced them.

    Raises CannotInstall.
    """
    if installed_port("nft") == port:
        _run(["nft", "-f", "-"], rules.nft_remove())
    if installed_port("iptables") == port:
        _remove_chains("iptables", "ip6tables")


def installed_port(tool: RuleTool) -> int | None:
    """Return the port that installed rules redirect to; None if there are none or they may not be listed.

    Raises CannotInstall if the tool does not answer.
    """
    if tool == "nft":
        commands = [["nft", "list", "table", one, rules.TABLE] for one in ("inet", "ip", "ip6")]
    else:
        commands = [[one, "-w", "5", "-t", "mangle", "-S", rules.CHAIN] for one in ("iptables", "ip6tables")]
    for command in commands:
        if shutil.which(command[0]):
            port = rules.installed_port(_run_tool(command).stdout)
            if port is not None:
                return port
    return None


def _remove_chains(*commands: str) -> None:
    for command in commands:
        if not shutil.which(command) or not _succeeds([command, "-w", "5", "-t", "mangle", "-S", rules.CHAIN]):
            continue
        while _succeeds([command, *rules.iptables_jump("-C")]):
            _run([command, *rules.iptables_jump("-D")])
        _run([command, "-w", "5", "-t", "mangle", "-F", rules.CHAIN])
        _run([command, "-w", "5", "-t", "mangle", "-X", rules.CHAIN])


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
