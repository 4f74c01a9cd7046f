"""Put policy-gradient runs on control problems together from plain settings: REINFORCE, TRPO and PPO."""

from __future__ import annotations

from typing import Any

from rlhflab.algorithms.ppo import PPO, PPOConfig
from rlhflab.algorithms.reinforce import Reinforce, ReinforceConfig
from rlhflab.algorithms.room import fits
from rlhflab.algorithms.trpo import TRPO, TRPOConfig
from rlhflab.models.devices import choose_device
from rlhflab.recipes.control_knobs import PPOControlKnobs, ReinforceControlKnobs, TRPOControlKnobs
from rlhflab.tasks.control import ControlTask
from rlhflab.worlds.control import Make

# What a setting is where it is not given: in any world (""), and where a world needs something else.
TUNED: dict[str, dict[str, dict[str, Any]]] = {
    "reinforce": {"": {"learning_rate": 1e-2, "gamma": 0.99, "steps": 60, "envs": 16}},
    "ppo": {
        "": {
            "learning_rate": 3e-3, "gamma": 0.98, "gae_lambda": 0.9, "epochs": 20, "steps": 195, "envs": 4,
            "horizon": 128, "minibatches": 1,
        },
        "Pendulum-v1": {
            "gamma": 0.9, "gae_lambda": 0.95, "epochs": 10, "steps": 50, "horizon": 512, "minibatches": 4,
        },
    },
    "trpo": {
        "": {"max_kl": 0.01, "gamma": 0.98, "gae_lambda": 0.95, "steps": 195, "envs": 4, "horizon": 128},
        "Acrobot-v1": {"gamma": 0.99, "envs": 8, "steps": 120},
        "Pendulum-v1": {"max_kl": 0.02, "gamma": 0.9, "envs": 8, "steps": 100},
    },
}  # fmt: skip


@fits
def build_control_reinforce(
    world: Make = "CartPole-v1",
    learning_rate: float | None = None,
    gamma: float | None = None,
    steps: int | None = None,
    envs: int | None = None,
    evaluate_every: int = 10,
    seed: int = 0,
    device: str = "auto",
) -> Reinforce:
    """Return a REINFORCE run on a control problem: whole episodes, returns to go, a leave-one-out baseline.

    Args:
        world: a gymnasium id such as "CartPole-v1", MODULE:ID where importing the module registers it, or from Python
            a call that makes one environment.
        learning_rate: peak step size of AdamW > 0.
        gamma: discount in [0, 1].
        steps: iterations; each plays one episode in every copy.
        envs: copies of the environment.
        evaluate_every: iterations between evaluations on fresh episodes.
        seed: weights, starts and actions.
        device: "auto", "cpu", "cuda" or "mps"; see `models.devices`. Policies act on the CPU on any.

    Raises:
        ValueError: a setting that makes no sense or an environment that is not supported, in one line.
    """
    chosen = _chosen("reinforce", world, learning_rate=learning_rate, gamma=gamma, steps=steps, envs=envs)
    knobs = ReinforceControlKnobs(learning_rate=chosen["learning_rate"], gamma=chosen["gamma"])
    config = ReinforceConfig(steps=chosen["steps"], evaluate_every=evaluate_every, seed=seed, to_go=True)
    task = ControlTask(world, chosen["envs"], 1, seed, value=False, device=choose_device(device, "control"))
    return Reinforce(task, config, knobs)


@fits
def build_control_ppo(
    world: Make = "CartPole-v1",
    learning_rate: float | None = None,
    clip_range: float = 0.2,
    gamma: float | None = None,
    gae_lambda: float | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    envs: int | None = None,
    horizon: int | None = None,
    minibatches: int | None = None,
    evaluate_every: int = 10,
    seed: int = 0,
    device: str = "auto",
) -> PPO:
    """Return a PPO run on a control problem; arguments as in `build_control_reinforce`, and:

    Args:
        clip_range: ε > 0, how far a ratio may move before its gradient stops.
        gae_lambda: λ in [0, 1].
        epochs: passes over each rollout, ≥ 1.
        steps: iterations; each acts for `envs` × `horizon` steps.
        horizon: steps of every copy an iteration.
        minibatches: parts of a rollout an epoch, each of whole copies: at most `envs`.
    """
    chosen = _chosen(
        "ppo", world, learning_rate=learning_rate, gamma=gamma, gae_lambda=gae_lambda, epochs=epochs, steps=steps,
        envs=envs, horizon=horizon, minibatches=minibatches,
    )  # fmt: skip
    knobs = PPOControlKnobs(
        clip_range=clip_range, **{name: chosen[name] for name in ("learning_rate", "gamma", "gae_lambda", "epochs")}
    )  # fmt: skip
    config = PPOConfig(
        steps=chosen["steps"], minibatches=chosen["minibatches"], max_grad_norm=0.5, value_coef=1.0,
        adam_eps=1e-5, evaluate_every=evaluate_every, seed=seed,
    )  # fmt: skip
    task = ControlTask(
        world, chosen["envs"], chosen["horizon"], seed, device=choose_device(device, "control")
    )
    if config.minibatches > task.world.envs:
        raise ValueError(f"minibatches must be ≤ envs = {task.world.envs}, got {config.minibatches}")
    return PPO(task, config, knobs)


@fits
def build_control_trpo(
    world: Make = "CartPole-v1",
    max_kl: float | None = None,
    gamma: float | None = None,
    gae_lambda: float | None = None,
    damping: float = 1e-3,
    cg_iterations: int = 10,
    steps: int | None = None,
    envs: int | None = None,
    horizon: int | None = None,
    evaluate_every: int = 10,
    seed: int = 0,
    device: str = "auto",
) -> TRPO:
    """Return a TRPO run on a control problem; arguments as in `build_control_ppo`, and:

    Args:
        max_kl: δ > 0, KL(π_old‖π_θ) that a step may cost, nats per time step; its root falls linearly to 0.
        damping: added to the Fisher matrix's diagonal, ≥ 0.
        cg_iterations: Fisher-vector products a step.
    """
    chosen = _chosen(
        "trpo",
        world,
        max_kl=max_kl,
        gamma=gamma,
        gae_lambda=gae_lambda,
        steps=steps,
        envs=envs,
        horizon=horizon,
    )
    knobs = TRPOControlKnobs(**{name: chosen[name] for name in ("max_kl", "gamma", "gae_lambda")})
    config = TRPOConfig(
        steps=chosen["steps"], damping=damping, cg_iterations=cg_iterations, fisher_share=1.0, value_epochs=20,
        minibatches=2, max_grad_norm=0.5, evaluate_every=evaluate_every, seed=seed,
    )  # fmt: skip
    task = ControlTask(
        world, chosen["envs"], chosen["horizon"], seed, device=choose_device(device, "control")
    )
    return TRPO(task, config, knobs)


def _chosen(algorithm: str, world: Make, **given: Any) -> dict[str, Any]:
    """The settings that were given, and what suits the world where none was."""
    tuned = TUNED[algorithm]
    own = tuned.get(world, {}) if isinstance(world, str) else {}
    return {**tuned[""], **own, **{name: value for name, value in given.items() if value is not None}}
