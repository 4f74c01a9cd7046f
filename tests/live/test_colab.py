"""In Colab runs may lie in Google Drive."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from rlhflab.live.colab import drive_folder


def test_a_folder_in_google_drive_or_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="Google Drive is available only in Colab"):
        drive_folder("runs")
    module, mounted = ModuleType("google.colab"), []
    module.drive = SimpleNamespace(mount=mounted.append)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "google", ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", module)
    assert str(drive_folder("runs")) == "/content/drive/MyDrive/runs" and mounted == ["/content/drive"]

    def refuse(where: str) -> None:
        raise RuntimeError("credential propagation was unsuccessful")

    module.drive.mount = refuse  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"was not mounted: credential .*; run the cell again and allow it"):
        drive_folder("runs")
