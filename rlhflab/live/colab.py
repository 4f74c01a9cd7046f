"""Colab: whether this code runs in it, and access to Google Drive."""

from __future__ import annotations

import sys
from pathlib import Path


def in_colab() -> bool:
    """Whether this runs in Google Colab."""
    return "google.colab" in sys.modules


def drive_folder(name: str) -> Path:
    """A folder in the user's Google Drive, which outlives the session; Colab asks for permission the first time.

    Raises:
        ValueError: this is not Colab, or the permission was not given, in one line.
    """
    try:
        from google.colab import drive
    except ImportError:
        raise ValueError(
            "Google Drive is available only in Colab; elsewhere runs stay in a local folder"
        ) from None
    try:
        drive.mount("/content/drive")
    except Exception as error:  # Colab raises errors of many kinds
        raise ValueError(f"Google Drive was not mounted: {error}; run the cell again and allow it") from error
    return Path("/content/drive/MyDrive") / name
