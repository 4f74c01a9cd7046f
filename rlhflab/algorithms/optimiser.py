"""The optimiser every gradient algorithm here uses: fused AdamW, a learning-rate schedule, gradient clipping."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rlhflab import processes


def schedule_factor(schedule: str, step: int, steps: int, warmup: int) -> float:
    """Factor in (0, 1] on the learning rate at update `step` (1-based) of `steps`.

    It rises linearly over `warmup` updates, then stays ("constant") or falls towards 0 ("linear", "cosine").
    """
    rise = min(1.0, step / (warmup + 1))
    if schedule == "constant":
        return rise
    done = max(0, step - 1 - warmup) / max(1, steps - warmup)
    return rise * (1 - done if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done)))


class Optimiser:
    """AdamW over a model's trainable parameters, with the norm of the clipped gradient returned by each step.

    Args:
        parameters: those with requires_grad are trained.
        max_grad_norm: gradients are scaled down to this norm; 1.0 is TRL's default.
        weight_decay: AdamW's, usually 0 in preference optimisation.
        eps: AdamW's; with a larger one small gradients give small steps.
        scaled: whether the loss is scaled, as float16 needs, in which small gradients would be 0. An update whose
            gradient overflows is skipped, and the scale halved.

    Attributes:
        adam: the torch optimiser itself; its learning rate is set by each step.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        max_grad_norm: float = 1.0,
        weight_decay: float = 0.0,
        eps: float = 1e-8,
        scaled: bool = False,
    ) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        if not self.parameters:
            raise ValueError("the model has no trainable parameter")
        self.max_grad_norm = max_grad_norm
        self.adam = torch.optim.AdamW(self.parameters, lr=0.0, weight_decay=weight_decay, eps=eps, fused=True)
        self._scaler = torch.amp.GradScaler(self.parameters[0].device.type) if scaled else None
        self._writes = writes = [0]
        self.adam.register_step_pre_hook(
            lambda *_: writes.__setitem__(0, writes[0] + 1)
        )  # which makes the step

    @property
    def writes(self) -> int:
        """How many steps have begun that change the weights, or at least the loss's scale."""
        return self._writes[0]

    def step(self, loss: Tensor, learning_rate: float, share: float | Tensor | None = None) -> Tensor:
        """Backward from the scalar `loss`, clip, update.

        Args:
            loss: minimised.
            learning_rate: of this update.
            share: with several processes, the fraction in [0, 1] of the batch's rows or tokens that the mean `loss` is
                over in this process; the gradient is then that of the mean over all. None if `loss` is over the whole
                batch in every process.

        Returns:
            the gradient norm before clipping, a scalar; 0 if a scaled gradient overflowed and nothing was updated.
        """
        share = None if processes.count() == 1 else share
        if share is not None:
            loss = loss * share
        for group in self.adam.param_groups:
            group["lr"] = learning_rate
        for parameter in self.parameters:  # as zero_grad does, without its hooks
            parameter.grad = None
        if self._scaler is not None:
            return self._scaled_step(loss, self._scaler, share is not None)
        loss.backward()
        if share is not None:
            processes.sum_gradients(self.parameters)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm, foreach=True)
        self.adam.step()
        return norm

    def _scaled_step(self, loss: Tensor, scaler: torch.amp.GradScaler, shared: bool) -> Tensor:
        scaler.scale(loss).backward()
        if shared:
            processes.sum_gradients(self.parameters)
        scaler.unscale_(self.adam)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm, foreach=True)
        scaler.step(self.adam)
        scaler.update()
        return torch.where(norm.isfinite(), norm, 0.0)

    def release(self) -> None:
        """Release the gradients, and get ready for the next step if the last one was interrupted."""
        for parameter in self.parameters:
            parameter.grad = None
        if self._scaler is not None:  # it may have unscaled gradients without an update
            scale = self._scaler.state_dict()
            self._scaler = torch.amp.GradScaler(self.parameters[0].device.type)
            self._scaler.load_state_dict(scale)

    def state_dict(self) -> dict[str, Any]:
        """Adam's moments, by parameter position (string keys), and the loss's scale if there is one."""
        moments = {str(index): dict(state) for index, state in self.adam.state_dict()["state"].items()}
        return moments if self._scaler is None else {**moments, "scaler": self._scaler.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`. A scale is restored if there is one on both sides; else it starts anew."""
        whole = self.adam.state_dict()
        whole["state"] = {int(index): dict(moments) for index, moments in state.items() if index != "scaler"}
        if self._scaler is not None and "scaler" in state:
            self._scaler.load_state_dict(dict(state["scaler"]))
        self.adam.load_state_dict(whole)
