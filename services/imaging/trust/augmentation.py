"""How far an answer moves when the input is mirrored, shaken or brightened by no more than a scanner would.

Source: Wang et al., "Aleatoric uncertainty estimation with test-time augmentation for medical image segmentation with
convolutional neural networks", Neurocomputing 2019;338:34.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.platform.errors import RefusedError

FloatArray = NDArray[np.float32]
#: Turns an image (channel, z, y, x) into probabilities (class, z, y, x), or (class,) for the whole image.
Predict = Callable[[FloatArray], NDArray[np.floating]]


@dataclass(frozen=True)
class Shaken:
    """Answers over all variants of one image.

    Attributes:
        mean: as `Predict` gives it; sums to 1 over classes where each answer does.
        deviation: standard deviation over variants, in units of probability.
        entropy_nats: of `mean`, over classes; 0 is sure, ln(classes) is none the wiser.
        disagreement_nats: entropy of the mean less the mean entropy (mutual information): what the variants differ in.
        variants: how many answers these are made of.
    """

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    entropy_nats: NDArray[np.float64]
    disagreement_nats: NDArray[np.float64]
    variants: int


def shaken(
    predict: Predict,
    image: FloatArray,
    *,
    mirror_axes: Sequence[int] = (),
    noise: float = 0.02,
    gain: float = 0.05,
    repeats: int = 4,
    seed: int = 0,
) -> Shaken:
    """Predicts the image as it is, mirrored along each of `mirror_axes`, and `repeats` times with noise and gain.

    `image`: (channel, *space). `mirror_axes`: axes of `image` along which left and right may be swapped without another
    answer; maps are mirrored back. `noise`: standard deviation, and `gain`: largest change of contrast, both as a share of
    the image's own standard deviation. The same `seed` gives the same variants.

    Raises RefusedError `trust.not_a_probability` for answers that are no probabilities.
    """
    generator = np.random.default_rng(seed)
    spread = float(image.std())
    answers = [_checked(predict(image))]
    for axis in mirror_axes:
        answer = _checked(predict(np.ascontiguousarray(np.flip(image, axis))))
        answers.append(np.flip(answer, axis) if answer.ndim == image.ndim else answer)
    for _ in range(repeats):
        factor = 1 + generator.uniform(-gain, gain)
        level = float(image.mean())
        grain = generator.normal(0, noise * spread, image.shape)
        answers.append(_checked(predict(((image - level) * factor + level + grain).astype(np.float32))))
    stacked = np.stack(answers)
    mean = stacked.mean(axis=0)
    entropy = _entropy(mean)
    return Shaken(
        mean, stacked.std(axis=0), entropy, np.clip(entropy - _entropy(stacked, 1).mean(axis=0), 0, None), len(stacked)
    )


def _checked(answer: NDArray[np.floating]) -> NDArray[np.float64]:
    values = np.asarray(answer, dtype=np.float64)
    if not np.isfinite(values).all() or values.min() < -1e-6 or values.max() > 1 + 1e-6:
        raise RefusedError(
            "trust.not_a_probability",
            "the model's answer holds values that are no probabilities",
            remedy="Apply the model's last activation before its uncertainty is estimated.",
        )
    return np.clip(values, 0, 1)


def _entropy(probabilities: NDArray[np.float64], axis: int = 0) -> NDArray[np.float64]:
    """Over classes; a single class is one outcome of two."""
    if probabilities.shape[axis] == 1:
        probabilities = np.concatenate([probabilities, 1 - probabilities], axis=axis)
    return np.asarray(-(probabilities * np.log(np.clip(probabilities, 1e-12, None))).sum(axis=axis))
