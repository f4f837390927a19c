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
QUALITY_VERDICT_UNSPECIFIED: QualityVerdict
QUALITY_VERDICT_ACCEPT: QualityVerdict
QUALITY_VERDICT_WARN: QualityVerdict
QUALITY_VERDICT_REJECT: QualityVerdict
FINDING_KIND_UNSPECIFIED: FindingKind
FINDING_KIND_LESION: FindingKind
FINDING_KIND_ORGAN: FindingKind
FINDING_KIND_REFERENCE: FindingKind

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
    __slots__ = ("name", "version", "task", "modalities", "weights_sha256", "licence")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    MODALITIES_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_SHA256_FIELD_NUMBER: _ClassVar[int]
    LICENCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    task: str
    modalities: _containers.RepeatedScalarFieldContainer[str]
    weights_sha256: str
    licence: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., task: _Optional[str] = ..., modalities: _Optional[_Iterable[str]] = ..., weights_sha256: _Optional[str] = ..., licence: _Optional[str] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelSummary]
    def __init__(self, models: _Optional[_Iterable[_Union[ModelSummary, _Mapping]]] = ...) -> None: ...
