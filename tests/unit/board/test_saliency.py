"""What a network found is marked as a network's, with its interval, a reader's buttons, and where the network looked."""

from __future__ import annotations

import gzip

import nibabel
import numpy as np
import pytest
from osler.common.v1 import common_pb2
from osler.events.v1 import events_pb2
from osler.imaging.v1 import imaging_pb2

from services.board import saliency
from services.clinical import codes
from services.platform.errors import RefusedError
from tests.unit.board.conftest import KEY, Feed, finding, snapshot

MANIFEST = common_pb2.BlobRef(uri="file:///m")


def hippocampus(concept: codes.Concept = codes.HIPPOCAMPUS) -> imaging_pb2.Finding:
    made = finding(1, "1.a.1", 0, 23.9, "hippocampus@1.0.0")
    made.kind, made.tracking_id = imaging_pb2.FINDING_KIND_ORGAN, "hippocampus"
    made.finding_type.CopyFrom(concept.proto)
    made.provenance.method = "hippocampus@1.0.0"
    made.provenance.inputs.add(kind="model-weights", id="hippocampus@1.0.0")
    interval = made.measurements[0].value.uncertainty
    interval.ClearField("not_estimated")
    interval.interval.CopyFrom(common_pb2.Interval(lower=21.4, upper=26.2, level=0.9))
    return made


@pytest.mark.parametrize(("concept", "targets"), [(codes.HIPPOCAMPUS, [1, 2]), (codes.HIPPOCAMPUS_POSTERIOR, [2])])
def test_the_channels_that_a_finding_rests_on_are_asked_for(concept: codes.Concept, targets: list[int]) -> None:
    asked = saliency.asked_of(hippocampus(concept), MANIFEST)
    assert [(r.model, r.target) for r in asked] == [("hippocampus", target) for target in targets]
    assert asked[0].inputs[0].series.series_instance_uid == "1.a.1.1"


def test_what_no_network_found_has_no_saliency() -> None:
    with pytest.raises(RefusedError, match="no network"):
        saliency.asked_of(finding(1, "1.a.1", 0, 23.9), MANIFEST)


def test_of_several_channels_the_strongest_is_shown_in_its_place() -> None:
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    parts = [np.zeros((2, 2, 2), np.float32), np.full((2, 2, 2), 0.25, np.float32)]
    parts[0][1, 0, 1] = 1.0
    maps = [gzip.compress(nibabel.Nifti1Image(part, affine).to_bytes()) for part in parts]
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(saliency.strongest(maps)))
    np.testing.assert_array_equal(np.asarray(image.dataobj), np.maximum(*parts))
    np.testing.assert_allclose(image.affine, affine)


def test_a_reader_sees_the_network_its_interval_and_can_judge_it(feed: Feed) -> None:
    found = hippocampus()
    updated = events_pb2.PatientUpdated(patient_key=KEY, revision=2)
    content = snapshot(KEY, "Demo", [found]).SerializeToString()
    updated.snapshot.CopyFrom(feed.foundations.blobs.put(content, "application/protobuf", "s2"))
    feed.handle(updated, KEY, "u2", "fusion")
    browser = feed.client()
    part = browser.get(f"/case/{KEY}/part/findings").text
    assert "network hippocampus" in part
    assert "21.4 to 26.2 (90%)" in part
    assert 'data-key="x"' in part
    form = browser.get(f"/case/{KEY}/review?finding={found.finding_id}&verdict=accepted").text
    assert f'data-saliency="/case/{KEY}/saliency/{found.finding_id}.nii.gz"' in form
