"""itk-elastix with its default parameter maps, in an environment of its own: `peer_elastix.py FOLDER` prints JSON lines."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import itk
import numpy as np


def euler(parameters: np.ndarray) -> np.ndarray:
    """ITK's Euler3DTransform in its default order: Rz Rx Ry."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(parameters[:3]), np.sin(parameters[:3])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    return about_z @ about_x @ about_y


folder = Path(sys.argv[1])
truth = json.loads((folder / "truth.json").read_text())
points, matrix = np.asarray(truth["points"]), np.asarray(truth["matrix"])
fixed, moving = (itk.imread(str(folder / f"{name}.nii.gz"), itk.F) for name in ("fixed", "moving"))
for kind in truth["kinds"]:
    maps = itk.ParameterObject.New()
    maps.AddParameterMap(maps.GetDefaultParameterMap(kind))
    begun, processor = time.monotonic(), time.process_time()
    _, found = itk.elastix_registration_method(fixed, moving, parameter_object=maps, log_to_console=False)
    wall, processor = time.monotonic() - begun, time.process_time() - processor
    answer = found.GetParameterMap(0)
    values = np.array([float(text) for text in answer["TransformParameters"]])
    centre = np.array([float(text) for text in answer["CenterOfRotationPoint"]])
    linear, shift = (euler(values), values[3:]) if kind == "rigid" else (values[:9].reshape(3, 3), values[9:])
    there = (points - centre) @ linear.T + centre + shift
    error = np.linalg.norm(there - (points @ matrix[:3, :3].T + matrix[:3, 3]), axis=1).mean()
    print(json.dumps({"kind": kind, "error_mm": float(error), "wall_s": wall, "cpu_s": processor}))
