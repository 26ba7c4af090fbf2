from __future__ import annotations

from pathlib import Path

import pytest

from tproxy.redirect import rules
from tproxy.redirect.rules import RedirectRules


def test_parse_ports_valid_range_returns_both_ends() -> None:
    assert rules.parse_ports("20000-32767") == (20000, 32767)


@pytest.mark.parametrize("text", ["", "1", "2-1", "0-5", "1-65536", "a-b"])
def test_parse_ports_invalid_range_raises_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="20000-32767"):
        rules.parse_ports(text)


def test_installed_port_of_a_listing_is_found() -> None:
    installed = RedirectRules(18001)
    assert rules.port_in(rules.nft_table(installed)) == 18001
    assert rules.port_in(rules.iptables_install(installed)) == 18001
    assert rules.port_in("table inet other {}") is None


def test_remove_tool_without_answer_raises_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The listing alone must not block, because it also runs while the holder shuts down."""
    tool = tmp_path / "nft"
    tool.write_text("#!/bin/sh\nexec sleep 1000\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(rules, "_TIMEOUT_SECONDS", 0.2)
    with pytest.raises(rules.CannotInstall, match="nft"):
        rules.remove(18001)
