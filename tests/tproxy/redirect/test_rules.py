from __future__ import annotations

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
    assert rules.installed_port(rules.nft_table(installed)) == 18001
    assert rules.installed_port(rules.iptables_install(installed)) == 18001
    assert rules.installed_port("table inet other {}") is None
