"""Base of all explorables: ranged traits, a payload for the page, a static figure if widgets are not shown.

The page's part is static/stage.js (cards, panels, drags, the sync with the kernel), which each explorable's own script
imports.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import traitlets

from rlhflab.widget import PageWidget, page_module

if TYPE_CHECKING:
    import plotly.graph_objects as go


class Number(traitlets.Float):
    """A synced real number in a range; a value outside it is a ValueError in one line.

    Args:
        default: its first value.
        low, high: the range, both included. The page reads it from `data["ranges"]`.
    """

    def __init__(self, default: float, low: float, high: float) -> None:
        super().__init__(default)
        self.low, self.high = low, high
        self.tag(sync=True)

    if TYPE_CHECKING:  # traitlets are not followed

        def __get__(self, obj: Any, cls: Any = None) -> float: ...

        def __set__(self, obj: Any, value: float) -> None: ...

    def validate(self, obj: Any, value: Any) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not self.low <= number <= self.high:
            raise ValueError(
                f"{self.name} must be a number from {self.low:g} to {self.high:g}, got {value!r}"
            )
        return number


class Explorable(PageWidget):
    """A widget whose mathematics runs in the page; a subclass defines `_script`, traits, a payload and `figure`.

    Args:
        payload: all that the page needs, as JSON values; it gets the range of every `Number` as "ranges".
        **values: first values of the subclass's traits.

    Attributes:
        data: the payload.
    """

    _script: ClassVar[str] = ""
    """Name of the subclass's JavaScript in explore/static; it exports `{ render }` and calls `stage`."""

    data: traitlets.Dict[str, Any] = traitlets.Dict().tag(sync=True)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        if "_script" in vars(cls):  # not where an instance adds traits, which makes a class too
            cls._esm = page_module(Path(__file__).parent / "static" / cls._script)
        super().__init_subclass__(**kwargs)

    def __init__(self, payload: Mapping[str, Any], **values: Any) -> None:
        numbers = {name: trait for name, trait in self.traits().items() if isinstance(trait, Number)}
        ranges = {name: [trait.low, trait.high] for name, trait in numbers.items()}
        super().__init__(data={**payload, "ranges": ranges}, **values)

    def figure(self) -> go.Figure:
        """Return a static plotly figure of the present values."""
        raise NotImplementedError

    def _table(self) -> str:
        """Return the most important numbers as HTML without scripts, if there are any."""
        return ""

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """Add fallbacks for front ends without widgets: the plotly figure, and a plain table."""
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is None:
            return None
        data, metadata = bundle
        # JupyterLab, Notebook and VS Code rank widgets above HTML (not above plotly's own type everywhere: leave that
        # out); for Colab that is not known, so it gets the widget alone. plotly.js by address keeps a saved notebook
        # small; the table has no script, so it is there offline and on pages that remove scripts.
        if "google.colab" not in sys.modules:
            figure = self.figure().to_html(full_html=False, include_plotlyjs="cdn", include_mathjax=False)
            data["text/html"] = self._table() + figure
        own = sorted(set(self.traits(sync=True)) - set(Explorable.class_traits(sync=True)))
        shown = (f"{name}={getattr(self, name)!r}" for name in own if not name.startswith("_"))
        data["text/plain"] = f"{type(self).__name__}({', '.join(shown)})"
        return data, metadata
