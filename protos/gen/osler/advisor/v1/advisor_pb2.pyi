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

class ResponseCategory(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RESPONSE_CATEGORY_UNSPECIFIED: _ClassVar[ResponseCategory]
    RESPONSE_CATEGORY_COMPLETE: _ClassVar[ResponseCategory]
    RESPONSE_CATEGORY_PARTIAL: _ClassVar[ResponseCategory]
    RESPONSE_CATEGORY_STABLE: _ClassVar[ResponseCategory]
    RESPONSE_CATEGORY_PROGRESSIVE: _ClassVar[ResponseCategory]
    RESPONSE_CATEGORY_NOT_EVALUABLE: _ClassVar[ResponseCategory]

class Urgency(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    URGENCY_UNSPECIFIED: _ClassVar[Urgency]
    URGENCY_INFO: _ClassVar[Urgency]
    URGENCY_WARNING: _ClassVar[Urgency]
    URGENCY_CRITICAL: _ClassVar[Urgency]
RESPONSE_CATEGORY_UNSPECIFIED: ResponseCategory
RESPONSE_CATEGORY_COMPLETE: ResponseCategory
RESPONSE_CATEGORY_PARTIAL: ResponseCategory
RESPONSE_CATEGORY_STABLE: ResponseCategory
RESPONSE_CATEGORY_PROGRESSIVE: ResponseCategory
RESPONSE_CATEGORY_NOT_EVALUABLE: ResponseCategory
URGENCY_UNSPECIFIED: Urgency
URGENCY_INFO: Urgency
URGENCY_WARNING: Urgency
URGENCY_CRITICAL: Urgency

class ResponseAssessment(_message.Message):
    __slots__ = ("criterion", "category", "label", "baseline_study_uid", "current_study_uid", "baseline_at", "current_at", "baseline_value", "current_value", "unit", "change_percent", "explanation", "evidence_entry_ids", "refusal", "provenance", "visits", "best_overall", "notes", "statements")
    CRITERION_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    BASELINE_STUDY_UID_FIELD_NUMBER: _ClassVar[int]
    CURRENT_STUDY_UID_FIELD_NUMBER: _ClassVar[int]
    BASELINE_AT_FIELD_NUMBER: _ClassVar[int]
    CURRENT_AT_FIELD_NUMBER: _ClassVar[int]
    BASELINE_VALUE_FIELD_NUMBER: _ClassVar[int]
    CURRENT_VALUE_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    CHANGE_PERCENT_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_ENTRY_IDS_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    VISITS_FIELD_NUMBER: _ClassVar[int]
    BEST_OVERALL_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    STATEMENTS_FIELD_NUMBER: _ClassVar[int]
    criterion: str
    category: ResponseCategory
    label: str
    baseline_study_uid: str
    current_study_uid: str
    baseline_at: _timestamp_pb2.Timestamp
    current_at: _timestamp_pb2.Timestamp
    baseline_value: float
    current_value: float
    unit: str
    change_percent: float
    explanation: str
    evidence_entry_ids: _containers.RepeatedScalarFieldContainer[str]
    refusal: _common_pb2.Refusal
    provenance: _common_pb2.Provenance
    visits: _containers.RepeatedCompositeFieldContainer[VisitResponse]
    best_overall: str
    notes: _containers.RepeatedScalarFieldContainer[str]
    statements: _containers.RepeatedCompositeFieldContainer[_common_pb2.Refusal]
    def __init__(self, criterion: _Optional[str] = ..., category: _Optional[_Union[ResponseCategory, str]] = ..., label: _Optional[str] = ..., baseline_study_uid: _Optional[str] = ..., current_study_uid: _Optional[str] = ..., baseline_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., current_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., baseline_value: _Optional[float] = ..., current_value: _Optional[float] = ..., unit: _Optional[str] = ..., change_percent: _Optional[float] = ..., explanation: _Optional[str] = ..., evidence_entry_ids: _Optional[_Iterable[str]] = ..., refusal: _Optional[_Union[_common_pb2.Refusal, _Mapping]] = ..., provenance: _Optional[_Union[_common_pb2.Provenance, _Mapping]] = ..., visits: _Optional[_Iterable[_Union[VisitResponse, _Mapping]]] = ..., best_overall: _Optional[str] = ..., notes: _Optional[_Iterable[str]] = ..., statements: _Optional[_Iterable[_Union[_common_pb2.Refusal, _Mapping]]] = ...) -> None: ...

class VisitResponse(_message.Message):
    __slots__ = ("study_instance_uid", "at", "label", "category", "value", "unit", "arithmetic", "notes", "statements")
    STUDY_INSTANCE_UID_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    ARITHMETIC_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    STATEMENTS_FIELD_NUMBER: _ClassVar[int]
    study_instance_uid: str
    at: _timestamp_pb2.Timestamp
    label: str
    category: ResponseCategory
    value: float
    unit: str
    arithmetic: _containers.RepeatedScalarFieldContainer[str]
    notes: _containers.RepeatedScalarFieldContainer[str]
    statements: _containers.RepeatedCompositeFieldContainer[_common_pb2.Refusal]
    def __init__(self, study_instance_uid: _Optional[str] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., label: _Optional[str] = ..., category: _Optional[_Union[ResponseCategory, str]] = ..., value: _Optional[float] = ..., unit: _Optional[str] = ..., arithmetic: _Optional[_Iterable[str]] = ..., notes: _Optional[_Iterable[str]] = ..., statements: _Optional[_Iterable[_Union[_common_pb2.Refusal, _Mapping]]] = ...) -> None: ...

class Evidence(_message.Message):
    __slots__ = ("statement", "entry_ids")
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    ENTRY_IDS_FIELD_NUMBER: _ClassVar[int]
    statement: str
    entry_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, statement: _Optional[str] = ..., entry_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class Alternative(_message.Message):
    __slots__ = ("title", "reason")
    TITLE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    title: str
    reason: str
    def __init__(self, title: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Recommendation(_message.Message):
    __slots__ = ("recommendation_id", "rule_id", "summary", "detail", "urgency", "category", "proposed_order", "due_at", "evidence", "alternatives", "not_found", "strength", "provenance", "rule_version", "due_from", "missing", "checked", "conflicts")
    RECOMMENDATION_ID_FIELD_NUMBER: _ClassVar[int]
    RULE_ID_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    URGENCY_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    PROPOSED_ORDER_FIELD_NUMBER: _ClassVar[int]
    DUE_AT_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    ALTERNATIVES_FIELD_NUMBER: _ClassVar[int]
    NOT_FOUND_FIELD_NUMBER: _ClassVar[int]
    STRENGTH_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    RULE_VERSION_FIELD_NUMBER: _ClassVar[int]
    DUE_FROM_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    CHECKED_FIELD_NUMBER: _ClassVar[int]
    CONFLICTS_FIELD_NUMBER: _ClassVar[int]
    recommendation_id: str
    rule_id: str
    summary: str
    detail: str
    urgency: Urgency
    category: str
    proposed_order: _common_pb2.Code
    due_at: _timestamp_pb2.Timestamp
    evidence: _containers.RepeatedCompositeFieldContainer[Evidence]
    alternatives: _containers.RepeatedCompositeFieldContainer[Alternative]
    not_found: _containers.RepeatedScalarFieldContainer[str]
    strength: str
    provenance: _common_pb2.Provenance
    rule_version: str
    due_from: _timestamp_pb2.Timestamp
    missing: _containers.RepeatedCompositeFieldContainer[MissingFact]
    checked: _containers.RepeatedCompositeFieldContainer[Evidence]
    conflicts: _containers.RepeatedCompositeFieldContainer[Conflict]
    def __init__(self, recommendation_id: _Optional[str] = ..., rule_id: _Optional[str] = ..., summary: _Optional[str] = ..., detail: _Optional[str] = ..., urgency: _Optional[_Union[Urgency, str]] = ..., category: _Optional[str] = ..., proposed_order: _Optional[_Union[_common_pb2.Code, _Mapping]] = ..., due_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., evidence: _Optional[_Iterable[_Union[Evidence, _Mapping]]] = ..., alternatives: _Optional[_Iterable[_Union[Alternative, _Mapping]]] = ..., not_found: _Optional[_Iterable[str]] = ..., strength: _Optional[str] = ..., provenance: _Optional[_Union[_common_pb2.Provenance, _Mapping]] = ..., rule_version: _Optional[str] = ..., due_from: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., missing: _Optional[_Iterable[_Union[MissingFact, _Mapping]]] = ..., checked: _Optional[_Iterable[_Union[Evidence, _Mapping]]] = ..., conflicts: _Optional[_Iterable[_Union[Conflict, _Mapping]]] = ...) -> None: ...

class MissingFact(_message.Message):
    __slots__ = ("fact", "statement", "supplier")
    FACT_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    SUPPLIER_FIELD_NUMBER: _ClassVar[int]
    fact: str
    statement: str
    supplier: str
    def __init__(self, fact: _Optional[str] = ..., statement: _Optional[str] = ..., supplier: _Optional[str] = ...) -> None: ...

class Conflict(_message.Message):
    __slots__ = ("rule_id", "summary", "explanation")
    RULE_ID_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    rule_id: str
    summary: str
    explanation: str
    def __init__(self, rule_id: _Optional[str] = ..., summary: _Optional[str] = ..., explanation: _Optional[str] = ...) -> None: ...

class PatientAdvice(_message.Message):
    __slots__ = ("patient_key", "snapshot_revision", "as_of", "responses", "recommendations", "priority", "priority_reason", "supporting", "lesions")
    PATIENT_KEY_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_REVISION_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    RESPONSES_FIELD_NUMBER: _ClassVar[int]
    RECOMMENDATIONS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_REASON_FIELD_NUMBER: _ClassVar[int]
    SUPPORTING_FIELD_NUMBER: _ClassVar[int]
    LESIONS_FIELD_NUMBER: _ClassVar[int]
    patient_key: str
    snapshot_revision: int
    as_of: _timestamp_pb2.Timestamp
    responses: _containers.RepeatedCompositeFieldContainer[ResponseAssessment]
    recommendations: _containers.RepeatedCompositeFieldContainer[Recommendation]
    priority: float
    priority_reason: str
    supporting: _containers.RepeatedCompositeFieldContainer[ResponseAssessment]
    lesions: _containers.RepeatedCompositeFieldContainer[Lesion]
    def __init__(self, patient_key: _Optional[str] = ..., snapshot_revision: _Optional[int] = ..., as_of: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., responses: _Optional[_Iterable[_Union[ResponseAssessment, _Mapping]]] = ..., recommendations: _Optional[_Iterable[_Union[Recommendation, _Mapping]]] = ..., priority: _Optional[float] = ..., priority_reason: _Optional[str] = ..., supporting: _Optional[_Iterable[_Union[ResponseAssessment, _Mapping]]] = ..., lesions: _Optional[_Iterable[_Union[Lesion, _Mapping]]] = ...) -> None: ...

class Lesion(_message.Message):
    __slots__ = ("key", "finding_ids")
    KEY_FIELD_NUMBER: _ClassVar[int]
    FINDING_IDS_FIELD_NUMBER: _ClassVar[int]
    key: str
    finding_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, key: _Optional[str] = ..., finding_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class GetAdviceRequest(_message.Message):
    __slots__ = ("patient_key",)
    PATIENT_KEY_FIELD_NUMBER: _ClassVar[int]
    patient_key: str
    def __init__(self, patient_key: _Optional[str] = ...) -> None: ...

class GetAdviceResponse(_message.Message):
    __slots__ = ("advice",)
    ADVICE_FIELD_NUMBER: _ClassVar[int]
    advice: PatientAdvice
    def __init__(self, advice: _Optional[_Union[PatientAdvice, _Mapping]] = ...) -> None: ...

class LesionMatchCorrection(_message.Message):
    __slots__ = ("finding_id", "lesion_key", "reason")
    FINDING_ID_FIELD_NUMBER: _ClassVar[int]
    LESION_KEY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    finding_id: str
    lesion_key: str
    reason: str
    def __init__(self, finding_id: _Optional[str] = ..., lesion_key: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class CorrectLesionMatchRequest(_message.Message):
    __slots__ = ("patient_key", "corrections")
    PATIENT_KEY_FIELD_NUMBER: _ClassVar[int]
    CORRECTIONS_FIELD_NUMBER: _ClassVar[int]
    patient_key: str
    corrections: _containers.RepeatedCompositeFieldContainer[LesionMatchCorrection]
    def __init__(self, patient_key: _Optional[str] = ..., corrections: _Optional[_Iterable[_Union[LesionMatchCorrection, _Mapping]]] = ...) -> None: ...

class CorrectLesionMatchResponse(_message.Message):
    __slots__ = ("advice",)
    ADVICE_FIELD_NUMBER: _ClassVar[int]
    advice: PatientAdvice
    def __init__(self, advice: _Optional[_Union[PatientAdvice, _Mapping]] = ...) -> None: ...

class DraftOrder(_message.Message):
    __slots__ = ("codes", "text", "modality", "contrast", "contrast_agent", "reasons", "reason", "body_region")
    CODES_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    MODALITY_FIELD_NUMBER: _ClassVar[int]
    CONTRAST_FIELD_NUMBER: _ClassVar[int]
    CONTRAST_AGENT_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    BODY_REGION_FIELD_NUMBER: _ClassVar[int]
    codes: _containers.RepeatedCompositeFieldContainer[_common_pb2.Code]
    text: str
    modality: str
    contrast: bool
    contrast_agent: str
    reasons: _containers.RepeatedCompositeFieldContainer[_common_pb2.Code]
    reason: str
    body_region: str
    def __init__(self, codes: _Optional[_Iterable[_Union[_common_pb2.Code, _Mapping]]] = ..., text: _Optional[str] = ..., modality: _Optional[str] = ..., contrast: _Optional[bool] = ..., contrast_agent: _Optional[str] = ..., reasons: _Optional[_Iterable[_Union[_common_pb2.Code, _Mapping]]] = ..., reason: _Optional[str] = ..., body_region: _Optional[str] = ...) -> None: ...

class ClinicalFact(_message.Message):
    __slots__ = ("name", "value", "unit", "observed_at", "source_reference")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_AT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_REFERENCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    unit: str
    observed_at: _timestamp_pb2.Timestamp
    source_reference: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ..., unit: _Optional[str] = ..., observed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., source_reference: _Optional[str] = ...) -> None: ...

class CheckOrderRequest(_message.Message):
    __slots__ = ("patient_key", "order", "facts")
    PATIENT_KEY_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    patient_key: str
    order: DraftOrder
    facts: _containers.RepeatedCompositeFieldContainer[ClinicalFact]
    def __init__(self, patient_key: _Optional[str] = ..., order: _Optional[_Union[DraftOrder, _Mapping]] = ..., facts: _Optional[_Iterable[_Union[ClinicalFact, _Mapping]]] = ...) -> None: ...

class CheckOrderResponse(_message.Message):
    __slots__ = ("recommendations",)
    RECOMMENDATIONS_FIELD_NUMBER: _ClassVar[int]
    recommendations: _containers.RepeatedCompositeFieldContainer[Recommendation]
    def __init__(self, recommendations: _Optional[_Iterable[_Union[Recommendation, _Mapping]]] = ...) -> None: ...
