"""A setting is declared once: its type, range and defaults hold wherever an object is made."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pytest

from rlhflab.core.knobs import Knob
from rlhflab.core.recipe import Recipe
from rlhflab.core.settings import Setting, Settings, knob, setting

RATE = Knob(1.0, 0.1, 10.0, label="rate", help="How fast.")


@dataclass(frozen=True, kw_only=True)
class Example(Settings):
    """One of each kind."""

    steps: int = setting(10, "Updates", at_least=1)
    share: float = setting(0.5, Setting(help="Share", above=0, at_most=1))
    rate: float = knob(1.0, RATE, real=0.1, worlds={"far": 3.0})
    beta: float = knob(2.0, RATE)
    layers: int = setting(2, "Layers", worlds={"far": 8})
    kind: str = setting("a", "Kind", one_of=("a", "b", ""))
    pairs: int | Literal["fresh"] = setting(
        7, "Pairs", words="7; real models: as many as steps", at_least=1, one_of=("fresh",)
    )
    clip: float | None = setting(None, "Clip", above=0)
    wide: bool = setting(False, "Wide")
    label: str = setting("", "Any text")
    anything: Any = setting("x", "A text or a function")
    model: str = setting("tiny", "Model")
    world: str = setting("near", "World")

    def usual(self, name: str) -> Any:
        return self.steps if name == "pairs" and self.real else super().usual(name)


def test_defaults_are_resolved_where_the_object_is_made():
    found = Example()
    assert (found.rate, found.layers, found.pairs, found.clip) == (1.0, 2, 7, None) and not found.real
    assert Example(world="far").rate == 3.0 and Example(world="far").layers == 8
    real = Example(model="owner/model", world="far", steps=3)
    assert real.real and (real.rate, real.layers, real.pairs) == (0.1, 8, 3)
    assert Example(rate=5, model="owner/model").rate == 5.0


def test_none_is_the_default_unless_it_is_a_value_of_its_own():
    names = {field.name for field in dataclasses.fields(Example)}
    assert Example(**dict.fromkeys(names)) == Example()
    given = dict.fromkeys(names - {"model", "world"})
    assert Example(model="m", world="far", **given) == Example(model="m", world="far")
    assert Example(clip=0.2).clip == 0.2 and Example(clip=None).clip is None


def test_values_get_their_type():
    found = Example(steps=3.0, rate=2, share="0.25", anything=max, layers="4.0")
    assert (type(found.steps), found.steps) == (int, 3) and (type(found.rate), found.rate) == (float, 2.0)
    assert found.share == 0.25 and found.anything is max and found.layers == 4
    assert Example(steps=2**62 + 1).steps == 2**62 + 1  # no float on the way
    assert Example(pairs="fresh").pairs == "fresh" and Example(kind="").kind == ""


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"steps": 0}, "steps must be a whole number ≥ 1, got 0"),
        ({"steps": 2.5}, "steps must be a whole number ≥ 1, got 2.5"),
        ({"steps": "ten"}, "steps must be a whole number ≥ 1, got 'ten'"),
        ({"steps": True}, "steps must be a whole number ≥ 1, got True"),
        ({"share": 0}, "share must be a number > 0 and ≤ 1, got 0"),
        ({"share": 1.5}, "share must be a number > 0 and ≤ 1, got 1.5"),
        ({"rate": math.nan}, "rate must be a number > 0, got nan"),
        ({"rate": math.inf}, "rate must be a number > 0, got inf"),
        ({"rate": 10**400}, f"rate must be a number > 0, got {10**400}"),
        ({"beta": [1.0]}, "beta must be a number > 0, got [1.0]"),
        ({"kind": "c"}, "kind must be one of a, b, nothing, got 'c'"),
        ({"pairs": 0}, "pairs must be a whole number ≥ 1 or fresh, got 0"),
        ({"pairs": "few"}, "pairs must be a whole number ≥ 1 or fresh, got 'few'"),
        ({"clip": 0}, "clip must be a number > 0 or None, got 0"),
        ({"wide": 1}, "wide must be true or false, got 1"),
        ({"label": 3}, "label must be text, got 3"),
    ],
    ids=str,
)
def test_what_is_not_allowed_is_one_line(given, says):
    with pytest.raises(ValueError) as raised:
        Example(**given)
    assert str(raised.value) == says
    with pytest.raises(ValueError) as raised:
        Example().but(**given)
    assert str(raised.value) == says


def test_an_object_is_frozen_and_changed_by_a_copy_that_is_checked():
    found = Example(steps=4)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.steps = 5
    with pytest.raises(TypeError, match="positional"):
        Example(4)
    with pytest.raises(TypeError, match="unexpected keyword argument 'stpes'"):
        Example(stpes=4)
    other = found.but(rate=7)
    assert (other.steps, other.rate, found.rate) == (4, 7.0, 1.0)
    assert Example().but(model="m", steps=3) == Example(model="m", steps=3)  # other defaults hold there
    assert Example(rate=1.0, pairs=7).but(model="m").rate == 1.0  # but not for what was chosen
    assert found.but() == found == pickle.loads(pickle.dumps(found))  # as it goes to a sweep's processes


def test_a_field_that_is_not_declared_is_refused():
    @dataclass(frozen=True, kw_only=True)
    class Careless(Example):
        more: int = 3

    with pytest.raises(TypeError, match=r"Careless\.more must be declared by setting\(…\) or knob\(…\)"):
        Careless()


def test_what_a_setting_says_of_itself():
    declared = Example.declared()
    words = {name: declared[name].default_in_words for name in declared}
    assert (
        words["steps"] == "10"
        and words["wide"] == "no"
        and words["label"] == "nothing"
        and words["clip"] == "none"
    )
    assert words["rate"] == "1; real models: 0.1; far: 3" and words["layers"] == "2; far: 8"
    assert words["pairs"] == "7; real models: as many as steps"
    kinds = {name: (declared[name].kind, declared[name].optional) for name in declared}
    assert (
        kinds["steps"] == (int, False) and kinds["pairs"] == (int, False) and kinds["clip"] == (float, True)
    )
    assert kinds["wide"] == (bool, False) and kinds["kind"] == (str, False) and kinds["anything"][0] is object
    assert isinstance(declared, Mapping) and not hasattr(declared, "update")  # one for all who ask


def test_knobs_begin_with_the_values_of_the_settings_and_leave_them_alone():
    found = Example(rate=5)
    knobs = found.knobs()
    assert knobs.snapshot() == {"beta": 2.0, "rate": 5.0} and list(found.specs()) == ["beta", "rate"]
    knobs.rate = 9
    assert found.rate == 5.0 and found.knobs().rate == 5.0 and RATE.default == 1.0
    with pytest.raises(ValueError, match="rate must be a number > 0, got 0"):
        knobs.rate = 0


def test_a_subclass_says_again_only_what_is_different():
    @dataclass(frozen=True, kw_only=True)
    class Longer(Example):
        steps: int = setting(1000, "Updates", at_least=100)

    assert Longer().steps == 1000 and Longer().rate == 1.0 and Example().steps == 10
    with pytest.raises(ValueError, match="steps must be a whole number ≥ 100, got 99"):
        Longer(steps=99)


def test_a_recipe_of_ones_own_has_a_name_a_config_and_a_title():
    @dataclass(frozen=True, kw_only=True)
    class Mine(Recipe):
        steps: int = setting(3, "Updates", at_least=1)
        world: str = setting("micro", "World")

        def build(self):
            return [self.steps]

    @dataclass(frozen=True, kw_only=True)
    class Variant(Mine):
        pass

    class Another(Mine):  # builds another class, whose panels are the same
        training = list

    class Nothing(Recipe):
        pass

    @dataclass(frozen=True, kw_only=True)
    class Named(Mine):
        algorithm: ClassVar[str] = "other"
        name: ClassVar[str] = "other-panels"

    assert (Mine.algorithm, Mine.name) == ("mine", "mine") and Mine(steps=4).title == "MINE · micro"
    assert (Variant.algorithm, Variant.name) == ("mine", "mine")
    assert (Another.algorithm, Another.name) == ("another", "mine")
    assert (Named.algorithm, Named.name) == ("other", "other-panels")
    assert Mine(steps=4).config() == {"algorithm": "mine", "steps": 4, "world": "micro"}
    assert json.loads(json.dumps(Mine().config())) == Mine().config()
    with pytest.raises(NotImplementedError, match="Nothing has no build"):
        Nothing().build()
