"""A registration that is wrong is never called good, whatever its optimiser thought of it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from phantoms import PARTS, phantom

from services.platform.errors import RefusedError
from services.registration.align import accepted, align
from services.registration.geometry import inverse, rigid
from services.registration.plan import Purpose
from services.registration.prepare import prepare
from services.registration.quality import Verdict, judge, measure
from services.registration.rigid import register

TRUTH = rigid((3, -4, 5), (8, -6, 7), (0, 0, 0))


@pytest.fixture(scope="module")
def solved():
    fixed, moving = prepare(phantom("CT")), prepare(phantom("MR", to_body=inverse(TRUTH), seed=2))
    return fixed, moving, register(fixed, moving)


def verdict_of(solved, push) -> tuple[Verdict, object]:
    fixed, moving, result = solved
    stuck = dataclasses.replace(
        result,
        matrix=result.matrix @ push,
        runs=tuple(run @ push for run in result.runs),
        inverse_runs=tuple(inverse(push) @ run for run in result.inverse_runs),
    )
    judgement = judge(measure(fixed, moving, stuck), purpose="hybrid", same_frame=False)
    return judgement.verdict, judgement


def test_the_right_place_is_good(solved) -> None:
    verdict, judgement = verdict_of(solved, np.eye(4))
    assert verdict is Verdict.GOOD, judgement
    assert judgement.reasons == ()
    assert judgement.measures.information_after > judgement.measures.information_before
    assert judgement.measures.predicted_tre_mm < 1.0


@pytest.mark.parametrize("distance", [3.5, 5.0])
@pytest.mark.parametrize("direction", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (-1, 1, 1)])
def test_every_run_stopping_a_little_away_is_not_good(solved, direction, distance: float) -> None:
    shift = distance * np.asarray(direction) / np.linalg.norm(direction)
    verdict, judgement = verdict_of(solved, rigid((0, 0, 0), shift, (0, 0, 0)))
    assert verdict is not Verdict.GOOD, judgement.measures


@pytest.mark.parametrize("turn", [(8, 0, 0), (0, -8, 0), (0, 0, 8)])
def test_every_run_stopping_turned_is_not_good(solved, turn) -> None:
    verdict, judgement = verdict_of(solved, rigid(turn, (0, 0, 0), (0, 0, 0)))
    assert verdict is not Verdict.GOOD, judgement.measures


@pytest.mark.parametrize("shift", [(10, 0, 0), (0, -10, 0), (6, 6, 5)])
def test_every_run_stopping_ten_millimetres_away_is_failed(solved, shift) -> None:
    verdict, judgement = verdict_of(solved, rigid((0, 0, 0), shift, (0, 0, 0)))
    assert verdict is Verdict.FAILED, judgement.measures
    assert any("peaks elsewhere" in reason for reason in judgement.reasons)


def test_runs_that_disagree_are_failed(solved) -> None:
    fixed, moving, result = solved
    apart = (result.runs[0], result.runs[0] @ rigid((0, 0, 0), (30, 0, 0), (0, 0, 0)))
    judgement = judge(
        measure(fixed, moving, dataclasses.replace(result, runs=apart)), purpose="hybrid", same_frame=False
    )
    assert judgement.verdict is Verdict.FAILED
    assert any("seeded" in reason for reason in judgement.reasons)


def test_a_result_without_a_run_back_is_never_good(solved) -> None:
    fixed, moving, result = solved
    judgement = judge(
        measure(fixed, moving, dataclasses.replace(result, inverse_runs=())), purpose="hybrid", same_frame=False
    )
    assert judgement.verdict is Verdict.FAILED


def test_one_frame_of_reference_and_a_large_motion_contradict_each_other(solved) -> None:
    fixed, moving, result = solved
    measures = measure(fixed, moving, result)
    assert measures.motion_mm > 10
    assert judge(measures, purpose="hybrid", same_frame=False).verdict is Verdict.GOOD
    contradicted = judge(measures, purpose="hybrid", same_frame=True)
    assert contradicted.verdict is Verdict.REVIEW
    assert "one frame of reference" in contradicted.reasons[0]


def unusable(fixed, moving) -> bool:
    """Refused, or judged as anything but good."""
    try:
        return align(fixed, moving, purpose=Purpose.FOLLOW_UP).judgement.verdict is not Verdict.GOOD
    except RefusedError as error:
        return error.reason.startswith("registration.")


def test_another_anatomy_is_not_good() -> None:
    rng = np.random.default_rng(5)
    other = tuple(
        (tuple(rng.uniform(-30, 30, 3)), tuple(rng.uniform(8, 25, 3)), shown)
        for _, _, shown in (*PARTS[1:], *PARTS[1:])
    )
    strange = phantom("MR", parts=(((0, 0, 0), (48, 66, 50), PARTS[0][2]), *other), seed=9, frame="1.2.9")
    assert unusable(phantom("CT"), strange)


def test_parts_of_the_body_without_overlap_are_not_good() -> None:
    upper = phantom("CT", low=(-85, -65, 30), high=(85, 65, 78), frame="1.2.5")
    lower = phantom("CT", low=(-85, -65, -78), high=(85, 65, -30), seed=2, frame="1.2.6")
    assert unusable(upper, lower)


def test_a_mirrored_scan_is_refused_as_mirrored() -> None:
    mirrored = phantom("CT", to_body=np.diag([-1.0, 1.0, 1.0, 1.0]), seed=2, frame="1.2.7")
    found = align(phantom("CT"), mirrored, purpose=Purpose.FOLLOW_UP)
    with pytest.raises(RefusedError) as refused:
        accepted(found)
    assert refused.value.reason == "registration.mirrored", found.judgement


def test_structure_without_meaning_is_not_good() -> None:
    noise = phantom("MR", seed=3)
    shuffled = np.random.default_rng(4).permutation(noise.array.ravel()).reshape(noise.array.shape)
    assert unusable(phantom("CT"), dataclasses.replace(noise, array=shuffled))
