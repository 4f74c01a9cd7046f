"""Panels for any records, made from the names of their contents, for an algorithm that has none of its own."""

from __future__ import annotations

from collections.abc import Iterable

from rlhflab.core.record import KL_FROM_SAMPLES
from rlhflab.plots.panel import Line, Panel, arrays_of, series_of
from rlhflab.plots.panels_dpo import PLANE, WEIGHTS, WEIGHTS_OVER_TIME

_COLOURS = ("policy", "fit", "chosen", "rejected", "weight", "brown")
_JUDGED = {"exact": "exact", "estimated": "estimate"}  # prefix of the series → legend
_OF_RECORDS = (
    PLANE,
    WEIGHTS,
    WEIGHTS_OVER_TIME,
)  # whatever the algorithm: of a record's place, and of its pairs
_WORDS = {"kl": "KL", **dict.fromkeys(KL_FROM_SAMPLES, "KL")}


def general_panels(
    series: Iterable[str], arrays: Iterable[str] = (), beside: Iterable[Panel] = ()
) -> tuple[Panel, ...]:
    """Return panels that show every series and array, each once.

    Evaluated quantities, exact or from samples, get a panel each; scalars with a common prefix, as in "rewards/chosen",
    are grouped in panels of at most six; any other scalar has its own. A name that ends in _se or _std is the spread
    around the name without it. Arrays are histograms. The reward–KL plane and the pairs' weights come first.

    Args:
        series, arrays: the names that a history has; without any there are no panels.
        beside: panels that are shown as well; what they draw is left out.
    """
    beside = tuple(beside)
    own, arrays = set(series), tuple(arrays)
    drawn = {*series_of(beside), *arrays_of(beside)}
    groups: dict[str, list[str]] = {}
    for name in sorted(own - drawn):
        base = name.removesuffix("_se").removesuffix("_std")
        if base == name or base not in own:
            groups.setdefault(_group(name), []).append(name)
    kinds = {panel.kind for panel in beside}
    return (
        *(panel for panel in _OF_RECORDS if (own or arrays) and panel.kind not in kinds),
        *(panel for group, names in groups.items() for panel in _panels(group, names, own)),
        *(_histogram(name) for name in arrays if name not in drawn),
    )


def _group(name: str) -> str:
    """The group of a series: the evaluated quantity, the common prefix, or its own name."""
    prefix, _, rest = name.partition("/")
    if prefix not in _JUDGED or not rest:
        return prefix
    return "judged/" + ("kl" if rest in KL_FROM_SAMPLES else rest)


def _panels(group: str, names: list[str], own: set[str]) -> Iterable[Panel]:
    title = _title(group.removeprefix("judged/") if group.startswith("judged/") or names[1:] else names[0])
    for start in range(0, len(names), len(_COLOURS)):
        shown = names[start : start + len(_COLOURS)]
        lines = tuple(
            Line(
                name,
                _name(name),
                colour,
                spread=next((s for s in (f"{name}_se", f"{name}_std") if s in own), ""),
                ghost=len(shown) == 1,
            )
            for name, colour in zip(shown, _COLOURS, strict=False)
        )
        number = f", {1 + start // len(_COLOURS)}" if len(names) > len(_COLOURS) else ""
        yield Panel(
            id=f"general-{group}{number}",
            title=title + number,
            caption=_caption(lines),
            formula=(),
            symbols=tuple((line.name, f"{line.series} of the records") for line in lines),
            lines=lines,
        )


def _caption(lines: tuple[Line, ...]) -> str:
    whole = "The values in the records, step by step."
    return f"{whole} Band: ± its error or spread." if any(line.spread for line in lines) else whole


def _histogram(name: str) -> Panel:
    return Panel(
        id=f"general-array-{name}",
        title=_title(name),
        caption="The newest values. The outer bars hold all values beyond.",
        formula=(),
        symbols=((_plain(name), f"the array {name} of the records"),),
        kind="histogram",
        lines=(Line(name, _plain(name), "policy"),),
        y_title="% of values",
    )


def _name(series: str) -> str:
    prefix, _, rest = series.partition("/")
    return _JUDGED.get(prefix, _plain(rest or prefix))


def _title(name: str) -> str:
    words = _plain(name)
    return words[:1].upper() + words[1:]


def _plain(name: str) -> str:
    return _WORDS.get(name, name.replace("_", " ").replace("/", ", "))
