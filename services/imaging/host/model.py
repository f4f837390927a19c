"""A loaded package as an `Analysis`: preprocessing, network (whole or by sliding window), postprocessing, result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.inferers import Inferer, SimpleInferer

from services.clinical.volume import ImageVolume
from services.imaging.host import outputs, policy
from services.imaging.host.calls import caught
from services.imaging.host.card import card_of
from services.imaging.host.contract import Card, Checkpoint, Inputs, Result, ignore_progress
from services.imaging.host.formats import Network, known_values, load_network
from services.imaging.host.package import Package
from services.imaging.host.refusals import refused

_LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_GRID_TOLERANCE_MM = 1e-3
Outcome = Result | Exception


@dataclass(frozen=True)
class LoadedModel:
    """What an adapter builds on. `card` says what the package says of itself."""

    package: Package
    network: Network
    card: Card


@dataclass
class Prepared:
    """One run between preprocessing and result."""

    inputs: Inputs
    data: dict[str, Any]
    checkpoint: Checkpoint


class PackagedModel:
    """Runs a package as its configuration says. Use from one thread at a time."""

    def __init__(self, loaded: LoadedModel) -> None:
        package, device = loaded.package, loaded.network.device
        known = known_values(device)
        self.loaded = loaded
        self._before = policy.build(package.inference, "preprocessing", known)
        self._inferer: Inferer = policy.build(package.inference, "inferer", known) or SimpleInferer()
        self._after = policy.build(package.inference, "postprocessing", {**known, "preprocessing": self._before})

    @property
    def card(self) -> Card:
        return self.loaded.card

    def run(self, inputs: Inputs, checkpoint: Checkpoint = ignore_progress) -> Result:
        """Raises RefusedError `analysis.*` or `model.*`."""
        (outcome,) = self.run_many([(inputs, checkpoint)])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def run_many(self, requests: Sequence[tuple[Inputs, Checkpoint]]) -> list[Outcome]:
        """One outcome for each request; those whose tensors have one shape pass the network together."""
        outcomes: dict[int, Outcome] = {}
        groups: dict[tuple[int, ...], list[tuple[int, Prepared]]] = {}
        for index, (inputs, checkpoint) in enumerate(requests):
            ready = caught(self.prepare, inputs, checkpoint)
            if isinstance(ready, Exception):
                outcomes[index] = ready
            else:
                groups.setdefault(tuple(ready.data["image"].shape), []).append((index, ready))
        for group in groups.values():
            self._run_group(group, outcomes)
        return [outcomes[index] for index in range(len(requests))]

    def _run_group(self, group: Sequence[tuple[int, Prepared]], outcomes: dict[int, Outcome]) -> None:
        batch = torch.stack([plain(ready.data["image"]) for _, ready in group])
        checkpoints = [ready.checkpoint for _, ready in group]
        predicted = caught(self.infer, batch, Together(checkpoints))
        if isinstance(predicted, Exception) and len(group) > 1:
            # One caller that gave up, or one input that breaks the network, must not cost the others their result.
            for member in group:
                self._run_group([member], outcomes)
            return
        for row, (index, ready) in enumerate(group):
            if isinstance(predicted, Exception):
                outcomes[index] = predicted
                continue
            outcomes[index] = caught(self.finish, ready, predicted[row])

    def prepare(self, inputs: Inputs, checkpoint: Checkpoint = ignore_progress) -> Prepared:
        """Preprocessing, as the configuration has it, of the input's channels on one grid."""
        checkpoint(0, 1)
        image = _image(self.loaded, inputs)
        data: dict[str, Any] = {"image": image}
        if self._before is not None:
            data = self._before(data)
        if "image" not in data or not torch.isfinite(torch.as_tensor(data["image"])).all():
            raise refused(
                "input_not_finite", "the input is no number somewhere, after preprocessing", "Send the original series."
            )
        return Prepared(inputs, data, checkpoint)

    def infer(self, batch: torch.Tensor, checkpoint: Checkpoint = ignore_progress) -> torch.Tensor:
        """The network's answer for (batch, channel, space). Raises RefusedError `model.not_finite`."""
        steps = _steps(self._inferer, batch)
        counted = _Counted(self.loaded.network, checkpoint, steps)
        with torch.inference_mode():
            predicted = self._inferer(batch.to(self.loaded.network.device), counted)
        if not isinstance(predicted, torch.Tensor):
            raise refused("wrong_output", "the inferer gives no tensor")
        if not torch.isfinite(predicted).all():
            raise refused(
                "not_finite",
                f"{self.card.name} gave values that are no numbers; nothing is reported from this run",
                "Have the series read without this model, and report it to the model's makers.",
                self.card.name,
            )
        return predicted.cpu()

    def finish(self, ready: Prepared, predicted: torch.Tensor) -> Result:
        """Postprocessing and the result on the grids that it leaves."""
        image = ready.data["image"]
        pred = MetaTensor(predicted, affine=image.affine if isinstance(image, MetaTensor) else torch.eye(4))
        data = {**ready.data, "pred": pred}
        if self._after is not None:
            data = self._after(data)
        return outputs.result_of(self.loaded.package.metadata, self.card, data["pred"])


class Together:
    """One checkpoint for a batch: raises only when every member has to stop."""

    def __init__(self, checkpoints: Sequence[Checkpoint]) -> None:
        self._checkpoints = checkpoints

    def __call__(self, done: int, total: int) -> None:
        stopped = [error for error in (caught(c, done, total) for c in self._checkpoints) if error]
        if len(stopped) == len(self._checkpoints):
            raise stopped[0]


class _Counted:
    """The network with a checkpoint before each call."""

    def __init__(self, network: Network, checkpoint: Checkpoint, steps: int) -> None:
        self._network, self._checkpoint, self._steps, self._done = network, checkpoint, steps, 0

    def __call__(self, batch: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        self._checkpoint(min(self._done, self._steps), self._steps)
        self._done += 1
        return self._network.forward(batch)


def plain(image: torch.Tensor) -> torch.Tensor:
    """A float32 tensor without MONAI's bookkeeping, which slows each operation."""
    return (image.as_tensor() if isinstance(image, MetaTensor) else torch.as_tensor(image)).float()


def _steps(inferer: Inferer, batch: torch.Tensor) -> int:
    """How often the network will be called: once, or once for each batch of windows."""
    from monai.data.utils import dense_patch_slices
    from monai.inferers import SlidingWindowInferer
    from monai.utils import ensure_tuple_rep, fall_back_tuple

    if not isinstance(inferer, SlidingWindowInferer):
        return 1
    space = batch.shape[2:]
    roi = fall_back_tuple(inferer.roi_size, space)
    size = tuple(max(s, r) for s, r in zip(space, roi, strict=True))
    overlap = ensure_tuple_rep(inferer.overlap, len(space))
    interval = tuple(max(1, int(r * (1 - o))) if r != s else int(r) for r, s, o in zip(roi, size, overlap, strict=True))
    windows = len(dense_patch_slices(size, roi, interval)) * batch.shape[0]
    return -(-windows // inferer.sw_batch_size)


def _image(loaded: LoadedModel, inputs: Inputs) -> MetaTensor:
    """Channels (c, x, y[, z]) with a RAS+ affine, as MONAI's readers give them."""
    volumes = [inputs.volume(role.name) for role in loaded.card.roles]
    for volume, role in zip(volumes, loaded.card.roles, strict=True):
        if role.modalities and volume.modality and volume.modality not in role.modalities:
            raise refused(
                "wrong_modality",
                f"the role {role.name!r} takes {' or '.join(role.modalities)}, the series is {volume.modality}",
                "Choose a series of that modality.",
                volume.series_instance_uid,
            )
        _same_grid(volumes[0], volume)
    array = np.stack([volume.array.transpose(2, 1, 0) for volume in volumes]).astype(np.float32)
    if not np.isfinite(array).all():
        raise refused("input_not_finite", "the input holds values that are no numbers", "Send the original series.")
    space = len(loaded.package.metadata.image.spatial_shape) or 3
    if space == 2:
        if array.shape[-1] != 1:
            raise refused(
                "not_a_picture",
                f"{loaded.card.name} takes one picture, the series has {array.shape[-1]} slices",
                "Choose a single image.",
            )
        array = array[..., 0]
    return MetaTensor(torch.from_numpy(array.copy()), affine=torch.from_numpy(_LPS_RAS @ volumes[0].affine_lps))


def _same_grid(first: ImageVolume, other: ImageVolume) -> None:
    if first.array.shape != other.array.shape or np.abs(first.affine_lps - other.affine_lps).max() > _GRID_TOLERANCE_MM:
        raise refused(
            "grids_differ",
            "the series given do not lie on one grid",
            "Register and resample them to the first one.",
            other.series_instance_uid,
        )


def load(package: Package, device: torch.device | str = "cpu") -> LoadedModel:
    """Loads the network with its hash checked; builds nothing else. Raises RefusedError `model.*`."""
    network = load_network(package, torch.device(device))
    return LoadedModel(package, network, card_of(package))
