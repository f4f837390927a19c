import datetime

from buf.validate import validate_pb2 as _validate_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from osler.common.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class QualityVerdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    QUALITY_VERDICT_UNSPECIFIED: _ClassVar[QualityVerdict]
    QUALITY_VERDICT_ACCEPT: _ClassVar[QualityVerdict]
    QUALITY_VERDICT_WARN: _ClassVar[QualityVerdict]
    QUALITY_VERDICT_REJECT: _ClassVar[QualityVerdict]

class FindingKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINDING_KIND_UNSPECIFIED: _ClassVar[FindingKind]
    FINDING_KIND_LESION: _ClassVar[FindingKind]
    FINDING_KIND_ORGAN: _ClassVar[FindingKind]
    FINDING_KIND_REFERENCE: _ClassVar[FindingKind]

class ModelKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_KIND_UNSPECIFIED: _ClassVar[ModelKind]
    MODEL_KIND_LEARNED: _ClassVar[ModelKind]
    MODEL_KIND_ANALYSER: _ClassVar[ModelKind]
QUALITY_VERDICT_UNSPECIFIED: QualityVerdict
QUALITY_VERDICT_ACCEPT: QualityVerdict
QUALITY_VERDICT_WARN: QualityVerdict
QUALITY_VERDICT_REJECT: QualityVerdict
FINDING_KIND_UNSPECIFIED: FindingKind
FINDING_KIND_LESION: FindingKind
FINDING_KIND_ORGAN: FindingKind
FINDING_KIND_REFERENCE: FindingKind
MODEL_KIND_UNSPECIFIED: ModelKind
MODEL_KIND_LEARNED: ModelKind
MODEL_KIND_ANALYSER: ModelKind

class QualityIssue(_message.Message):
    __slots__ = ("code", "message", "remedy")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REMEDY_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    remedy: str
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., remedy: _Optional[str] = ...) -> None: ...

class SeriesQuality(_message.Message):
    __slots__ = ("series_instance_uid", "verdict", "issues")
    SERIES_INSTANCE_UID_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    ISSUES_FIELD_NUMBER: _ClassVar[int]
    series_instance_uid: str
    verdict: QualityVerdict
    issues: _containers.RepeatedCompositeFieldContainer[QualityIssue]
    def __init__(self, series_instance_uid: _Optional[str] = ..., verdict: _Optional[_Union[QualityVerdict, str]] = ..., issues: _Optional[_Iterable[_Union[QualityIssue, _Mapping]]] = ...) -> None: ...

class RoutingDecision(_message.Message):
    __slots__ = ("series_instance_uid", "analyses", "reason")
    SERIES_INSTANCE_UID_FIELD_NUMBER: _ClassVar[int]
    ANALYSES_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    series_instance_uid: str
    analyses: _containers.RepeatedScalarFieldContainer[str]
    reason: str
    def __init__(self, series_instance_uid: _Optional[str] = ..., analyses: _Optional[_Iterable[str]] = ..., reason: _Optional[str] = ...) -> None: ...

class Measurement(_message.Message):
    __slots__ = ("concept", "value", "method")
    CONCEPT_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    concept: _common_pb2.Code
    value: _common_pb2.Quantity
    method: str
    def __init__(self, concept: _Optional[_Union[_common_pb2.Code, _Mapping]] = ..., value: _Optional[_Union[_common_pb2.Quantity, _Mapping]] = ..., method: _Optional[str] = ...) -> None: ...

class Finding(_message.Message):
    __slots__ = ("finding_id", "study_instance_uid", "series_instance_uid", "kind", "finding_type", "site", "laterality", "tracking_id", "tracking_uid", "measurements", "centroid_lps_mm", "frame_of_reference_uid", "observed_at", "segment_number", "segmentation_sop_instance_uid", "provenance", "cautions")
    FINDING_ID_FIELD_NUMBER: _ClassVar[int]
    STUDY_INSTANCE_UID_FIELD_NUMBER: _ClassVar[int]
    SERIES_INSTANCE_UID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    FINDING_TYPE_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    LATERALITY_FIELD_NUMBER: _ClassVar[int]
    TRACKING_ID_FIELD_NUMBER: _ClassVar[int]
    TRACKING_UID_FIELD_NUMBER: _ClassVar[int]
    MEASUREMENTS_FIELD_NUMBER: _ClassVar[int]
    CENTROID_LPS_MM_FIELD_NUMBER: _ClassVar[int]
    FRAME_OF_REFERENCE_UID_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_AT_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_NUMBER_FIELD_NUMBER: _ClassVar[int]
    SEGMENTATION_SOP_INSTANCE_UID_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    CAUTIONS_FIELD_NUMBER: _ClassVar[int]
    finding_id: str
    study_instance_uid: str
    series_instance_uid: str
    kind: FindingKind
    finding_type: _common_pb2.Code
    site: _common_pb2.Code
    laterality: _common_pb2.Code
    tracking_id: str
    tracking_uid: str
    measurements: _containers.RepeatedCompositeFieldContainer[Measurement]
    centroid_lps_mm: _containers.RepeatedScalarFieldContainer[float]
    frame_of_reference_uid: str
    observed_at: _timestamp_pb2.Timestamp
    segment_number: int
    segmentation_sop_instance_uid: str
    provenance: _common_pb2.Provenance
    cautions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, finding_id: _Optional[str] = ..., study_instance_uid: _Optional[str] = ..., series_instance_uid: _Optional[str] = ..., kind: _Optional[_Union[FindingKind, str]] = ..., finding_type: _Optional[_Union[_common_pb2.Code, _Mapping]] = ..., site: _Optional[_Union[_common_pb2.Code, _Mapping]] = ..., laterality: _Optional[_Union[_common_pb2.Code, _Mapping]] = ..., tracking_id: _Optional[str] = ..., tracking_uid: _Optional[str] = ..., measurements: _Optional[_Iterable[_Union[Measurement, _Mapping]]] = ..., centroid_lps_mm: _Optional[_Iterable[float]] = ..., frame_of_reference_uid: _Optional[str] = ..., observed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., segment_number: _Optional[int] = ..., segmentation_sop_instance_uid: _Optional[str] = ..., provenance: _Optional[_Union[_common_pb2.Provenance, _Mapping]] = ..., cautions: _Optional[_Iterable[str]] = ...) -> None: ...

class DerivedObject(_message.Message):
    __slots__ = ("sop_instance_uid", "sop_class_uid", "study_instance_uid", "series_instance_uid", "modality", "content")
    SOP_INSTANCE_UID_FIELD_NUMBER: _ClassVar[int]
    SOP_CLASS_UID_FIELD_NUMBER: _ClassVar[int]
    STUDY_INSTANCE_UID_FIELD_NUMBER: _ClassVar[int]
    SERIES_INSTANCE_UID_FIELD_NUMBER: _ClassVar[int]
    MODALITY_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    sop_instance_uid: str
    sop_class_uid: str
    study_instance_uid: str
    series_instance_uid: str
    modality: str
    content: _common_pb2.BlobRef
    def __init__(self, sop_instance_uid: _Optional[str] = ..., sop_class_uid: _Optional[str] = ..., study_instance_uid: _Optional[str] = ..., series_instance_uid: _Optional[str] = ..., modality: _Optional[str] = ..., content: _Optional[_Union[_common_pb2.BlobRef, _Mapping]] = ...) -> None: ...

class StudyFindings(_message.Message):
    __slots__ = ("study_instance_uid", "patient_key", "study_revision", "study_time", "quality", "routing", "findings", "refusals", "derived_objects")
    STUDY_INSTANCE_UID_FIELD_NUMBER: _ClassVar[int]
    PATIENT_KEY_FIELD_NUMBER: _ClassVar[int]
    STUDY_REVISION_FIELD_NUMBER: _ClassVar[int]
    STUDY_TIME_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    ROUTING_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    DERIVED_OBJECTS_FIELD_NUMBER: _ClassVar[int]
    study_instance_uid: str
    patient_key: str
    study_revision: int
    study_time: _timestamp_pb2.Timestamp
    quality: _containers.RepeatedCompositeFieldContainer[SeriesQuality]
    routing: _containers.RepeatedCompositeFieldContainer[RoutingDecision]
    findings: _containers.RepeatedCompositeFieldContainer[Finding]
    refusals: _containers.RepeatedCompositeFieldContainer[_common_pb2.Refusal]
    derived_objects: _containers.RepeatedCompositeFieldContainer[DerivedObject]
    def __init__(self, study_instance_uid: _Optional[str] = ..., patient_key: _Optional[str] = ..., study_revision: _Optional[int] = ..., study_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., quality: _Optional[_Iterable[_Union[SeriesQuality, _Mapping]]] = ..., routing: _Optional[_Iterable[_Union[RoutingDecision, _Mapping]]] = ..., findings: _Optional[_Iterable[_Union[Finding, _Mapping]]] = ..., refusals: _Optional[_Iterable[_Union[_common_pb2.Refusal, _Mapping]]] = ..., derived_objects: _Optional[_Iterable[_Union[DerivedObject, _Mapping]]] = ...) -> None: ...

class AnalyzeStudyRequest(_message.Message):
    __slots__ = ("manifest",)
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    manifest: _common_pb2.BlobRef
    def __init__(self, manifest: _Optional[_Union[_common_pb2.BlobRef, _Mapping]] = ...) -> None: ...

class AnalyzeStudyResponse(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: StudyFindings
    def __init__(self, result: _Optional[_Union[StudyFindings, _Mapping]] = ...) -> None: ...

class GetFindingsRequest(_message.Message):
    __slots__ = ("patient_key", "study_instance_uid")
    PATIENT_KEY_FIELD_NUMBER: _ClassVar[int]
    STUDY_INSTANCE_UID_FIELD_NUMBER: _ClassVar[int]
    patient_key: str
    study_instance_uid: str
    def __init__(self, patient_key: _Optional[str] = ..., study_instance_uid: _Optional[str] = ...) -> None: ...

class GetFindingsResponse(_message.Message):
    __slots__ = ("studies",)
    STUDIES_FIELD_NUMBER: _ClassVar[int]
    studies: _containers.RepeatedCompositeFieldContainer[StudyFindings]
    def __init__(self, studies: _Optional[_Iterable[_Union[StudyFindings, _Mapping]]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ModelSummary(_message.Message):
    __slots__ = ("name", "version", "task", "modalities", "weights_sha256", "licence", "kind", "intended_use", "limits", "citations", "roles", "state")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    MODALITIES_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_SHA256_FIELD_NUMBER: _ClassVar[int]
    LICENCE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    INTENDED_USE_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    CITATIONS_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    task: str
    modalities: _containers.RepeatedScalarFieldContainer[str]
    weights_sha256: str
    licence: str
    kind: ModelKind
    intended_use: str
    limits: _containers.RepeatedScalarFieldContainer[str]
    citations: _containers.RepeatedScalarFieldContainer[str]
    roles: _containers.RepeatedCompositeFieldContainer[ModelRole]
    state: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., task: _Optional[str] = ..., modalities: _Optional[_Iterable[str]] = ..., weights_sha256: _Optional[str] = ..., licence: _Optional[str] = ..., kind: _Optional[_Union[ModelKind, str]] = ..., intended_use: _Optional[str] = ..., limits: _Optional[_Iterable[str]] = ..., citations: _Optional[_Iterable[str]] = ..., roles: _Optional[_Iterable[_Union[ModelRole, _Mapping]]] = ..., state: _Optional[str] = ...) -> None: ...

class ModelRole(_message.Message):
    __slots__ = ("name", "modalities", "description", "required")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODALITIES_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_FIELD_NUMBER: _ClassVar[int]
    name: str
    modalities: _containers.RepeatedScalarFieldContainer[str]
    description: str
    required: bool
    def __init__(self, name: _Optional[str] = ..., modalities: _Optional[_Iterable[str]] = ..., description: _Optional[str] = ..., required: _Optional[bool] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelSummary]
    def __init__(self, models: _Optional[_Iterable[_Union[ModelSummary, _Mapping]]] = ...) -> None: ...

class StoredSeries(_message.Message):
    __slots__ = ("manifest", "series_instance_uid")
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    SERIES_INSTANCE_UID_FIELD_NUMBER: _ClassVar[int]
    manifest: _common_pb2.BlobRef
    series_instance_uid: str
    def __init__(self, manifest: _Optional[_Union[_common_pb2.BlobRef, _Mapping]] = ..., series_instance_uid: _Optional[str] = ...) -> None: ...

class ModelInput(_message.Message):
    __slots__ = ("role", "series", "nifti")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    SERIES_FIELD_NUMBER: _ClassVar[int]
    NIFTI_FIELD_NUMBER: _ClassVar[int]
    role: str
    series: StoredSeries
    nifti: _common_pb2.BlobRef
    def __init__(self, role: _Optional[str] = ..., series: _Optional[_Union[StoredSeries, _Mapping]] = ..., nifti: _Optional[_Union[_common_pb2.BlobRef, _Mapping]] = ...) -> None: ...

class InferRequest(_message.Message):
    __slots__ = ("model", "inputs", "parameters")
    class ParametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    model: str
    inputs: _containers.RepeatedCompositeFieldContainer[ModelInput]
    parameters: _containers.ScalarMap[str, str]
    def __init__(self, model: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[ModelInput, _Mapping]]] = ..., parameters: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ResultImage(_message.Message):
    __slots__ = ("name", "concept", "unit", "content")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONCEPT_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    name: str
    concept: _common_pb2.Code
    unit: str
    content: _common_pb2.BlobRef
    def __init__(self, name: _Optional[str] = ..., concept: _Optional[_Union[_common_pb2.Code, _Mapping]] = ..., unit: _Optional[str] = ..., content: _Optional[_Union[_common_pb2.BlobRef, _Mapping]] = ...) -> None: ...

class RegionMeasurement(_message.Message):
    __slots__ = ("region", "measurement")
    REGION_FIELD_NUMBER: _ClassVar[int]
    MEASUREMENT_FIELD_NUMBER: _ClassVar[int]
    region: str
    measurement: Measurement
    def __init__(self, region: _Optional[str] = ..., measurement: _Optional[_Union[Measurement, _Mapping]] = ...) -> None: ...

class ModelFinding(_message.Message):
    __slots__ = ("concept", "probability", "calibrated", "note", "region")
    CONCEPT_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    CALIBRATED_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    concept: _common_pb2.Code
    probability: float
    calibrated: bool
    note: str
    region: str
    def __init__(self, concept: _Optional[_Union[_common_pb2.Code, _Mapping]] = ..., probability: _Optional[float] = ..., calibrated: _Optional[bool] = ..., note: _Optional[str] = ..., region: _Optional[str] = ...) -> None: ...

class InferResponse(_message.Message):
    __slots__ = ("masks", "maps", "measurements", "findings", "cautions", "provenance")
    MASKS_FIELD_NUMBER: _ClassVar[int]
    MAPS_FIELD_NUMBER: _ClassVar[int]
    MEASUREMENTS_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    CAUTIONS_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    masks: _containers.RepeatedCompositeFieldContainer[ResultImage]
    maps: _containers.RepeatedCompositeFieldContainer[ResultImage]
    measurements: _containers.RepeatedCompositeFieldContainer[RegionMeasurement]
    findings: _containers.RepeatedCompositeFieldContainer[ModelFinding]
    cautions: _containers.RepeatedScalarFieldContainer[str]
    provenance: _common_pb2.Provenance
    def __init__(self, masks: _Optional[_Iterable[_Union[ResultImage, _Mapping]]] = ..., maps: _Optional[_Iterable[_Union[ResultImage, _Mapping]]] = ..., measurements: _Optional[_Iterable[_Union[RegionMeasurement, _Mapping]]] = ..., findings: _Optional[_Iterable[_Union[ModelFinding, _Mapping]]] = ..., cautions: _Optional[_Iterable[str]] = ..., provenance: _Optional[_Union[_common_pb2.Provenance, _Mapping]] = ...) -> None: ...

class InferStreamRequest(_message.Message):
    __slots__ = ("infer",)
    INFER_FIELD_NUMBER: _ClassVar[int]
    infer: InferRequest
    def __init__(self, infer: _Optional[_Union[InferRequest, _Mapping]] = ...) -> None: ...

class InferProgress(_message.Message):
    __slots__ = ("done", "total")
    DONE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    done: int
    total: int
    def __init__(self, done: _Optional[int] = ..., total: _Optional[int] = ...) -> None: ...

class InferStreamResponse(_message.Message):
    __slots__ = ("progress", "result")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    progress: InferProgress
    result: InferResponse
    def __init__(self, progress: _Optional[_Union[InferProgress, _Mapping]] = ..., result: _Optional[_Union[InferResponse, _Mapping]] = ...) -> None: ...

class ExplainFindingRequest(_message.Message):
    __slots__ = ("model", "inputs", "target")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    model: str
    inputs: _containers.RepeatedCompositeFieldContainer[ModelInput]
    target: int
    def __init__(self, model: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[ModelInput, _Mapping]]] = ..., target: _Optional[int] = ...) -> None: ...

class ExplainFindingResponse(_message.Message):
    __slots__ = ("saliency", "method", "cautions", "provenance")
    SALIENCY_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    CAUTIONS_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    saliency: ResultImage
    method: str
    cautions: _containers.RepeatedScalarFieldContainer[str]
    provenance: _common_pb2.Provenance
    def __init__(self, saliency: _Optional[_Union[ResultImage, _Mapping]] = ..., method: _Optional[str] = ..., cautions: _Optional[_Iterable[str]] = ..., provenance: _Optional[_Union[_common_pb2.Provenance, _Mapping]] = ...) -> None: ...
