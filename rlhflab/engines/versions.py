"""Supported versions of TRL, and what its trainers cannot do.

From 1.16 on the trainers' forward returns the answers' log-probabilities, also on a CPU, which the record needs. 1.15.0
does so only with triton, and fails on a CPU; earlier versions returned logits.
"""

from __future__ import annotations

from importlib import metadata

from rlhflab import processes

TRL_VERSIONS = ">=1.16,<2"
"""The versions of TRL that engine "trl" supports (tested with 1.16); the same as in pyproject.toml's extra."""


class UnsupportedTRL(ImportError, ValueError):
    """TRL is missing or of an unsupported version; the message says in one line how to fix it."""


def require_trl() -> None:
    """Raise UnsupportedTRL unless a supported version is installed; TRL itself is not imported.

    With several processes, raise ValueError: a trainer would split a batch that is already split.
    """
    if processes.launched() > 1:
        raise ValueError("engine trl trains in one process; for several use engine lab")
    from packaging.specifiers import SpecifierSet

    fix = f'python -m pip install "trl{TRL_VERSIONS}"'
    try:
        found = metadata.version("trl")
    except metadata.PackageNotFoundError:
        raise UnsupportedTRL(f"engine trl needs TRL, which is not installed: {fix}") from None
    if not SpecifierSet(TRL_VERSIONS).contains(found, prereleases=True):
        raise UnsupportedTRL(f"engine trl needs trl{TRL_VERSIONS}, but {found} is installed: {fix}")


def require_pairs(ranked: int) -> None:
    """Raise ValueError if rankings are longer than pairs, all that TRL's RewardTrainer supports."""
    if ranked != 2:
        raise ValueError(f"engine trl takes pairs, so ranked must be 2, got {ranked}")
