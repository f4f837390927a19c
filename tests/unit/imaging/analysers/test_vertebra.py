"""Vertebral bodies with known heights: normal, wedge, biconcave and crushed; turned, and in uneven voxels."""

from __future__ import annotations

import numpy as np
import pytest

from services.imaging.analysers.contract import Image, Result
from services.imaging.analysers.registry import run
from services.imaging.findings import Interval
from services.platform.errors import RefusedError

DEPTH, WIDTH, HEIGHT = 32.0, 42.0, 27.0


def turned(pitch_deg: float, roll_deg: float, yaw_deg: float) -> np.ndarray:
    """Rotation: pitch about left, roll about anterior-posterior, yaw about superior."""
    p, r, w = np.deg2rad([pitch_deg, roll_deg, yaw_deg])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    about_y = np.array([[np.cos(r), 0, np.sin(r)], [0, 1, 0], [-np.sin(r), 0, np.cos(r)]])
    about_z = np.array([[np.cos(w), -np.sin(w), 0], [np.sin(w), np.cos(w), 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def body(
    anterior: float = 0.0,
    middle: float = 0.0,
    crush: float = 0.0,
    rotation: np.ndarray | None = None,
    spacing: tuple[float, float, float] = (0.75, 0.75, 0.7),
) -> Image:
    """A body (super-ellipse in cross-section). Losses are shares of the posterior height, taken from both endplates."""
    half = 27.0
    count = [int(2 * half / edge) for edge in spacing]
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -np.array(spacing) * (np.array(count) - 1) / 2 + (0.13, 0.29, 0.17)
    k, j, i = np.indices(count[::-1])
    places = np.stack([i, j, k], axis=-1) @ affine[:3, :3].T + affine[:3, 3]
    own = places @ (np.eye(3) if rotation is None else rotation)
    left, front, up = own[..., 0], -own[..., 1], own[..., 2]
    cross = (np.abs(front) / (DEPTH / 2)) ** 4 + (np.abs(left) / (WIDTH / 2)) ** 4 <= 1
    share = 0.5 - front / DEPTH  # 0 in front, 1 behind
    loss = anterior * (1 - share) + middle * 4 * share * (1 - share)
    height = HEIGHT * (1 - crush) * (1 - loss)
    return Image(cross & (np.abs(up) <= height / 2), affine)


def holds(result: Result, name: str, truth: float) -> bool:
    told = result.values[name].uncertainty
    assert isinstance(told, Interval)
    return told.lower <= truth <= told.upper


def graded(image: Image, **neighbours: Image) -> tuple[dict[str, float], str]:
    result = run("vertebra", {"body": image, **neighbours})
    return {name: value.value for name, value in result.values.items()}, result.parameters["deformity"]


@pytest.mark.parametrize("angles", [(0, 0, 0), (-20, 12, 8)])
@pytest.mark.parametrize("spacing", [(0.75, 0.75, 0.7), (2.0, 0.7, 0.7)])
def test_normal_body(angles: tuple[float, float, float], spacing: tuple[float, float, float]) -> None:
    values, kind = graded(body(rotation=turned(*angles), spacing=spacing))
    for part in ("anterior", "middle", "posterior"):
        assert values[f"{part}_height"] == pytest.approx(HEIGHT, abs=0.6)
    assert values["anterior_loss"] == pytest.approx(0, abs=2.5)
    assert (values["genant_grade"], kind) == (0, "none")


@pytest.mark.parametrize(
    ("loss", "grade", "angles"),
    [
        (0.15, 0, (0, 0, 0)),
        (0.225, 1, (20, -10, 6)),
        (0.32, 2, (0, 0, 0)),
        (0.32, 2, (20, -10, 6)),
        (0.5, 3, (20, -10, 6)),
    ],
)
def test_wedge(loss: float, grade: int, angles: tuple[float, float, float]) -> None:
    wedge = body(anterior=loss, rotation=turned(*angles))
    values, kind = graded(wedge)
    assert values["anterior_loss"] == pytest.approx(100 * loss, abs=3.0)
    assert holds(run("vertebra", {"body": wedge}), "anterior_loss", 100 * loss)
    assert values["posterior_height"] == pytest.approx(HEIGHT, abs=0.8)
    assert (values["genant_grade"], kind) == (grade, "wedge" if grade else "none")


@pytest.mark.parametrize(("loss", "grade"), [(0.225, 1), (0.33, 2), (0.48, 3)])
def test_biconcave(loss: float, grade: int) -> None:
    values, kind = graded(body(middle=loss, rotation=turned(15, 0, 5)))
    assert values["middle_loss"] == pytest.approx(100 * loss, abs=2.5)
    assert values["anterior_loss"] == pytest.approx(0, abs=3.5)
    assert (values["genant_grade"], kind) == (grade, "biconcave")


def test_crush_needs_a_neighbour() -> None:
    crushed = body(crush=0.33, rotation=turned(10, 0, 0))
    alone = run("vertebra", {"body": crushed})
    assert alone.values["genant_grade"].value == 0
    assert any("no neighbour" in caution for caution in alone.cautions)
    values, kind = graded(crushed, above=body(rotation=turned(5, 0, 0)), below=body(rotation=turned(14, 0, 0)))
    assert values["posterior_loss"] == pytest.approx(33, abs=2.0)
    assert (values["genant_grade"], kind) == (2, "crush")


def test_a_loss_on_a_border_says_so() -> None:
    result = run("vertebra", {"body": body(anterior=0.25, rotation=turned(18, 9, 5), spacing=(1.0, 1.0, 2.0))})
    told = result.values["anterior_loss"].uncertainty
    assert isinstance(told, Interval)
    assert any("25 %" in caution for caution in result.cautions) == (told.lower < 25 < told.upper)


def test_refusals() -> None:
    whole = body()
    cases = {
        "empty_mask": Image(np.zeros_like(whole.array), whole.affine_lps),
        "wrong_size": Image(whole.array, np.diag([0.1, 0.1, 0.1, 1.0])),
        "cut_off": Image(whole.array[:, 30:], whole.affine_lps),
        "too_coarse": body(spacing=(1.0, 1.0, 6.0)),
    }
    for reason, wrong in cases.items():
        with pytest.raises(RefusedError) as refused:
            run("vertebra", {"body": wrong})
        assert refused.value.reason == f"vertebra.{reason}"
    with pytest.raises(RefusedError, match="grid"):
        run("vertebra", {"body": whole, "above": body(spacing=(1.0, 1.0, 1.0))})
    with pytest.raises(RefusedError, match="direction"):
        run("vertebra", {"body": whole}, {"superior": "0,0,0"})
