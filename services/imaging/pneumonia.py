"""Pneumonia on a frontal chest X-ray of a child: a calibrated probability.

Trained on PneumoniaMNIST (MedMNIST v2; source Kermany et al., Cell 172:1122, 2018): one hospital, ages one to five, 28x28
pixels. The networks give a likelihood ratio; the prevalence among those X-rayed turns it into a probability, so that a
clinic with fewer cases can say so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from services.clinical.codes import SCT, Concept
from services.imaging.host.contract import Card, Checkpoint, Finding, Inputs, Result, ignore_progress
from services.imaging.host.model import LoadedModel
from services.imaging.pneumonia_network import SIZE, member_logits, members_of, to_square
from services.platform.errors import ConfigurationError, RefusedError

PNEUMONIA = Concept(SCT, "233604007", "Pneumonia")
#: Long edge over short edge beyond which a picture is no frontal chest.
MOST_ELONGATED = 2.0
PREVALENCE_RANGE = (0.001, 0.999)


@dataclass(frozen=True)
class Calibration:
    """How log-odds at equal prevalence become a probability: sigmoid(z / temperature + bias + logit(prevalence)).

    Attributes:
        prevalence: share of pneumonia assumed unless the caller states another.
        disagreement: standard deviation over the members that 97.5 % of held-out images stay below.
    """

    temperature: float
    bias: float
    prevalence: float
    disagreement: float


@dataclass(frozen=True)
class PneumoniaModel:
    """Loaded members and their calibration."""

    members: tuple[torch.nn.Module, ...]
    calibration: Calibration


@dataclass(frozen=True)
class PneumoniaReading:
    """What one picture gave.

    Attributes:
        probability: calibrated, 0 to 1, at `prevalence`.
        log_likelihood_ratio: of pneumonia against none, natural logarithm.
        disagreement: standard deviation of the members' log-odds.
    """

    probability: float
    prevalence: float
    log_likelihood_ratio: float
    disagreement: float
    cautions: tuple[str, ...]


def probability(log_odds: float, calibration: Calibration, prevalence: float) -> float:
    """Chance of pneumonia from log-odds at equal prevalence.

    >>> round(probability(0.0, Calibration(1.0, 0.0, 0.5, 1.0), 0.25), 6)
    0.25
    """
    z = log_odds / calibration.temperature + calibration.bias + math.log(prevalence / (1 - prevalence))
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


def classify(model: PneumoniaModel, picture: NDArray[np.float32], prevalence: float | None = None) -> PneumoniaReading:
    """Reads one frontal chest X-ray.

    Args:
        picture: (rows, columns), rows from head to foot, dense tissue bright (MONOCHROME2), any unit.
        prevalence: share of pneumonia among those X-rayed, 0.001 to 0.999; None takes the model's own.

    Raises:
        RefusedError: `pneumonia.*`; no such picture, or a prevalence outside its range.
    """
    share = model.calibration.prevalence if prevalence is None else float(prevalence)
    if not PREVALENCE_RANGE[0] <= share <= PREVALENCE_RANGE[1]:
        raise RefusedError(
            "pneumonia.prevalence",
            f"a prevalence of {share:g}; it is a share from 0.001 to 0.999",
            missing=["prevalence"],
        )
    _check_picture(picture)
    image = to_square(np.asarray(picture, dtype=np.float32))
    votes = np.array([float(member_logits(one, image)[0]) for one in model.members])
    spread = float(votes.std())
    cautions = ["validated on children of one to five years at one hospital, front to back exposures only"]
    if spread > model.calibration.disagreement:
        cautions.append("the members of the ensemble disagree more than on 97.5 % of the validation images")
    mean = float(votes.mean())
    return PneumoniaReading(
        probability=probability(mean, model.calibration, share),
        prevalence=share,
        log_likelihood_ratio=mean / model.calibration.temperature + model.calibration.bias,
        disagreement=spread,
        cautions=tuple(cautions),
    )


def _check_picture(picture: NDArray[np.float32]) -> None:
    if picture.ndim != 2 or min(picture.shape) < SIZE:
        raise RefusedError(
            "pneumonia.not_a_picture",
            f"expected one picture of at least {SIZE}x{SIZE} pixels, got an array of shape {picture.shape}",
            missing=["a frontal chest X-ray"],
        )
    if max(picture.shape) > MOST_ELONGATED * min(picture.shape):
        raise RefusedError(
            "pneumonia.not_a_chest",
            f"a picture of {picture.shape[0]}x{picture.shape[1]} pixels is too long for a frontal chest X-ray",
            missing=["a frontal chest X-ray"],
        )
    if not np.isfinite(picture).all():
        raise RefusedError("pneumonia.not_finite", "the picture holds values that are no numbers")
    low, high = np.percentile(picture, (0.5, 99.5))
    if not high > low:
        raise RefusedError("pneumonia.no_contrast", "the picture is uniform: there is nothing to see")


class PneumoniaAnalysis:
    """`classify` behind the host's contract; `Result.detail` is its `PneumoniaReading`."""

    def __init__(self, card: Card, model: PneumoniaModel) -> None:
        self._card = card
        self._model = model

    @property
    def card(self) -> Card:
        return self._card

    def run(self, inputs: Inputs, checkpoint: Checkpoint = ignore_progress) -> Result:
        """Takes the parameter `prevalence`. Raises RefusedError `pneumonia.*`."""
        volume = inputs.volume("image")
        checkpoint(0, 1)
        if volume.array.ndim != 3 or len(volume.array) != 1:
            raise RefusedError(
                "pneumonia.not_a_picture",
                f"one picture is read at a time; the series has {len(volume.array)}",
                missing=["a single frontal chest X-ray"],
                remedy="Choose the frontal exposure of the study.",
            )
        reading = classify(self._model, volume.array[0], _prevalence(inputs))
        checkpoint(1, 1)
        return Result(
            findings=(Finding(PNEUMONIA, reading.probability, calibrated=True),),
            cautions=reading.cautions,
            parameters={
                "model": f"{self._card.name}@{self._card.version}",
                "weights_sha256": self._card.weights_sha256,
                "prevalence": f"{reading.prevalence:g}",
            },
            detail=reading,
        )


def _prevalence(inputs: Inputs) -> float | None:
    stated = inputs.parameters.get("prevalence")
    try:
        return None if stated is None else float(stated)
    except ValueError as error:
        raise RefusedError("pneumonia.prevalence", "the prevalence is no number", missing=["prevalence"]) from error


def calibration_of(metadata: dict[str, Any]) -> Calibration:
    """From the `osler` section of metadata.json. Raises ConfigurationError for metadata of another model."""
    try:
        osler = metadata["osler"]
        section = osler["calibration"]
        return Calibration(
            temperature=float(osler["temperature"]),
            bias=float(section["bias"]),
            prevalence=float(section["prevalence"]),
            disagreement=float(section["disagreement"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(f"pneumonia bundle: metadata.json states no calibration ({error})") from error


def model_of(loaded: LoadedModel) -> PneumoniaModel:
    """Members and calibration of a loaded package. Raises ConfigurationError for a package of another model."""
    if loaded.network.module is None:
        raise ConfigurationError("pneumonia bundle: the weights are no TorchScript program")
    return PneumoniaModel(tuple(members_of(loaded.network.module)), calibration_of(dict(loaded.package.raw_metadata)))


def build(loaded: LoadedModel) -> PneumoniaAnalysis:
    """The adapter named "pneumonia"."""
    return PneumoniaAnalysis(loaded.card, model_of(loaded))
