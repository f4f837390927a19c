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

class RecordFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RECORD_FORMAT_UNSPECIFIED: _ClassVar[RecordFormat]
    RECORD_FORMAT_FHIR_R4: _ClassVar[RecordFormat]
    RECORD_FORMAT_HL7V2: _ClassVar[RecordFormat]

class CompletionReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COMPLETION_REASON_UNSPECIFIED: _ClassVar[CompletionReason]
    COMPLETION_REASON_EXPECTED_COUNT: _ClassVar[CompletionReason]
    COMPLETION_REASON_STORAGE_COMMITMENT: _ClassVar[CompletionReason]
    COMPLETION_REASON_QUIET_PERIOD: _ClassVar[CompletionReason]
    COMPLETION_REASON_DECLARED: _ClassVar[CompletionReason]
RECORD_FORMAT_UNSPECIFIED: RecordFormat
RECORD_FORMAT_FHIR_R4: RecordFormat
RECORD_FORMAT_HL7V2: RecordFormat
COMPLETION_REASON_UNSPECIFIED: CompletionReason
COMPLETION_REASON_EXPECTED_COUNT: CompletionReason
COMPLETION_REASON_STORAGE_COMMITMENT: CompletionReason
COMPLETION_REASON_QUIET_PERIOD: CompletionReason
COMPLETION_REASON_DECLARED: CompletionReason

class ImportRecordRequest(_message.Message):
    __slots__ = ("format", "content")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    format: RecordFormat
    content: bytes
    def __init__(self, format: _Optional[_Union[RecordFormat, str]] = ..., content: _Optional[bytes] = ...) -> None: ...

class ImportRecordResponse(_message.Message):
    __slots__ = ("event_ids", "refusals")
    EVENT_IDS_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    event_ids: _containers.RepeatedScalarFieldContainer[str]
    refusals: _containers.RepeatedCompositeFieldContainer[_common_pb2.Refusal]
    def __init__(self, event_ids: _Optional[_Iterable[str]] = ..., refusals: _Optional[_Iterable[_Union[_common_pb2.Refusal, _Mapping]]] = ...) -> None: ...

class InstanceEntry(_message.Message):
    __slots__ = ("sop_instance_uid", "sop_class_uid", "content")
    SOP_INSTANCE_UID_FIELD_NUMBER: _ClassVar[int]
    SOP_CLASS_UID_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    sop_instance_uid: str
    sop_class_uid: str
    content: _common_pb2.BlobRef
    def __init__(self, sop_instance_uid: _Optional[str] = ..., sop_class_uid: _Optional[str] = ..., content: _Optional[_Union[_common_pb2.BlobRef, _Mapping]] = ...) -> None: ...

class SeriesEntry(_message.Message):
    __slots__ = ("series_instance_uid", "modality", "frame_of_reference_uid", "series_description", "body_part_examined", "instances", "derived")
    SERIES_INSTANCE_UID_FIELD_NUMBER: _ClassVar[int]
    MODALITY_FIELD_NUMBER: _ClassVar[int]
    FRAME_OF_REFERENCE_UID_FIELD_NUMBER: _ClassVar[int]
    SERIES_DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    BODY_PART_EXAMINED_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    DERIVED_FIELD_NUMBER: _ClassVar[int]
    series_instance_uid: str
    modality: str
    frame_of_reference_uid: str
    series_description: str
    body_part_examined: str
    instances: _containers.RepeatedCompositeFieldContainer[InstanceEntry]
    derived: bool
    def __init__(self, series_instance_uid: _Optional[str] = ..., modality: _Optional[str] = ..., frame_of_reference_uid: _Optional[str] = ..., series_description: _Optional[str] = ..., body_part_examined: _Optional[str] = ..., instances: _Optional[_Iterable[_Union[InstanceEntry, _Mapping]]] = ..., derived: _Optional[bool] = ...) -> None: ...

class StudyManifest(_message.Message):
    __slots__ = ("study_instance_uid", "patient_key", "study_time", "study_description", "accession_number_hash", "series", "revision")
    STUDY_INSTANCE_UID_FIELD_NUMBER: _ClassVar[int]
    PATIENT_KEY_FIELD_NUMBER: _ClassVar[int]
    STUDY_TIME_FIELD_NUMBER: _ClassVar[int]
    STUDY_DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    ACCESSION_NUMBER_HASH_FIELD_NUMBER: _ClassVar[int]
    SERIES_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    study_instance_uid: str
    patient_key: str
    study_time: _timestamp_pb2.Timestamp
    study_description: str
    accession_number_hash: str
    series: _containers.RepeatedCompositeFieldContainer[SeriesEntry]
    revision: int
    def __init__(self, study_instance_uid: _Optional[str] = ..., patient_key: _Optional[str] = ..., study_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., study_description: _Optional[str] = ..., accession_number_hash: _Optional[str] = ..., series: _Optional[_Iterable[_Union[SeriesEntry, _Mapping]]] = ..., revision: _Optional[int] = ...) -> None: ...

class GetStudyRequest(_message.Message):
    __slots__ = ("study_instance_uid",)
    STUDY_INSTANCE_UID_FIELD_NUMBER: _ClassVar[int]
    study_instance_uid: str
    def __init__(self, study_instance_uid: _Optional[str] = ...) -> None: ...

class GetStudyResponse(_message.Message):
    __slots__ = ("study", "complete")
    STUDY_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    study: StudyManifest
    complete: bool
    def __init__(self, study: _Optional[_Union[StudyManifest, _Mapping]] = ..., complete: _Optional[bool] = ...) -> None: ...

class ListStudiesRequest(_message.Message):
    __slots__ = ("patient_key", "page_size", "page_token")
    PATIENT_KEY_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    patient_key: str
    page_size: int
    page_token: str
    def __init__(self, patient_key: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListStudiesResponse(_message.Message):
    __slots__ = ("studies", "next_page_token")
    STUDIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    studies: _containers.RepeatedCompositeFieldContainer[StudyManifest]
    next_page_token: str
    def __init__(self, studies: _Optional[_Iterable[_Union[StudyManifest, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class QuarantineItem(_message.Message):
    __slots__ = ("item_id", "door", "refusal", "content", "quarantined_at", "replayed_at")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    DOOR_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    QUARANTINED_AT_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_AT_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    door: str
    refusal: _common_pb2.Refusal
    content: _common_pb2.BlobRef
    quarantined_at: _timestamp_pb2.Timestamp
    replayed_at: _timestamp_pb2.Timestamp
    def __init__(self, item_id: _Optional[str] = ..., door: _Optional[str] = ..., refusal: _Optional[_Union[_common_pb2.Refusal, _Mapping]] = ..., content: _Optional[_Union[_common_pb2.BlobRef, _Mapping]] = ..., quarantined_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., replayed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ListQuarantineRequest(_message.Message):
    __slots__ = ("include_replayed", "page_size", "page_token")
    INCLUDE_REPLAYED_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    include_replayed: bool
    page_size: int
    page_token: str
    def __init__(self, include_replayed: _Optional[bool] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListQuarantineResponse(_message.Message):
    __slots__ = ("items", "next_page_token")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[QuarantineItem]
    next_page_token: str
    def __init__(self, items: _Optional[_Iterable[_Union[QuarantineItem, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ReplayQuarantineRequest(_message.Message):
    __slots__ = ("item_id",)
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    def __init__(self, item_id: _Optional[str] = ...) -> None: ...

class ReplayQuarantineResponse(_message.Message):
    __slots__ = ("refusal",)
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    refusal: _common_pb2.Refusal
    def __init__(self, refusal: _Optional[_Union[_common_pb2.Refusal, _Mapping]] = ...) -> None: ...
