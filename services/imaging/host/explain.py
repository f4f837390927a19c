"""Which voxels a network's answer rests on: integrated gradients on the preprocessed input.

Source: Sundararajan et al., "Axiomatic Attribution for Deep Networks", ICML 2017 (arXiv:1703.01365), as captum has it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor

from services.imaging.host.calls import Call
from services.imaging.host.contract import Inputs, Map
from services.imaging.host.model import PackagedModel, plain
from services.imaging.host.outputs import lps_zyx
from services.imaging.host.refusals import refused

STEPS = 32
METHOD = f"integrated gradients, {STEPS} steps, baseline zero after preprocessing"
_LIMITS = "a saliency map shows what moves the score, not what is ill"
_NO_SUCH_MODEL = "Choose a model whose weights are a state dict or TorchScript."


@dataclass(frozen=True)
class Explanation:
    """`saliency`: 0 to 1 of the largest attribution without sign, on the preprocessed grid; `score`: the target's.

    `completeness_gap`: how far the attributions' sum is from the change of score, as a fraction of it; 0 is exact.
    """

    saliency: Map
    score: float
    completeness_gap: float
    cautions: tuple[str, ...]
    method: str = METHOD


def explain(model: PackagedModel, inputs: Inputs, target: int, call: Call) -> Explanation:
    """Attribution of channel `target`: a class score, or the mean score of a segmentation's label over the image.

    Raises RefusedError `model.no_gradient` for ONNX, `model.no_such_target`, and as `PackagedModel.prepare` does.
    """
    from captum.attr import IntegratedGradients

    module = model.loaded.network.module
    if module is None:
        raise refused("no_gradient", "an ONNX network gives no gradients, so nothing can be attributed", _NO_SUCH_MODEL)
    image = model.prepare(inputs, call.checkpoint).data["image"]
    batch = plain(image)[None].to(model.loaded.network.device)
    score = _scorer(model, target)
    with torch.no_grad():
        at_input, at_zero = float(score(batch)[0]), float(score(torch.zeros_like(batch))[0])
    done = 0

    def counted(part: torch.Tensor) -> torch.Tensor:
        nonlocal done
        call.checkpoint(min(done, STEPS), STEPS)
        done += 1
        return score(part)

    found = IntegratedGradients(counted).attribute(batch, n_steps=STEPS, internal_batch_size=1)[0].detach().float()
    strength = found.abs().sum(dim=0, keepdim=True)
    largest = float(strength.max())
    if not np.isfinite(largest):
        raise refused("not_finite", "the attribution is no number somewhere; nothing is reported")
    affine = image.affine if isinstance(image, MetaTensor) else torch.eye(4)
    array, affine_lps = lps_zyx(MetaTensor(strength / largest if largest else strength, affine=affine))
    change = at_input - at_zero
    gap = abs(float(found.sum()) - change) / max(abs(change), 1e-6)
    return Explanation(Map("saliency", array[0], affine_lps, "1"), at_input, gap, (_LIMITS,))


def _scorer(model: PackagedModel, target: int) -> Callable[[torch.Tensor], torch.Tensor]:
    forward = model.loaded.network.forward

    def score(batch: torch.Tensor) -> torch.Tensor:
        output = forward(batch)
        if target >= output.shape[1]:
            raise refused("no_such_target", f"the network has {output.shape[1]} outputs, there is no number {target}")
        return output[:, target].reshape(len(output), -1).mean(dim=1)

    return score
