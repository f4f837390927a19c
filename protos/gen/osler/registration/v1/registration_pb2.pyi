import datetime

from buf.validate import validate_pb2 as _validate_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from osler.common.v1 import common_pb2 as _common_pb2
from osler.imaging.v1 import imaging_pb2 as _imaging_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Method(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    METHOD_UNSPECIFIED: _ClassVar[Method]
    METHOD_RIGID: _ClassVar[Method]
    METHOD_AFFINE: _ClassVar[Method]
    METHOD_BSPLINE: _ClassVar[Method]
    METHOD_DIFFEO: _ClassVar[Method]

class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_UNSPECIFIED: _ClassVar[Verdict]
    VERDICT_GOOD: _ClassVar[Verdict]
    VERDICT_REVIEW: _ClassVar[Verdict]
    VERDICT_FAILED: _ClassVar[Verdict]

class PairPurpose(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PAIR_PURPOSE_UNSPECIFIED: _ClassVar[PairPurpose]
    PAIR_PURPOSE_HYBRID: _ClassVar[PairPurpose]
    PAIR_PURPOSE_FOLLOW_UP: _ClassVar[PairPurpose]
METHOD_UNSPECIFIED: Method
METHOD_RIGID: Method
METHOD_AFFINE: Method
METHOD_BSPLINE: Method
METHOD_DIFFEO: Method
VERDICT_UNSPECIFIED: Verdict
VERDICT_GOOD: Verdict
VERDICT_REVIEW: Verdict
VERDICT_FAILED: Verdict
PAIR_PURPOSE_UNSPECIFIED: PairPurpose
PAIR_PURPOSE_HYBRID: PairPurpose
PAIR_PURPOSE_FOLLOW_UP: PairPurpose

class SeriesRef(_message.Message):
    __slots__ = ("study_instance_uid", "series_instance_uid", "modality", "frame_of_reference_uid")
    STUDY_INSTANCE_UID_FIELD_NUMBER: _ClassVar[int]
    SERIES_INSTANCE_UID_FIELD_NUMBER: _ClassVar[int]
    MODALITY_FIELD_NUMBER: _ClassVar[int]
    FRAME_OF_REFERENCE_UID_FIELD_NUMBER: _ClassVar[int]
    study_instance_uid: str
    series_instance_uid: str
    modality: str
    frame_of_reference_uid: str
    def __init__(self, study_instance_uid: _Optional[str] = ..., series_instance_uid: _Optional[str] = ..., modality: _Optional[str] = ..., frame_of_reference_uid: _Optional[str] = ...) -> None: ...

class Pair(_message.Message):
    __slots__ = ("fixed", "moving", "purpose", "reason")
    FIXED_FIELD_NUMBER: _ClassVar[int]
    MOVING_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    fixed: SeriesRef
    moving: SeriesRef
    purpose: PairPurpose
    reason: str
    def __init__(self, fixed: _Optional[_Union[SeriesRef, _Mapping]] = ..., moving: _Optional[_Union[SeriesRef, _Mapping]] = ..., purpose: _Optional[_Union[PairPurpose, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class Quality(_message.Message):
    __slots__ = ("verdict", "similarity_before", "similarity_after", "seed_disagreement_mean_mm", "seed_disagreement_max_mm", "inverse_consistency_mm", "overlap_fraction", "predicted_tre_mm", "reasons", "refit_mm", "mirror_ratio", "deformation")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_BEFORE_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_AFTER_FIELD_NUMBER: _ClassVar[int]
    SEED_DISAGREEMENT_MEAN_MM_FIELD_NUMBER: _ClassVar[int]
    SEED_DISAGREEMENT_MAX_MM_FIELD_NUMBER: _ClassVar[int]
    INVERSE_CONSISTENCY_MM_FIELD_NUMBER: _ClassVar[int]
    OVERLAP_FRACTION_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_TRE_MM_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    REFIT_MM_FIELD_NUMBER: _ClassVar[int]
    MIRROR_RATIO_FIELD_NUMBER: _ClassVar[int]
    DEFORMATION_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    similarity_before: float
    similarity_after: float
    seed_disagreement_mean_mm: float
    seed_disagreement_max_mm: float
    inverse_consistency_mm: float
    overlap_fraction: float
    predicted_tre_mm: float
    reasons: _containers.RepeatedScalarFieldContainer[str]
    refit_mm: float
    mirror_ratio: float
    deformation: DeformationQuality
    def __init__(self, verdict: _Optional[_Union[Verdict, str]] = ..., similarity_before: _Optional[float] = ..., similarity_after: _Optional[float] = ..., seed_disagreement_mean_mm: _Optional[float] = ..., seed_disagreement_max_mm: _Optional[float] = ..., inverse_consistency_mm: _Optional[float] = ..., overlap_fraction: _Optional[float] = ..., predicted_tre_mm: _Optional[float] = ..., reasons: _Optional[_Iterable[str]] = ..., refit_mm: _Optional[float] = ..., mirror_ratio: _Optional[float] = ..., deformation: _Optional[_Union[DeformationQuality, _Mapping]] = ...) -> None: ...

class DeformationQuality(_message.Message):
    __slots__ = ("gain", "jacobian_min", "jacobian_max", "folding_fraction", "inverse_consistency_mm", "displacement_mm", "repeat_mm")
    GAIN_FIELD_NUMBER: _ClassVar[int]
    JACOBIAN_MIN_FIELD_NUMBER: _ClassVar[int]
    JACOBIAN_MAX_FIELD_NUMBER: _ClassVar[int]
    FOLDING_FRACTION_FIELD_NUMBER: _ClassVar[int]
    INVERSE_CONSISTENCY_MM_FIELD_NUMBER: _ClassVar[int]
    DISPLACEMENT_MM_FIELD_NUMBER: _ClassVar[int]
    REPEAT_MM_FIELD_NUMBER: _ClassVar[int]
    gain: float
    jacobian_min: float
    jacobian_max: float
    folding_fraction: float
    inverse_consistency_mm: float
    displacement_mm: float
    repeat_mm: float
    def __init__(self, gain: _Optional[float] = ..., jacobian_min: _Optional[float] = ..., jacobian_max: _Optional[float] = ..., folding_fraction: _Optional[float] = ..., inverse_consistency_mm: _Optional[float] = ..., displacement_mm: _Optional[float] = ..., repeat_mm: _Optional[float] = ...) -> None: ...

class AffineTransform(_message.Message):
    __slots__ = ("matrix",)
    MATRIX_FIELD_NUMBER: _ClassVar[int]
    matrix: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, matrix: _Optional[_Iterable[float]] = ...) -> None: ...

class RigidTransform(_message.Message):
    __slots__ = ("matrix", "rotation_deg", "translation_mm")
    MATRIX_FIELD_NUMBER: _ClassVar[int]
    ROTATION_DEG_FIELD_NUMBER: _ClassVar[int]
    TRANSLATION_MM_FIELD_NUMBER: _ClassVar[int]
    matrix: _containers.RepeatedScalarFieldContainer[float]
    rotation_deg: float
    translation_mm: float
    def __init__(self, matrix: _Optional[_Iterable[float]] = ..., rotation_deg: _Optional[float] = ..., translation_mm: _Optional[float] = ...) -> None: ...

class Registration(_message.Message):
    __slots__ = ("registration_id", "patient_key", "pair", "transform", "quality", "refusal", "spatial_registration", "provenance", "duration_s", "fixed_time", "moving_time", "method", "affine", "deformable_registration")
    REGISTRATION_ID_FIELD_NUMBER: _ClassVar[int]
    PATIENT_KEY_FIELD_NUMBER: _ClassVar[int]
    PAIR_FIELD_NUMBER: _ClassVar[int]
    TRANSFORM_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    SPATIAL_REGISTRATION_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    DURATION_S_FIELD_NUMBER: _ClassVar[int]
    FIXED_TIME_FIELD_NUMBER: _ClassVar[int]
    MOVING_TIME_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    AFFINE_FIELD_NUMBER: _ClassVar[int]
    DEFORMABLE_REGISTRATION_FIELD_NUMBER: _ClassVar[int]
    registration_id: str
    patient_key: str
    pair: Pair
    transform: RigidTransform
    quality: Quality
    refusal: _common_pb2.Refusal
    spatial_registration: _imaging_pb2.DerivedObject
    provenance: _common_pb2.Provenance
    duration_s: float
    fixed_time: _timestamp_pb2.Timestamp
    moving_time: _timestamp_pb2.Timestamp
    method: Method
    affine: AffineTransform
    deformable_registration: _imaging_pb2.DerivedObject
    def __init__(self, registration_id: _Optional[str] = ..., patient_key: _Optional[str] = ..., pair: _Optional[_Union[Pair, _Mapping]] = ..., transform: _Optional[_Union[RigidTransform, _Mapping]] = ..., quality: _Optional[_Union[Quality, _Mapping]] = ..., refusal: _Optional[_Union[_common_pb2.Refusal, _Mapping]] = ..., spatial_registration: _Optional[_Union[_imaging_pb2.DerivedObject, _Mapping]] = ..., provenance: _Optional[_Union[_common_pb2.Provenance, _Mapping]] = ..., duration_s: _Optional[float] = ..., fixed_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., moving_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., method: _Optional[_Union[Method, str]] = ..., affine: _Optional[_Union[AffineTransform, _Mapping]] = ..., deformable_registration: _Optional[_Union[_imaging_pb2.DerivedObject, _Mapping]] = ...) -> None: ...

class PlanRequest(_message.Message):
    __slots__ = ("manifests",)
    MANIFESTS_FIELD_NUMBER: _ClassVar[int]
    manifests: _containers.RepeatedCompositeFieldContainer[_common_pb2.BlobRef]
    def __init__(self, manifests: _Optional[_Iterable[_Union[_common_pb2.BlobRef, _Mapping]]] = ...) -> None: ...

class PlanResponse(_message.Message):
    __slots__ = ("pairs",)
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    pairs: _containers.RepeatedCompositeFieldContainer[Pair]
    def __init__(self, pairs: _Optional[_Iterable[_Union[Pair, _Mapping]]] = ...) -> None: ...

class RegisterRequest(_message.Message):
    __slots__ = ("fixed_manifest", "moving_manifest", "pair", "method")
    FIXED_MANIFEST_FIELD_NUMBER: _ClassVar[int]
    MOVING_MANIFEST_FIELD_NUMBER: _ClassVar[int]
    PAIR_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    fixed_manifest: _common_pb2.BlobRef
    moving_manifest: _common_pb2.BlobRef
    pair: Pair
    method: Method
    def __init__(self, fixed_manifest: _Optional[_Union[_common_pb2.BlobRef, _Mapping]] = ..., moving_manifest: _Optional[_Union[_common_pb2.BlobRef, _Mapping]] = ..., pair: _Optional[_Union[Pair, _Mapping]] = ..., method: _Optional[_Union[Method, str]] = ...) -> None: ...

class RegisterResponse(_message.Message):
    __slots__ = ("progress", "result")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    progress: Progress
    result: Registration
    def __init__(self, progress: _Optional[_Union[Progress, _Mapping]] = ..., result: _Optional[_Union[Registration, _Mapping]] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("stage", "fraction")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    FRACTION_FIELD_NUMBER: _ClassVar[int]
    stage: str
    fraction: float
    def __init__(self, stage: _Optional[str] = ..., fraction: _Optional[float] = ...) -> None: ...

class GetRegistrationsRequest(_message.Message):
    __slots__ = ("patient_key",)
    PATIENT_KEY_FIELD_NUMBER: _ClassVar[int]
    patient_key: str
    def __init__(self, patient_key: _Optional[str] = ...) -> None: ...

class GetRegistrationsResponse(_message.Message):
    __slots__ = ("registrations",)
    REGISTRATIONS_FIELD_NUMBER: _ClassVar[int]
    registrations: _containers.RepeatedCompositeFieldContainer[Registration]
    def __init__(self, registrations: _Optional[_Iterable[_Union[Registration, _Mapping]]] = ...) -> None: ...

class Point(_message.Message):
    __slots__ = ("x_mm", "y_mm", "z_mm")
    X_MM_FIELD_NUMBER: _ClassVar[int]
    Y_MM_FIELD_NUMBER: _ClassVar[int]
    Z_MM_FIELD_NUMBER: _ClassVar[int]
    x_mm: float
    y_mm: float
    z_mm: float
    def __init__(self, x_mm: _Optional[float] = ..., y_mm: _Optional[float] = ..., z_mm: _Optional[float] = ...) -> None: ...

class MapPointsRequest(_message.Message):
    __slots__ = ("registration_id", "points")
    REGISTRATION_ID_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    registration_id: str
    points: _containers.RepeatedCompositeFieldContainer[Point]
    def __init__(self, registration_id: _Optional[str] = ..., points: _Optional[_Iterable[_Union[Point, _Mapping]]] = ...) -> None: ...

class MapPointsResponse(_message.Message):
    __slots__ = ("points",)
    POINTS_FIELD_NUMBER: _ClassVar[int]
    points: _containers.RepeatedCompositeFieldContainer[Point]
    def __init__(self, points: _Optional[_Iterable[_Union[Point, _Mapping]]] = ...) -> None: ...

class ResampleRequest(_message.Message):
    __slots__ = ("registration_id", "fixed_manifest", "moving_manifest")
    REGISTRATION_ID_FIELD_NUMBER: _ClassVar[int]
    FIXED_MANIFEST_FIELD_NUMBER: _ClassVar[int]
    MOVING_MANIFEST_FIELD_NUMBER: _ClassVar[int]
    registration_id: str
    fixed_manifest: _common_pb2.BlobRef
    moving_manifest: _common_pb2.BlobRef
    def __init__(self, registration_id: _Optional[str] = ..., fixed_manifest: _Optional[_Union[_common_pb2.BlobRef, _Mapping]] = ..., moving_manifest: _Optional[_Union[_common_pb2.BlobRef, _Mapping]] = ...) -> None: ...

class ResampleResponse(_message.Message):
    __slots__ = ("instances",)
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    instances: _containers.RepeatedCompositeFieldContainer[_imaging_pb2.DerivedObject]
    def __init__(self, instances: _Optional[_Iterable[_Union[_imaging_pb2.DerivedObject, _Mapping]]] = ...) -> None: ...

class LinkRequest(_message.Message):
    __slots__ = ("patient_key", "fixed_series_instance_uid", "moving_series_instance_uid")
    PATIENT_KEY_FIELD_NUMBER: _ClassVar[int]
    FIXED_SERIES_INSTANCE_UID_FIELD_NUMBER: _ClassVar[int]
    MOVING_SERIES_INSTANCE_UID_FIELD_NUMBER: _ClassVar[int]
    patient_key: str
    fixed_series_instance_uid: str
    moving_series_instance_uid: str
    def __init__(self, patient_key: _Optional[str] = ..., fixed_series_instance_uid: _Optional[str] = ..., moving_series_instance_uid: _Optional[str] = ...) -> None: ...

class LinkResponse(_message.Message):
    __slots__ = ("matrix", "registration_ids", "predicted_tre_mm", "verdict")
    MATRIX_FIELD_NUMBER: _ClassVar[int]
    REGISTRATION_IDS_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_TRE_MM_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    matrix: _containers.RepeatedScalarFieldContainer[float]
    registration_ids: _containers.RepeatedScalarFieldContainer[str]
    predicted_tre_mm: float
    verdict: Verdict
    def __init__(self, matrix: _Optional[_Iterable[float]] = ..., registration_ids: _Optional[_Iterable[str]] = ..., predicted_tre_mm: _Optional[float] = ..., verdict: _Optional[_Union[Verdict, str]] = ...) -> None: ...
