"""antspyx with its defaults, in an environment of its own. `python peer_ants.py FOLDER` prints JSON lines."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import ants
import numpy as np

folder = Path(sys.argv[1])
truth = json.loads((folder / "truth.json").read_text())
points, matrix = np.asarray(truth["points"]), np.asarray(truth["matrix"])
fixed, moving = (ants.image_read(str(folder / f"{name}.nii.gz")) for name in ("fixed", "moving"))
for kind in truth["kinds"]:
    begun, processor = time.monotonic(), time.process_time()
    found = ants.registration(fixed, moving, type_of_transform={"rigid": "Rigid", "affine": "Affine"}[kind])
    wall, processor = time.monotonic() - begun, time.process_time() - processor
    transform = ants.read_transform(found["fwdtransforms"][0])
    there = np.asarray([transform.apply_to_point(point) for point in points.tolist()])
    error = np.linalg.norm(there - (points @ matrix[:3, :3].T + matrix[:3, 3]), axis=1).mean()
    print(json.dumps({"kind": kind, "error_mm": float(error), "wall_s": wall, "cpu_s": processor}))
