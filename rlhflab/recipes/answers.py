"""Settings of REINFORCE, TRPO and PPO on language models: prompts, answers, and where the scores come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhflab.core.settings import Setting, setting
from rlhflab.recipes.recipe import Loading
from rlhflab.recipes.reward import BLIND
from rlhflab.settings.common import BATCH_SIZE, EVALUATE_EVERY, LABEL_NOISE, SEED

if TYPE_CHECKING:
    from rlhflab.tasks.language import LanguageTask
    from rlhflab.tasks.rewards import RewardFunction

RISE = "a tenth of the updates, at most 20"
VALUE = Setting(
    help="shared: a value head on the policy's trunk; own: a trunk of its own", one_of=("shared", "own")
)


@dataclass(frozen=True, kw_only=True)
class Answers(Loading):
    """Answers of the tiny model to a world's prompts, or of a real model to the prompts of real texts.

    From Python `reward` may be a function (prompts, answers) → one number each.
    """

    reward: Any = setting(
        "true", "true, model (fitted first), a reward-model run, a classifier, FILE.py:FUNCTION or MODULE:FUNCTION",
        path=True, label="reward",
    )  # fmt: skip
    pairs: int = setting(
        2000,
        "Preference pairs that a reward model is first fitted to; for real texts, the most prompts to read",
        at_least=1,
    )
    label_noise: float = setting(0.0, LABEL_NOISE)
    blind: str = setting("", BLIND)
    prompt_words: int = setting(4, "Number of words of a labelled text that make its prompt", at_least=1)
    max_new_tokens: int = setting(24, "Real models: most tokens of a sampled answer", at_least=1)
    max_length: int = setting(128, "Tokens of prompt and answer; longer prompts are left out", at_least=2)
    batch_size: int = setting(252, BATCH_SIZE, real=32)
    evaluate_every: int = setting(25, EVALUATE_EVERY)
    seed: int = setting(0, SEED)

    def task(
        self, value: str, rows: int, twice: float = 0.0, dtype: str | None = None, each: int = 1
    ) -> tuple[LanguageTask, float | None, Any, dict[str, str]]:
        """The task of the tiny model or of a real one; for a real one its default step size, tokenizer and notes too.

        Args:
            value: the value model; see `LanguageTask`.
            rows: most answers in a forward pass with gradient, over all processes.
            twice: fraction of them whose graph is differentiated twice.
            dtype: overrides the setting.
            each: answers per prompt, in consecutive rows.
        """
        from rlhflab.recipes.answers_of_texts import text_task

        self.check_processes()
        if self.real:
            return text_task(self, self.loading(rows, twice, dtype), value, each)
        return self._tiny_task(value, each), None, None, {}

    def _tiny_task(self, value: str, each: int) -> LanguageTask:
        from rlhflab.models.devices import choose_device
        from rlhflab.models.loading import frozen_copy
        from rlhflab.recipes.reference import tiny_reference
        from rlhflab.recipes.worlds import evaluator_of, view_from, world_named
        from rlhflab.tasks.language import LanguageTask, Prompts

        lab = world_named(self.world)
        if (
            isinstance(self.reward, str)
            and self.reward not in ("true", "model")
            and not Path(self.reward).is_dir()
        ):
            raise ValueError(
                f"reward must be true, model or the folder of a reward model, got {self.reward!r}"
            )
        policy = tiny_reference(lab, progress=self.progress).to(choose_device(self.device, "tiny"))
        ref_policy = frozen_copy(policy)
        return LanguageTask(
            policy,
            ref_policy,
            Prompts(lab.prompt_ids, lab.stop_ids, lab.max_tokens),
            self._scores(lab, ref_policy),
            self.batch_size,
            self.seed,
            value,
            evaluator=evaluator_of(view_from(lab, ref_policy), self.seed),
            each=each,
        )

    def _scores(self, world: Any, ref_policy: Any) -> RewardFunction:
        from rlhflab.evaluation.reward_judge import reference_offsets
        from rlhflab.tasks.rewards import ModelReward, TextReward, TrueReward

        if not isinstance(self.reward, str):
            return TextReward(self.reward, world.prompts, world.decode_answer)
        if self.reward == "true":
            return TrueReward(world)
        reward_model = (self._fitted if self.reward == "model" else self._read)(world, ref_policy)
        reward_model.requires_grad_(False)
        return ModelReward(reward_model, reference_offsets(world, ref_policy, reward_model, self.seed))

    def _fitted(self, world: Any, ref_policy: Any) -> Any:
        from tqdm.auto import tqdm

        from rlhflab.recipes.reward import Reward

        run: Any = Reward(
            world=self.world, pairs=self.pairs, label_noise=self.label_noise, blind=self.blind, seed=self.seed,
            device=self.device, progress=self.progress, evaluate=False,
        ).build()  # fmt: skip
        for _ in tqdm(run, desc="fitting the reward model", leave=False, disable=not self.progress):
            pass
        return run.reward_model

    def _read(self, world: Any, ref_policy: Any) -> Any:
        from rlhflab.models.reward import read_reward_model

        folder = Path(self.reward)
        folder = folder / "model" if (folder / "model").is_dir() else folder
        reward_model = read_reward_model(folder, ref_policy.device)
        if reward_model.config.vocab_size != len(world.tokenizer):
            raise ValueError(
                f"the reward model in {self.reward} has a different vocabulary than the {world.name} world"
            )
        return reward_model
