"""Which versions of TRL are supported, and what its trainers cannot do.

The versions differ in what decides that: from 1.16 on the trainers' forward returns the answers' log-probabilities, on
a CPU too, and they are read off for the record. 1.15.0 does so where there is triton, and fails on a CPU; before that
the forward returned logits.
"""

from __future__ import annotations

from importlib import metadata

from rlhflab import processes

TRL_VERSIONS = ">=1.16,<2"
"""The versions of TRL that engine "trl" is made for (it is tested with 1.16); pyproject.toml's extra says the same."""


class UnsupportedTRL(ImportError, ValueError):
    """TRL is missing or of a version that is not supported; the message says in one line what mends it."""


def require_trl() -> None:
    """Raise UnsupportedTRL unless a supported version is installed; TRL itself is not imported.

    Raise ValueError in one of several processes: a trainer would share a batch out that is shared out already.
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
    """Raise ValueError where rankings are longer than what TRL's RewardTrainer takes."""
    if ranked != 2:
        raise ValueError(f"engine trl takes pairs, so ranked must be 2, got {ranked}")
