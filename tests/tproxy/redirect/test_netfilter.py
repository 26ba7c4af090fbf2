from __future__ import annotations

from pathlib import Path

import pytest

from tproxy.redirect import netfilter


def test_remove_tool_without_answer_raises_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The listing alone must not block, because it also runs while the holder shuts down."""
    tool = tmp_path / "nft"
    tool.write_text("#!/bin/sh\nexec sleep 1000\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(netfilter, "_TIMEOUT_SECONDS", 0.2)
    with pytest.raises(netfilter.CannotInstall, match="nft"):
        netfilter.remove(18001)
