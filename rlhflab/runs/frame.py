"""A run's records as a pandas DataFrame."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

from rlhflab.core.record import Record


def frame_of(records: Iterable[Record]) -> Any:
    """Return the numbers of records as a DataFrame with one row per step, indexed by step.

    Columns: scalars by their names; knobs in force as knob/NAME; evaluations as exact/NAME and estimated/NAME, and both
    under the names of `Record.judged` as judged/NAME. Missing values are NaN.

    Raises:
        ValueError: pandas is not installed, in one line.
    """
    if find_spec("pandas") is None:
        raise ValueError("a run as a DataFrame needs pandas: python -m pip install pandas")
    import pandas as pd

    rows = [
        {
            "step": record.step,
            **record.scalars,
            **{
                f"{part}/{name}": value
                for part, found in (
                    ("knob", record.knobs), ("exact", record.exact or {}), ("estimated", record.estimated or {}),
                    ("judged", record.judged),
                )
                for name, value in found.items()
            },
        }
        for record in records
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=None if rows else ["step"]).set_index("step")
