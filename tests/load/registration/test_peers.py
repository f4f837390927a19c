"""Osler beside SimpleITK, itk-elastix and antspyx on the same pairs: mean error over the brain and time.

`python -m pytest tests/load/registration/test_peers.py -s` prints the table. The last two run in environments of their own, made
by uv; without uv or without the packages they are left out of the table.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from pipelines.registration_study.template import TemplatePair, template_pair
from services.registration.align import Method, align
from services.registration.geometry import distances, to_sitk
from services.registration.plan import Purpose

pytestmark = [pytest.mark.slow]
pytest.importorskip("nilearn", reason="the MNI template comes with nilearn")

HERE = Path(__file__).parent
PEERS = {"itk-elastix": ("peer_elastix.py", "itk-elastix"), "antspyx": ("peer_ants.py", "antspyx")}
#: Mean error over the brain that Osler must not exceed, mm.
BOUND_MM = {"rigid": 0.02, "affine": 0.08}


def osler(pair: TemplatePair, kind: str) -> dict[str, float]:
    begun, processor = time.monotonic(), time.process_time()
    found = align(pair.fixed, pair.moving, purpose=Purpose.FOLLOW_UP, method=Method(kind), threads=2)
    times = {"wall_s": time.monotonic() - begun, "cpu_s": time.process_time() - processor}
    return {"error_mm": float(distances(found.matrix, pair.truth, pair.points).mean()), **times}


def simple(pair: TemplatePair, kind: str) -> dict[str, float]:
    """Mattes information, regular-step descent, three levels: as SimpleITK's own examples have it."""
    fixed, moving = to_sitk(pair.fixed), to_sitk(pair.moving)
    begun, processor = time.monotonic(), time.process_time()
    shape = sitk.Euler3DTransform() if kind == "rigid" else sitk.AffineTransform(3)
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(50)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.01, 1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsGradientDescent(1.0, 100, 1e-6, 10)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([2, 1, 0])
    start = sitk.CenteredTransformInitializer(fixed, moving, shape, sitk.CenteredTransformInitializerFilter.GEOMETRY)
    method.SetInitialTransform(start, inPlace=False)
    found = method.Execute(fixed, moving)
    times = {"wall_s": time.monotonic() - begun, "cpu_s": time.process_time() - processor}
    there = np.asarray([found.TransformPoint(point) for point in pair.points.tolist()])
    true = pair.points @ pair.truth[:3, :3].T + pair.truth[:3, 3]
    return {"error_mm": float(np.linalg.norm(there - true, axis=1).mean()), **times}


def peer(name: str, folder: Path) -> dict[str, float] | None:
    script, package = PEERS[name]
    uv = shutil.which("uv")
    if uv is None:
        return None
    command = [uv, "run", "-q", "--no-project", "--python", "3.11", "--with", package, "--with", "numpy"]
    done = subprocess.run(
        [*command, "python", str(HERE / script), str(folder)], capture_output=True, text=True, check=False
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return lines[0] if done.returncode == 0 and lines else None


@pytest.mark.parametrize("kind", ["rigid", "affine"])
def test_the_template_pair_beside_its_peers(tmp_path: Path, kind: str) -> None:
    pair = template_pair(affine=kind == "affine")
    sitk.WriteImage(to_sitk(pair.fixed), str(tmp_path / "fixed.nii.gz"))
    sitk.WriteImage(to_sitk(pair.moving), str(tmp_path / "moving.nii.gz"))
    truth = {"matrix": pair.truth.tolist(), "points": pair.points.tolist(), "kinds": [kind]}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    table = {
        "osler": osler(pair, kind),
        "SimpleITK": simple(pair, kind),
        **{name: peer(name, tmp_path) for name in PEERS},
    }
    for name, row in table.items():
        text = (
            "not here" if row is None else f"{row['error_mm']:.4f} mm, {row['wall_s']:.1f} s, {row['cpu_s']:.1f} CPU s"
        )
        print(f"{kind} {name}: {text}")
    assert table["osler"]["error_mm"] <= BOUND_MM[kind]
