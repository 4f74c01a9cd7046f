"""Shortens every training of a process, so that a whole lab runs in seconds."""

from __future__ import annotations

from functools import wraps

from rlhflab.core.settings import Settings


def trainings(steps: int) -> None:
    """Let all settings and recipes of trainings that are made from now on have at most so many updates."""
    check = Settings.__post_init__

    @wraps(check)
    def cut(self: Settings) -> None:
        check(self)
        if (getattr(self, "steps", None) or 0) > steps:
            object.__setattr__(self, "steps", steps)

    Settings.__post_init__ = cut  # type: ignore[method-assign]
