"""Small packages with a known answer, built by the tests: a network that marks what is brighter than one half."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from services.clinical.volume import ImageVolume
from services.imaging.host import manifest

THRESHOLD = 0.5
#: Scales the score, so that softmax is sharp away from the threshold.
GAIN = 20.0
METADATA: dict[str, Any] = {
    "version": "1.2.0",
    "changelog": {"1.2.0": "first"},
    "monai_version": "1.4.0",
    "pytorch_version": "2.5.0",
    "numpy_version": "1.26.4",
    "task": "What is brighter than one half",
    "description": "A test package.",
    "authors": "Osler",
    "copyright": "Osler",
    "license": "Apache-2.0",
    "intended_use": "Tests.",
    "network_data_format": {
        "inputs": {
            "image": {
                "type": "image",
                "format": "hounsfield",
                "modality": "CT",
                "num_channels": 1,
                "spatial_shape": ["*", "*", "*"],
                "dtype": "float32",
                "channel_def": {"0": "CT"},
            }
        },
        "outputs": {
            "pred": {
                "type": "image",
                "format": "segmentation",
                "num_channels": 2,
                "spatial_shape": ["*", "*", "*"],
                "dtype": "float32",
                "channel_def": {"0": "background", "1": "bright"},
            }
        },
    },
    "osler": {"codes": {"1": {"system": "http://snomed.info/sct", "code": "52988006", "display": "Lesion"}}},
}
INFERENCE: dict[str, Any] = {
    "imports": ["$import os"],
    "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", "keys": "image"},
            {"_target_": "EnsureChannelFirstd", "keys": "image"},
            {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
            {"_target_": "EnsureTyped", "keys": "image", "device": "@device"},
        ],
    },
    "network_def": {"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": 2, "kernel_size": 1},
    "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [16, 16, 16], "sw_batch_size": 4, "overlap": 0.25},
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "Activationsd", "keys": "pred", "softmax": True},
            {
                "_target_": "Invertd",
                "keys": "pred",
                "transform": "@preprocessing",
                "orig_keys": "image",
                "nearest_interp": False,
                "to_tensor": True,
            },
            {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
            {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir", "output_dtype": "$np.uint8"},
        ],
    },
    "run": ["$os.system('false')"],
}


def threshold_state() -> dict[str, torch.Tensor]:
    """Weights of a 1x1x1 convolution: score of label 1 minus that of the background is GAIN * (x - THRESHOLD)."""
    weight = torch.tensor([0.0, GAIN]).reshape(2, 1, 1, 1, 1)
    return {"weight": weight, "bias": torch.tensor([0.0, -GAIN * THRESHOLD])}


def write_bundle(
    folder: Path,
    *,
    metadata: dict[str, Any] | None = None,
    inference: dict[str, Any] | None = None,
    state: dict[str, torch.Tensor] | None = None,
    sealed: bool = True,
) -> Path:
    """A MONAI bundle folder; `metadata` and `inference` replace top-level keys."""
    for part in ("configs", "models", "docs"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "configs" / "metadata.json").write_text(json.dumps({**METADATA, **(metadata or {})}))
    (folder / "configs" / "inference.json").write_text(json.dumps({**INFERENCE, **(inference or {})}))
    (folder / "docs" / "README.md").write_text("# A test package\n")
    torch.save(state or threshold_state(), folder / "models" / "model.pt")
    if sealed:
        manifest.write(folder, "tests")
    return folder


class Payload:
    """Pickles as a call that writes a file: what a malicious weights file does when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self._mark),)


#: An oblique, anisotropic grid: 2 x 3 x 4 mm voxels, turned by 20 degrees about the long axis of the body.
ANGLE = np.deg2rad(20)
AFFINE = np.array(
    [
        [2 * np.cos(ANGLE), -3 * np.sin(ANGLE), 0, -10],
        [2 * np.sin(ANGLE), 3 * np.cos(ANGLE), 0, 20],
        [0, 0, 4, -30],
        [0, 0, 0, 1],
    ]
)


def bright_box(shape: tuple[int, int, int] = (20, 24, 28), modality: str = "CT", seed: int = 0) -> ImageVolume:
    """Dark noise with a bright box off centre: voxels (k 3..9, j 5..16, i 10..23), 6 * 11 * 13 = 858 of them."""
    values = np.random.default_rng(seed).uniform(0, 0.4, shape).astype(np.float32)
    values[3:9, 5:16, 10:23] = 1
    return ImageVolume(values, AFFINE, modality, "1.2.3", "1.2", "1.2.9")


BOX_VOXELS = 6 * 11 * 13
BOX_MM3 = BOX_VOXELS * 24.0
