"""Settings of a training, each declared once: type, default, allowed values, help, and whether it is a live knob.

    @dataclass(frozen=True, kw_only=True)
    class Mine(Settings):
        steps: int = setting(600, "Updates to make", at_least=1)
        beta: float = knob(1.0, BETA, real=0.1)              # a slider; another default for real models

The command line, a run's config.json, sweeps, boards and the algorithm itself read the same object.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Self, Union, get_args, get_origin, get_type_hints

from rlhflab.core.knobs import Knob, Knobs, Range

SAME: Any = object()


@dataclass(frozen=True, kw_only=True)
class Setting(Range):
    """The description of one setting.

    Attributes:
        help: one sentence, without the default.
        one_of: the words it may be; for a number, the words it may be instead.
        path: whether it may name a file or a folder.
        option: whether it is an option of the command line.
        label: one or two words for a form.
    """

    help: str
    one_of: tuple[str, ...] = ()
    path: bool = False
    option: bool = True
    label: str = ""


class Declared(NamedTuple):
    """A setting as declared by a class.

    Attributes:
        spec: its description.
        default: for the tiny model and for control.
        real: default for real models; SAME if it is the same.
        worlds: world → default, for worlds with a different one.
        words: how the default is found, if it is not a single value.
        live: whether it is a knob of the running training.
        kind: str, int, float or bool; `object` for anything else.
        optional: whether None is a value in its own right.
    """

    spec: Setting | Knob
    default: Any
    real: Any
    worlds: Mapping[str, Any]
    words: str
    live: bool
    kind: type = object
    optional: bool = False

    @property
    def varies(self) -> bool:
        """Whether None means the default, which depends on other settings."""
        return self.real is not SAME or bool(self.worlds or self.words)

    @property
    def one_of(self) -> tuple[str, ...]:
        return getattr(self.spec, "one_of", ())

    @property
    def path(self) -> bool:
        return getattr(self.spec, "path", False)

    @property
    def option(self) -> bool:
        return getattr(self.spec, "option", True)

    @property
    def default_in_words(self) -> str:
        """The default, and that of real models if it differs: "1; real models: 0.1"."""
        if self.words:
            return self.words
        others = {"real models": self.real} if self.real is not SAME else {}
        shown = [f"{where}: {_shown(value)}" for where, value in {**others, **self.worlds}.items()]
        return "; ".join([_shown(self.default), *shown])

    def checked(self, name: str, value: Any) -> Any:
        """Return `value` converted to its type; raise ValueError in one line if it is not allowed."""
        if value is None and self.optional:
            return None
        if self.kind in (int, float):
            if isinstance(value, str) and value in self.one_of:
                return value
            allowed = dataclasses.replace(self.spec, whole=self.spec.whole or self.kind is int)
            try:
                number = allowed.validate(name, None if isinstance(value, bool) else value)
            except ValueError:
                otherwise = "".join(f" or {word}" for word in (*self.one_of, *["None"] * self.optional))
                raise ValueError(f"{name} must be {allowed.allowed}{otherwise}, got {value!r}") from None
            if self.kind is float:
                return number
            return int(value) if hasattr(value, "__index__") else int(number)  # the first keeps all digits
        if self.kind is bool and not isinstance(value, bool):
            raise ValueError(f"{name} must be true or false, got {value!r}")
        if self.one_of and value not in self.one_of:
            words = [word or "nothing" for word in self.one_of]
            raise ValueError(f"{name} must be one of {', '.join(words)}, got {value!r}")
        if self.kind is str and not isinstance(value, str):
            raise ValueError(f"{name} must be text, got {value!r}")
        return value


def setting(
    default: Any,
    spec: Setting | Knob | str,
    *,
    real: Any = SAME,
    worlds: Mapping[str, Any] | None = None,
    words: str = "",
    **named: Any,
) -> Any:
    """Declare a field of `Settings`.

    Args:
        default: the value if none is given.
        spec: its description; or its help, with the attributes of `Setting` in `named`.
        real: the default for real models, if different.
        worlds: world → its default, if different.
        words: how the default is found, if it depends on other settings; `Settings.usual` finds it.
    """
    found = Setting(help=spec, **named) if isinstance(spec, str) else spec
    declared = Declared(found, default, real, worlds or {}, words, live=False)
    return field(default=None if declared.varies else default, metadata={"declared": declared})


def knob(
    default: Any, spec: Knob, *, real: Any = SAME, worlds: Mapping[str, Any] | None = None, words: str = ""
) -> Any:
    """Declare a field of `Settings` that can be changed while the training runs; see `setting`."""
    declared = Declared(spec, default, real, worlds or {}, words, live=True)
    return field(default=None if declared.varies else default, metadata={"declared": declared})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base class: frozen settings, checked on construction; None stands for the default.

    Raises:
        ValueError: a value that is not allowed, in one line.
    """

    def __post_init__(self) -> None:
        declared = self.declared()
        missing = {name for name in declared if getattr(self, name) is None and not declared[name].optional}
        for name in sorted(declared, key=missing.__contains__):  # given values first: defaults depend on them
            value = self.usual(name) if name in missing else getattr(self, name)
            if value is None and name in missing:  # known only once the model is loaded
                continue
            object.__setattr__(self, name, declared[name].checked(name, value))
        object.__setattr__(self, "_usual", missing)

    def usual(self, name: str) -> Any:
        """The default of a setting given the others; None if it depends on the loaded model."""
        declared = self.declared()[name]
        if self.real and declared.real is not SAME:
            return declared.real
        world = getattr(self, "world", None)
        return declared.worlds.get(world, declared.default) if isinstance(world, str) else declared.default

    @property
    def real(self) -> bool:
        """Whether these are the settings of a real model."""
        return getattr(self, "model", None) not in (None, "tiny")

    @classmethod
    def declared(cls) -> Mapping[str, Declared]:
        """Every setting by name."""
        key: Any = cls
        return _declared(key)

    def specs(self) -> dict[str, Knob]:
        """The knobs by name, β first, with the values of these settings as defaults."""
        found = {name: declared.spec for name, declared in self.declared().items() if declared.live}
        return {
            name: spec
            if getattr(self, name) is None
            else dataclasses.replace(spec, default=getattr(self, name))
            for name, spec in sorted(found.items(), key=lambda item: item[0] != "beta")
            if isinstance(spec, Knob)
        }

    def knobs(self) -> Knobs:
        """The knobs at their initial values."""
        return Knobs(self.specs())

    def given(self) -> dict[str, Any]:
        """The settings by name that were not left to a default which depends on others."""
        usual: set[str] = vars(self)["_usual"]
        return {name: getattr(self, name) for name in self.declared() if name not in usual}

    def but(self, **changes: Any) -> Self:
        """These settings with some changed; defaults that depend on them are found again."""
        usual: set[str] = vars(self)["_usual"]
        return dataclasses.replace(self, **{**dict.fromkeys(usual), **changes})


@functools.cache
def _declared(cls: Any) -> Mapping[str, Declared]:
    hints = get_type_hints(cls)
    found = {}
    for each in dataclasses.fields(cls):
        kind, optional = _kind(hints[each.name])
        declared = each.metadata.get("declared")
        if declared is None:
            raise TypeError(f"{cls.__name__}.{each.name} must be declared by setting(…) or knob(…)")
        found[each.name] = declared._replace(kind=kind, optional=optional)
    return types.MappingProxyType(found)


def _kind(hint: Any) -> tuple[type, bool]:
    """The type of a setting, and whether it may be None."""
    parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    kinds = [part for part in parts if part is not types.NoneType and get_origin(part) is not Literal]
    plain = len(kinds) == 1 and kinds[0] in (str, int, float, bool)
    return kinds[0] if plain else object, types.NoneType in parts


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return {None: "none", "": "nothing"}.get(value, f"{value:g}" if isinstance(value, float) else str(value))
