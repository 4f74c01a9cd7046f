"""Texts cut to the room there is."""

from __future__ import annotations


def clipped(text: str, length: int) -> str:
    """Return `text` with at most `length` characters, ending in an ellipsis if it was longer."""
    return text if len(text) <= length else text[: max(0, length - 1)] + "…"
