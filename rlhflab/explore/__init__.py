"""Closed-form explorables: small widgets whose mathematics runs in the browser."""

from rlhflab.explore.beta import BetaExplorable, chosen_rejected_means, optimum_at, reward_levels

__all__ = ["BetaExplorable", "chosen_rejected_means", "optimum_at", "reward_levels"]
