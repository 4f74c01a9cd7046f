"""Closed-form explorables: small widgets whose mathematics runs in the browser."""

from rlhflab.explore.beta import BetaExplorable

__all__ = ["BetaExplorable"]
