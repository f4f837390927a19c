from buf.validate import validate_pb2 as _validate_pb2
from osler.common.v1 import common_pb2 as _common_pb2
from osler.twin.v1 import calculators_pb2 as _calculators_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListOutcomeModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListOutcomeModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[OutcomeModel]
    def __init__(self, models: _Optional[_Iterable[_Union[OutcomeModel, _Mapping]]] = ...) -> None: ...

class OutcomeModel(_message.Message):
    __slots__ = ("name", "version", "title", "outcome", "status", "reason", "inputs")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    title: str
    outcome: str
    status: str
    reason: str
    inputs: _containers.RepeatedCompositeFieldContainer[OutcomeInput]
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., title: _Optional[str] = ..., outcome: _Optional[str] = ..., status: _Optional[str] = ..., reason: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[OutcomeInput, _Mapping]]] = ...) -> None: ...

class OutcomeInput(_message.Message):
    __slots__ = ("name", "label", "unit", "required")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_FIELD_NUMBER: _ClassVar[int]
    name: str
    label: str
    unit: str
    required: bool
    def __init__(self, name: _Optional[str] = ..., label: _Optional[str] = ..., unit: _Optional[str] = ..., required: _Optional[bool] = ...) -> None: ...

class PredictOutcomeRequest(_message.Message):
    __slots__ = ("model", "inputs", "pet", "outline", "horizons_days")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    PET_FIELD_NUMBER: _ClassVar[int]
    OUTLINE_FIELD_NUMBER: _ClassVar[int]
    HORIZONS_DAYS_FIELD_NUMBER: _ClassVar[int]
    model: str
    inputs: _containers.RepeatedCompositeFieldContainer[_calculators_pb2.GivenInput]
    pet: _common_pb2.BlobRef
    outline: _common_pb2.BlobRef
    horizons_days: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, model: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[_calculators_pb2.GivenInput, _Mapping]]] = ..., pet: _Optional[_Union[_common_pb2.BlobRef, _Mapping]] = ..., outline: _Optional[_Union[_common_pb2.BlobRef, _Mapping]] = ..., horizons_days: _Optional[_Iterable[float]] = ...) -> None: ...

class PredictOutcomeResponse(_message.Message):
    __slots__ = ("model", "version", "title", "outcome", "status", "risks", "drivers", "cautions", "provenance")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    RISKS_FIELD_NUMBER: _ClassVar[int]
    DRIVERS_FIELD_NUMBER: _ClassVar[int]
    CAUTIONS_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    title: str
    outcome: str
    status: str
    risks: _containers.RepeatedCompositeFieldContainer[OutcomeRisk]
    drivers: _containers.RepeatedCompositeFieldContainer[OutcomeDriver]
    cautions: _containers.RepeatedScalarFieldContainer[str]
    provenance: _common_pb2.Provenance
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., title: _Optional[str] = ..., outcome: _Optional[str] = ..., status: _Optional[str] = ..., risks: _Optional[_Iterable[_Union[OutcomeRisk, _Mapping]]] = ..., drivers: _Optional[_Iterable[_Union[OutcomeDriver, _Mapping]]] = ..., cautions: _Optional[_Iterable[str]] = ..., provenance: _Optional[_Union[_common_pb2.Provenance, _Mapping]] = ...) -> None: ...

class OutcomeRisk(_message.Message):
    __slots__ = ("horizon_days", "risk")
    HORIZON_DAYS_FIELD_NUMBER: _ClassVar[int]
    RISK_FIELD_NUMBER: _ClassVar[int]
    horizon_days: float
    risk: _common_pb2.Quantity
    def __init__(self, horizon_days: _Optional[float] = ..., risk: _Optional[_Union[_common_pb2.Quantity, _Mapping]] = ...) -> None: ...

class OutcomeDriver(_message.Message):
    __slots__ = ("input", "value", "contribution", "risk_if_typical")
    INPUT_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    RISK_IF_TYPICAL_FIELD_NUMBER: _ClassVar[int]
    input: str
    value: float
    contribution: float
    risk_if_typical: float
    def __init__(self, input: _Optional[str] = ..., value: _Optional[float] = ..., contribution: _Optional[float] = ..., risk_if_typical: _Optional[float] = ...) -> None: ...

class EarlierVisit(_message.Message):
    __slots__ = ("days_before", "tumour", "volumes")
    DAYS_BEFORE_FIELD_NUMBER: _ClassVar[int]
    TUMOUR_FIELD_NUMBER: _ClassVar[int]
    VOLUMES_FIELD_NUMBER: _ClassVar[int]
    days_before: float
    tumour: _common_pb2.BlobRef
    volumes: OutlinedVolumes
    def __init__(self, days_before: _Optional[float] = ..., tumour: _Optional[_Union[_common_pb2.BlobRef, _Mapping]] = ..., volumes: _Optional[_Union[OutlinedVolumes, _Mapping]] = ...) -> None: ...

class OutlinedVolumes(_message.Message):
    __slots__ = ("t1gd_mm3", "flair_mm3")
    T1GD_MM3_FIELD_NUMBER: _ClassVar[int]
    FLAIR_MM3_FIELD_NUMBER: _ClassVar[int]
    t1gd_mm3: float
    flair_mm3: float
    def __init__(self, t1gd_mm3: _Optional[float] = ..., flair_mm3: _Optional[float] = ...) -> None: ...

class GliomaRadiotherapy(_message.Message):
    __slots__ = ("fractions", "dose_per_fraction_gy", "start_day")
    FRACTIONS_FIELD_NUMBER: _ClassVar[int]
    DOSE_PER_FRACTION_GY_FIELD_NUMBER: _ClassVar[int]
    START_DAY_FIELD_NUMBER: _ClassVar[int]
    fractions: int
    dose_per_fraction_gy: float
    start_day: float
    def __init__(self, fractions: _Optional[int] = ..., dose_per_fraction_gy: _Optional[float] = ..., start_day: _Optional[float] = ...) -> None: ...

class SimulateGliomaRequest(_message.Message):
    __slots__ = ("tissue", "tumour", "earlier", "horizon_days", "radiotherapy", "resection_day", "draws")
    TISSUE_FIELD_NUMBER: _ClassVar[int]
    TUMOUR_FIELD_NUMBER: _ClassVar[int]
    EARLIER_FIELD_NUMBER: _ClassVar[int]
    HORIZON_DAYS_FIELD_NUMBER: _ClassVar[int]
    RADIOTHERAPY_FIELD_NUMBER: _ClassVar[int]
    RESECTION_DAY_FIELD_NUMBER: _ClassVar[int]
    DRAWS_FIELD_NUMBER: _ClassVar[int]
    tissue: _common_pb2.BlobRef
    tumour: _common_pb2.BlobRef
    earlier: _containers.RepeatedCompositeFieldContainer[EarlierVisit]
    horizon_days: int
    radiotherapy: GliomaRadiotherapy
    resection_day: float
    draws: int
    def __init__(self, tissue: _Optional[_Union[_common_pb2.BlobRef, _Mapping]] = ..., tumour: _Optional[_Union[_common_pb2.BlobRef, _Mapping]] = ..., earlier: _Optional[_Iterable[_Union[EarlierVisit, _Mapping]]] = ..., horizon_days: _Optional[int] = ..., radiotherapy: _Optional[_Union[GliomaRadiotherapy, _Mapping]] = ..., resection_day: _Optional[float] = ..., draws: _Optional[int] = ...) -> None: ...

class SimulateGliomaResponse(_message.Message):
    __slots__ = ("rates", "courses", "probability_smaller_if_treated", "cautions", "provenance")
    RATES_FIELD_NUMBER: _ClassVar[int]
    COURSES_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_SMALLER_IF_TREATED_FIELD_NUMBER: _ClassVar[int]
    CAUTIONS_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    rates: _containers.RepeatedCompositeFieldContainer[GliomaRate]
    courses: _containers.RepeatedCompositeFieldContainer[GliomaCourse]
    probability_smaller_if_treated: float
    cautions: _containers.RepeatedScalarFieldContainer[str]
    provenance: _common_pb2.Provenance
    def __init__(self, rates: _Optional[_Iterable[_Union[GliomaRate, _Mapping]]] = ..., courses: _Optional[_Iterable[_Union[GliomaCourse, _Mapping]]] = ..., probability_smaller_if_treated: _Optional[float] = ..., cautions: _Optional[_Iterable[str]] = ..., provenance: _Optional[_Union[_common_pb2.Provenance, _Mapping]] = ...) -> None: ...

class GliomaRate(_message.Message):
    __slots__ = ("name", "median", "lower_90", "upper_90")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MEDIAN_FIELD_NUMBER: _ClassVar[int]
    LOWER_90_FIELD_NUMBER: _ClassVar[int]
    UPPER_90_FIELD_NUMBER: _ClassVar[int]
    name: str
    median: float
    lower_90: float
    upper_90: float
    def __init__(self, name: _Optional[str] = ..., median: _Optional[float] = ..., lower_90: _Optional[float] = ..., upper_90: _Optional[float] = ...) -> None: ...

class GliomaCourse(_message.Message):
    __slots__ = ("name", "t1gd", "flair", "density")
    NAME_FIELD_NUMBER: _ClassVar[int]
    T1GD_FIELD_NUMBER: _ClassVar[int]
    FLAIR_FIELD_NUMBER: _ClassVar[int]
    DENSITY_FIELD_NUMBER: _ClassVar[int]
    name: str
    t1gd: _containers.RepeatedCompositeFieldContainer[VisibleVolume]
    flair: _containers.RepeatedCompositeFieldContainer[VisibleVolume]
    density: _common_pb2.BlobRef
    def __init__(self, name: _Optional[str] = ..., t1gd: _Optional[_Iterable[_Union[VisibleVolume, _Mapping]]] = ..., flair: _Optional[_Iterable[_Union[VisibleVolume, _Mapping]]] = ..., density: _Optional[_Union[_common_pb2.BlobRef, _Mapping]] = ...) -> None: ...

class VisibleVolume(_message.Message):
    __slots__ = ("day", "median_mm3", "lower_50", "upper_50", "lower_90", "upper_90")
    DAY_FIELD_NUMBER: _ClassVar[int]
    MEDIAN_MM3_FIELD_NUMBER: _ClassVar[int]
    LOWER_50_FIELD_NUMBER: _ClassVar[int]
    UPPER_50_FIELD_NUMBER: _ClassVar[int]
    LOWER_90_FIELD_NUMBER: _ClassVar[int]
    UPPER_90_FIELD_NUMBER: _ClassVar[int]
    day: float
    median_mm3: float
    lower_50: float
    upper_50: float
    lower_90: float
    upper_90: float
    def __init__(self, day: _Optional[float] = ..., median_mm3: _Optional[float] = ..., lower_50: _Optional[float] = ..., upper_50: _Optional[float] = ..., lower_90: _Optional[float] = ..., upper_90: _Optional[float] = ...) -> None: ...
