"""The race: every method that turns the same preferences into a policy, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rlhflab.recipes.recipe import WORLDS, Language
from rlhflab.settings.race import RaceSettings

if TYPE_CHECKING:
    from rlhflab.recipes.racing import Race as Racing


@dataclass(frozen=True, kw_only=True)
class Race(RaceSettings, Language):
    """Race DPO, preferred fine-tuning, PPO, TRPO, REINFORCE and best-of-n.

    In the reviews world standings are estimates, and each lap takes a second per contestant.
    """

    algorithm: ClassVar[str] = "race"
    name: ClassVar[str] = "race"
    words: ClassVar[str] = "Race every method that turns preferences into a policy, side by side."

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.of_texts:
            raise ValueError(
                f"a race needs a world whose reward is known: {' or '.join(WORLDS)}, got {self.world!r}"
            )

    def _build(self) -> Racing:
        from rlhflab.models.devices import choose_device
        from rlhflab.recipes.racing import Race as Racing
        from rlhflab.recipes.reference import tiny_reference
        from rlhflab.recipes.worlds import view_from, world_named

        lab = world_named(self.world)
        sft = tiny_reference(lab).to(choose_device(self.device, "tiny"))
        return Racing(view_from(lab, sft), sft, self)
