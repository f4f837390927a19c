"""Where a network looked: which voxels of the series moved its answer for one finding."""

from __future__ import annotations

import asyncio
import gzip
import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import nibabel
import numpy as np
import yaml
from osler.common.v1 import common_pb2
from osler.imaging.v1 import imaging_pb2, imaging_pb2_grpc

from services.board import store
from services.board.lesions import network_of
from services.platform import rpc
from services.platform.errors import RefusedError, RetryableError
from services.platform.rpc import NotFoundError

if TYPE_CHECKING:
    from services.board.pages import Pages

# A gradient for each of 32 steps: about a minute for a small volume on one core.
_DEADLINE_S = 300.0
_REFUSED = (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)


@cache
def channels() -> dict[str, dict[str, list[int]]]:
    """Model -> code of the finding's type -> channels of the model's output."""
    found: dict[str, dict[str, list[int]]] = yaml.safe_load(
        Path(__file__).with_name("saliency.yaml").read_text("utf-8")
    )
    return found


def asked_of(finding: imaging_pb2.Finding, manifest: common_pb2.BlobRef) -> list[imaging_pb2.ExplainFindingRequest]:
    """One request for each channel that the finding rests on. Raises RefusedError where there is no network to ask."""
    network = network_of(finding)
    targets = channels().get(network, {}).get(finding.finding_type.code, [])
    if not targets:
        raise RefusedError(
            "board.no_saliency",
            "no network found this, or it is not known which part of its answer this finding is",
            remedy="see under Details how it was measured",
        )
    series = imaging_pb2.StoredSeries(manifest=manifest, series_instance_uid=finding.series_instance_uid)
    source = imaging_pb2.ModelInput(series=series)
    return [imaging_pb2.ExplainFindingRequest(model=network, inputs=[source], target=target) for target in targets]


def strongest(maps: Sequence[bytes]) -> bytes:
    """Gzipped NIfTI maps on one grid -> one such map with the largest value at each voxel."""
    images = [nibabel.Nifti1Image.from_stream(io.BytesIO(gzip.decompress(content))) for content in maps]
    values = np.max([np.asarray(image.dataobj, dtype=np.float32) for image in images], axis=0)
    return gzip.compress(nibabel.Nifti1Image(values, images[0].affine).to_bytes(), compresslevel=1)


def requests_for(pages: Pages, patient_key: str, finding_id: str) -> list[imaging_pb2.ExplainFindingRequest]:
    """What to ask imaging. Raises NotFoundError for a finding that this case has not, RefusedError as `asked_of`."""
    study_uid, found = pages.board.lesion(patient_key, finding_id)
    with pages.database.session() as session:
        study = store.find_study(session, study_uid)
    if study is None:
        raise NotFoundError("the study of this finding is not on the board")
    return asked_of(next(f for f in found if f.finding_id == finding_id), study.manifest)


async def explain(pages: Pages, requests: Sequence[imaging_pb2.ExplainFindingRequest]) -> list[common_pb2.BlobRef]:
    """Imaging's maps. Raises RefusedError with its reason, RetryableError when it does not answer in time."""
    settings, security = pages.context.settings, pages.context.security
    if pages.imaging is None:
        pages.imaging = rpc.channel(settings.grpc.endpoint("imaging"), settings, security.token_provider("board"))
    stub = imaging_pb2_grpc.ImagingServiceStub(pages.imaging)
    try:
        answers = await asyncio.gather(*(stub.ExplainFinding(request, timeout=_DEADLINE_S) for request in requests))
    except grpc.aio.AioRpcError as error:
        if error.code() in _REFUSED:
            said = rpc.details_of(error).message or "imaging cannot explain this finding"
            raise RefusedError("board.not_explained", said, remedy="see under Details how it was measured") from None
        raise RetryableError("imaging does not answer, so where the network looked cannot be shown now") from None
    return [answer.saliency.content for answer in answers]
