"""gRPC: analyse a study now, read findings, list models."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from osler.imaging.v1 import imaging_pb2, imaging_pb2_grpc

from services.imaging import routing, store
from services.imaging.compute import HIPPOCAMPUS_BUNDLE
from services.imaging.worker import ROOM, Analyst, announce
from services.platform.database import Database
from services.platform.errors import ConfigurationError
from services.platform.rpc import NotFoundError


class ImagingService(imaging_pb2_grpc.ImagingServiceServicer):
    """`osler.imaging.v1.ImagingService`."""

    def __init__(self, database: Database, analyst: Analyst, models: Path) -> None:
        self._database = database
        self._analyst = analyst
        self._models = models

    def AnalyzeStudy(  # noqa: N802 - named by the contract
        self, request: imaging_pb2.AnalyzeStudyRequest, context: Any
    ) -> imaging_pb2.AnalyzeStudyResponse:
        """Analyses, keeps and announces, as an event would; a study analysed before gives its findings again."""
        findings, manifest_sha256 = self._analyst.findings(request.manifest, datetime.now(UTC).replace(microsecond=0))
        with self._database.transaction(ROOM) as tx:
            announce(tx, findings, manifest_sha256)
        return imaging_pb2.AnalyzeStudyResponse(result=findings)

    def GetFindings(  # noqa: N802 - named by the contract
        self, request: imaging_pb2.GetFindingsRequest, context: Any
    ) -> imaging_pb2.GetFindingsResponse:
        """Findings of a patient (empty when there are none) or a study. Raises NotFoundError for an unknown study."""
        with self._database.session() as session:
            if request.WhichOneof("scope") == "patient_key":
                return imaging_pb2.GetFindingsResponse(studies=store.of_patient(session, request.patient_key))
            held = store.of_study(session, request.study_instance_uid)
        if held is None:
            raise NotFoundError("no findings for this study")
        return imaging_pb2.GetFindingsResponse(studies=[held[0]])

    def ListModels(  # noqa: N802 - named by the contract
        self, request: imaging_pb2.ListModelsRequest, context: Any
    ) -> imaging_pb2.ListModelsResponse:
        """Model bundles, and the analyses that need none."""
        return imaging_pb2.ListModelsResponse(
            models=[
                _bundle(self._models / HIPPOCAMPUS_BUNDLE),
                imaging_pb2.ModelSummary(name=routing.PET, version="1", task="uptake measurement", modalities=["PT"]),
                imaging_pb2.ModelSummary(
                    name=routing.LESION_SIZE, version="1", task="size of outlined lesions", modalities=["CT", "MR"]
                ),
            ]
        )


def _bundle(folder: Path) -> imaging_pb2.ModelSummary:
    try:
        metadata = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
        return imaging_pb2.ModelSummary(
            name=metadata["name"],
            version=metadata["version"],
            task=routing.HIPPOCAMPUS,
            modalities=["MR"],
            weights_sha256=metadata["osler"]["weights_sha256"],
            licence=metadata["license"],
        )
    except (OSError, KeyError, json.JSONDecodeError) as error:
        raise ConfigurationError(f"models.path: the bundle {folder.name} cannot be read ({error})") from error
