"""Shape and range checks of the objectives; each raises ValueError in one line."""

from __future__ import annotations

import math

from torch import Tensor


def same_shape(**tensors: Tensor) -> None:
    """Raise ValueError naming all shapes unless the tensors have one shape."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(
            "shapes must agree: " + ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        )


def positive(**values: float) -> None:
    """Raise ValueError unless every value is a finite number > 0."""
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be a finite number > 0, got {value!r}")


def not_negative(**values: float) -> None:
    """Raise ValueError unless every value is a finite number ≥ 0."""
    for name, value in values.items():
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be a finite number ≥ 0, got {value!r}")


def share(**values: float) -> None:
    """Raise ValueError unless every value is in [0, 1]."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {value!r}")
