"""Installs, finds and removes the rules of `rules.py`, by running nft or iptables."""

from __future__ import annotations

import shutil
import subprocess
from typing import Literal

from tproxy.redirect import rules
from tproxy.redirect.rules import Family, Rules, Tool

_SECONDS = 10


class CannotInstall(Exception):
    """The rules could not be installed; the text says why and what to do."""


def find_tool(wanted: Literal["auto", "nft", "iptables"] = "auto") -> Tool:
    """nft if there is one, else iptables. Raises CannotInstall."""
    candidates: tuple[Tool, ...] = ("nft", "iptables") if wanted == "auto" else (wanted,)
    for tool in candidates:
        if shutil.which(tool):
            return tool
    package = "nftables" if "nft" in candidates else "iptables"
    raise CannotInstall(f"there is no {' or '.join(candidates)} here: apt-get install {package}")


def install(wanted: Rules, tool: Tool) -> None:
    """Put the rules in force, in place of whatever an earlier holder left, by either tool. Raises CannotInstall."""
    if tool == "nft":
        _run(["nft", "-f", "-"], rules.nft_install(wanted))
        _remove_iptables()
        return
    for command in rules.iptables_commands(wanted):
        _run([f"{command}-restore", "-w", "5", "--noflush"], rules.iptables_install(wanted))
        if not _succeeds([command, *rules.iptables_jump("-C")]):
            _run([command, *rules.iptables_jump("-I")])
    for command in {"iptables", "ip6tables"} - set(rules.iptables_commands(wanted)):
        _remove_chain(command)
    if shutil.which("nft"):
        _run(["nft", "-f", "-"], rules.nft_remove())


def remove(port: int) -> None:
    """Remove the rules that divert to `port`; those of another holder, which may have replaced ours, stay.

    Raises CannotInstall.
    """
    if installed("nft") == port:
        _run(["nft", "-f", "-"], rules.nft_remove())
    if installed("iptables") == port:
        _remove_iptables()


def installed(tool: Tool, family: Family = "inet") -> int | None:
    """The port that installed rules divert to; None when there are none, or we may not look.

    Raises CannotInstall when the tool does not answer.
    """
    if tool == "nft":
        commands = [["nft", "list", "table", one, rules.TABLE] for one in ("inet", "ip", "ip6")]
    else:
        commands = [[one, "-w", "5", "-t", "mangle", "-S", rules.CHAIN] for one in ("iptables", "ip6tables")]
    for command in commands:
        if shutil.which(command[0]):
            port = rules.installed_port(_output(command))
            if port is not None:
                return port
    return None


def _remove_iptables() -> None:
    for command in ("iptables", "ip6tables"):
        _remove_chain(command)


def _remove_chain(command: str) -> None:
    if not shutil.which(command) or not _succeeds([command, "-w", "5", "-t", "mangle", "-S", rules.CHAIN]):
        return
    while _succeeds([command, *rules.iptables_jump("-C")]):
        _run([command, *rules.iptables_jump("-D")])
    _run([command, "-w", "5", "-t", "mangle", "-F", rules.CHAIN])
    _run([command, "-w", "5", "-t", "mangle", "-X", rules.CHAIN])


def _complete(command: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotInstall(f"{command[0]}: {error}") from error


def _succeeds(command: list[str]) -> bool:
    return _complete(command).returncode == 0


def _output(command: list[str]) -> str:
    return _complete(command).stdout


def _run(command: list[str], text: str = "") -> None:
    done = _complete(command, text)
    if done.returncode:
        said = " ".join(done.stderr.split())
        hint = ""
        if "ermitted" in said or "ermission" in said or "be root" in said:
            hint = "; this needs CAP_NET_ADMIN: run `zenvoy-tproxy rules --install` as root in an init step"
        raise CannotInstall(f"`{' '.join(command)}` failed: {said}{hint}")
