"""JSON has no NaN and infinity: they become {"$float": "nan"} in our files, null for other programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def dumps(data: Any, **layout: Any) -> str:
    """Return plain data as JSON that `loads` restores, with any floats; `layout` as for json.dumps.

    >>> dumps([1.0, float("inf")]), loads(dumps([1.0, float("inf")]))
    ('[1.0, {"$float": "inf"}]', [1.0, inf])
    """
    try:
        return json.dumps(data, allow_nan=False, **layout)
    except ValueError:
        return json.dumps(_finite(data, lambda value: {"$float": repr(value)}), allow_nan=False, **layout)


def loads(text: str | bytes) -> Any:
    """Inverse of `dumps`.

    Raises:
        ValueError: not JSON.
    """
    return json.loads(text, object_hook=lambda d: float(d["$float"]) if d.keys() == {"$float"} else d)


def json_line(data: Any) -> str:
    """Return plain data as one line of JSON for other programs: NaN and infinity become null.

    >>> json_line({"regret": float("nan")})
    '{"regret": null}'
    """
    return json.dumps(_finite(data, lambda value: None), allow_nan=False)


def _finite(value: Any, instead: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return instead(value)
    if isinstance(value, Mapping):
        return {key: _finite(item, instead) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item, instead) for item in value]
    return value
