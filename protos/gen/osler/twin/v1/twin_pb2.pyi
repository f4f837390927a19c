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

class ForecastDriverKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FORECAST_DRIVER_KIND_UNSPECIFIED: _ClassVar[ForecastDriverKind]
    FORECAST_DRIVER_KIND_MEASUREMENT: _ClassVar[ForecastDriverKind]
    FORECAST_DRIVER_KIND_TREATMENT: _ClassVar[ForecastDriverKind]
    FORECAST_DRIVER_KIND_LOW_NEXT_MEASUREMENT: _ClassVar[ForecastDriverKind]
    FORECAST_DRIVER_KIND_HIGH_NEXT_MEASUREMENT: _ClassVar[ForecastDriverKind]
FORECAST_DRIVER_KIND_UNSPECIFIED: ForecastDriverKind
FORECAST_DRIVER_KIND_MEASUREMENT: ForecastDriverKind
FORECAST_DRIVER_KIND_TREATMENT: ForecastDriverKind
FORECAST_DRIVER_KIND_LOW_NEXT_MEASUREMENT: ForecastDriverKind
FORECAST_DRIVER_KIND_HIGH_NEXT_MEASUREMENT: ForecastDriverKind

class RiskEstimate(_message.Message):
    __slots__ = ("name", "title", "value", "inputs", "refusal", "provenance", "cautions", "bounds", "influences")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    CAUTIONS_FIELD_NUMBER: _ClassVar[int]
    BOUNDS_FIELD_NUMBER: _ClassVar[int]
    INFLUENCES_FIELD_NUMBER: _ClassVar[int]
    name: str
    title: str
    value: _common_pb2.Quantity
    inputs: _containers.RepeatedCompositeFieldContainer[InputUsed]
    refusal: _common_pb2.Refusal
    provenance: _common_pb2.Provenance
    cautions: _containers.RepeatedScalarFieldContainer[str]
    bounds: PlausibleBounds
    influences: _containers.RepeatedCompositeFieldContainer[Influence]
    def __init__(self, name: _Optional[str] = ..., title: _Optional[str] = ..., value: _Optional[_Union[_common_pb2.Quantity, _Mapping]] = ..., inputs: _Optional[_Iterable[_Union[InputUsed, _Mapping]]] = ..., refusal: _Optional[_Union[_common_pb2.Refusal, _Mapping]] = ..., provenance: _Optional[_Union[_common_pb2.Provenance, _Mapping]] = ..., cautions: _Optional[_Iterable[str]] = ..., bounds: _Optional[_Union[PlausibleBounds, _Mapping]] = ..., influences: _Optional[_Iterable[_Union[Influence, _Mapping]]] = ...) -> None: ...

class PlausibleBounds(_message.Message):
    __slots__ = ("lower", "upper", "unit", "missing")
    LOWER_FIELD_NUMBER: _ClassVar[int]
    UPPER_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    lower: float
    upper: float
    unit: str
    missing: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, lower: _Optional[float] = ..., upper: _Optional[float] = ..., unit: _Optional[str] = ..., missing: _Optional[_Iterable[str]] = ...) -> None: ...

class Influence(_message.Message):
    __slots__ = ("input", "drive", "reference", "at_lower", "at_higher", "modifiable")
    INPUT_FIELD_NUMBER: _ClassVar[int]
    DRIVE_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    AT_LOWER_FIELD_NUMBER: _ClassVar[int]
    AT_HIGHER_FIELD_NUMBER: _ClassVar[int]
    MODIFIABLE_FIELD_NUMBER: _ClassVar[int]
    input: str
    drive: float
    reference: float
    at_lower: float
    at_higher: float
    modifiable: bool
    def __init__(self, input: _Optional[str] = ..., drive: _Optional[float] = ..., reference: _Optional[float] = ..., at_lower: _Optional[float] = ..., at_higher: _Optional[float] = ..., modifiable: _Optional[bool] = ...) -> None: ...

class InputUsed(_message.Message):
    __slots__ = ("name", "value", "unit", "observed_at", "entry_ids")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_AT_FIELD_NUMBER: _ClassVar[int]
    ENTRY_IDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    unit: str
    observed_at: _timestamp_pb2.Timestamp
    entry_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ..., unit: _Optional[str] = ..., observed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., entry_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class CurvePoint(_message.Message):
    __slots__ = ("at", "median", "lower_50", "upper_50", "lower_90", "upper_90")
    AT_FIELD_NUMBER: _ClassVar[int]
    MEDIAN_FIELD_NUMBER: _ClassVar[int]
    LOWER_50_FIELD_NUMBER: _ClassVar[int]
    UPPER_50_FIELD_NUMBER: _ClassVar[int]
    LOWER_90_FIELD_NUMBER: _ClassVar[int]
    UPPER_90_FIELD_NUMBER: _ClassVar[int]
    at: _timestamp_pb2.Timestamp
    median: float
    lower_50: float
    upper_50: float
    lower_90: float
    upper_90: float
    def __init__(self, at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., median: _Optional[float] = ..., lower_50: _Optional[float] = ..., upper_50: _Optional[float] = ..., lower_90: _Optional[float] = ..., upper_90: _Optional[float] = ...) -> None: ...

class ObservedPoint(_message.Message):
    __slots__ = ("at", "value", "entry_ids")
    AT_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    ENTRY_IDS_FIELD_NUMBER: _ClassVar[int]
    at: _timestamp_pb2.Timestamp
    value: float
    entry_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., value: _Optional[float] = ..., entry_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class DatedProbability(_message.Message):
    __slots__ = ("by", "probability")
    BY_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    by: _timestamp_pb2.Timestamp
    probability: float
    def __init__(self, by: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., probability: _Optional[float] = ...) -> None: ...

class ImagingValue(_message.Message):
    __slots__ = ("at", "shows_progression", "false_alarm", "days_saved", "net_days", "spread_reduction")
    AT_FIELD_NUMBER: _ClassVar[int]
    SHOWS_PROGRESSION_FIELD_NUMBER: _ClassVar[int]
    FALSE_ALARM_FIELD_NUMBER: _ClassVar[int]
    DAYS_SAVED_FIELD_NUMBER: _ClassVar[int]
    NET_DAYS_FIELD_NUMBER: _ClassVar[int]
    SPREAD_REDUCTION_FIELD_NUMBER: _ClassVar[int]
    at: _timestamp_pb2.Timestamp
    shows_progression: float
    false_alarm: float
    days_saved: float
    net_days: float
    spread_reduction: float
    def __init__(self, at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., shows_progression: _Optional[float] = ..., false_alarm: _Optional[float] = ..., days_saved: _Optional[float] = ..., net_days: _Optional[float] = ..., spread_reduction: _Optional[float] = ...) -> None: ...

class TumourForecast(_message.Message):
    __slots__ = ("quantity", "unit", "observed", "curve", "decay_rate", "growth_rate", "time_to_nadir", "probability_of_progression", "horizon", "refusal", "provenance", "cautions", "progression_by", "response_by", "time_to_progression", "stein_probability", "imaging_values", "drivers")
    QUANTITY_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_FIELD_NUMBER: _ClassVar[int]
    CURVE_FIELD_NUMBER: _ClassVar[int]
    DECAY_RATE_FIELD_NUMBER: _ClassVar[int]
    GROWTH_RATE_FIELD_NUMBER: _ClassVar[int]
    TIME_TO_NADIR_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_OF_PROGRESSION_FIELD_NUMBER: _ClassVar[int]
    HORIZON_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    CAUTIONS_FIELD_NUMBER: _ClassVar[int]
    PROGRESSION_BY_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_BY_FIELD_NUMBER: _ClassVar[int]
    TIME_TO_PROGRESSION_FIELD_NUMBER: _ClassVar[int]
    STEIN_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    IMAGING_VALUES_FIELD_NUMBER: _ClassVar[int]
    DRIVERS_FIELD_NUMBER: _ClassVar[int]
    quantity: str
    unit: str
    observed: _containers.RepeatedCompositeFieldContainer[ObservedPoint]
    curve: _containers.RepeatedCompositeFieldContainer[CurvePoint]
    decay_rate: _common_pb2.Quantity
    growth_rate: _common_pb2.Quantity
    time_to_nadir: _common_pb2.Quantity
    probability_of_progression: float
    horizon: _timestamp_pb2.Timestamp
    refusal: _common_pb2.Refusal
    provenance: _common_pb2.Provenance
    cautions: _containers.RepeatedScalarFieldContainer[str]
    progression_by: _containers.RepeatedCompositeFieldContainer[DatedProbability]
    response_by: _containers.RepeatedCompositeFieldContainer[DatedProbability]
    time_to_progression: _common_pb2.Quantity
    stein_probability: float
    imaging_values: _containers.RepeatedCompositeFieldContainer[ImagingValue]
    drivers: _containers.RepeatedCompositeFieldContainer[ForecastDriver]
    def __init__(self, quantity: _Optional[str] = ..., unit: _Optional[str] = ..., observed: _Optional[_Iterable[_Union[ObservedPoint, _Mapping]]] = ..., curve: _Optional[_Iterable[_Union[CurvePoint, _Mapping]]] = ..., decay_rate: _Optional[_Union[_common_pb2.Quantity, _Mapping]] = ..., growth_rate: _Optional[_Union[_common_pb2.Quantity, _Mapping]] = ..., time_to_nadir: _Optional[_Union[_common_pb2.Quantity, _Mapping]] = ..., probability_of_progression: _Optional[float] = ..., horizon: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., refusal: _Optional[_Union[_common_pb2.Refusal, _Mapping]] = ..., provenance: _Optional[_Union[_common_pb2.Provenance, _Mapping]] = ..., cautions: _Optional[_Iterable[str]] = ..., progression_by: _Optional[_Iterable[_Union[DatedProbability, _Mapping]]] = ..., response_by: _Optional[_Iterable[_Union[DatedProbability, _Mapping]]] = ..., time_to_progression: _Optional[_Union[_common_pb2.Quantity, _Mapping]] = ..., stein_probability: _Optional[float] = ..., imaging_values: _Optional[_Iterable[_Union[ImagingValue, _Mapping]]] = ..., drivers: _Optional[_Iterable[_Union[ForecastDriver, _Mapping]]] = ...) -> None: ...

class ForecastDriver(_message.Message):
    __slots__ = ("kind", "at", "value", "probability_of_progression", "drive")
    KIND_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_OF_PROGRESSION_FIELD_NUMBER: _ClassVar[int]
    DRIVE_FIELD_NUMBER: _ClassVar[int]
    kind: ForecastDriverKind
    at: _timestamp_pb2.Timestamp
    value: float
    probability_of_progression: float
    drive: float
    def __init__(self, kind: _Optional[_Union[ForecastDriverKind, str]] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., value: _Optional[float] = ..., probability_of_progression: _Optional[float] = ..., drive: _Optional[float] = ...) -> None: ...

class PatientPredictions(_message.Message):
    __slots__ = ("patient_key", "snapshot_revision", "as_of", "risks", "forecasts")
    PATIENT_KEY_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_REVISION_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    RISKS_FIELD_NUMBER: _ClassVar[int]
    FORECASTS_FIELD_NUMBER: _ClassVar[int]
    patient_key: str
    snapshot_revision: int
    as_of: _timestamp_pb2.Timestamp
    risks: _containers.RepeatedCompositeFieldContainer[RiskEstimate]
    forecasts: _containers.RepeatedCompositeFieldContainer[TumourForecast]
    def __init__(self, patient_key: _Optional[str] = ..., snapshot_revision: _Optional[int] = ..., as_of: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., risks: _Optional[_Iterable[_Union[RiskEstimate, _Mapping]]] = ..., forecasts: _Optional[_Iterable[_Union[TumourForecast, _Mapping]]] = ...) -> None: ...

class GetPredictionsRequest(_message.Message):
    __slots__ = ("patient_key",)
    PATIENT_KEY_FIELD_NUMBER: _ClassVar[int]
    patient_key: str
    def __init__(self, patient_key: _Optional[str] = ...) -> None: ...

class GetPredictionsResponse(_message.Message):
    __slots__ = ("predictions",)
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    predictions: PatientPredictions
    def __init__(self, predictions: _Optional[_Union[PatientPredictions, _Mapping]] = ...) -> None: ...

class SimulateRequest(_message.Message):
    __slots__ = ("patient_key", "treatment_effect", "change_at", "horizon_days")
    PATIENT_KEY_FIELD_NUMBER: _ClassVar[int]
    TREATMENT_EFFECT_FIELD_NUMBER: _ClassVar[int]
    CHANGE_AT_FIELD_NUMBER: _ClassVar[int]
    HORIZON_DAYS_FIELD_NUMBER: _ClassVar[int]
    patient_key: str
    treatment_effect: float
    change_at: _timestamp_pb2.Timestamp
    horizon_days: int
    def __init__(self, patient_key: _Optional[str] = ..., treatment_effect: _Optional[float] = ..., change_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., horizon_days: _Optional[int] = ...) -> None: ...

class SimulateResponse(_message.Message):
    __slots__ = ("forecast",)
    FORECAST_FIELD_NUMBER: _ClassVar[int]
    forecast: TumourForecast
    def __init__(self, forecast: _Optional[_Union[TumourForecast, _Mapping]] = ...) -> None: ...

class Measurement(_message.Message):
    __slots__ = ("at", "value", "unit")
    AT_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    at: _timestamp_pb2.Timestamp
    value: float
    unit: str
    def __init__(self, at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., value: _Optional[float] = ..., unit: _Optional[str] = ...) -> None: ...

class TumourSeries(_message.Message):
    __slots__ = ("measurements",)
    MEASUREMENTS_FIELD_NUMBER: _ClassVar[int]
    measurements: _containers.RepeatedCompositeFieldContainer[Measurement]
    def __init__(self, measurements: _Optional[_Iterable[_Union[Measurement, _Mapping]]] = ...) -> None: ...

class Subject(_message.Message):
    __slots__ = ("patient_key", "series", "quantity", "disease", "regimen")
    PATIENT_KEY_FIELD_NUMBER: _ClassVar[int]
    SERIES_FIELD_NUMBER: _ClassVar[int]
    QUANTITY_FIELD_NUMBER: _ClassVar[int]
    DISEASE_FIELD_NUMBER: _ClassVar[int]
    REGIMEN_FIELD_NUMBER: _ClassVar[int]
    patient_key: str
    series: TumourSeries
    quantity: str
    disease: str
    regimen: str
    def __init__(self, patient_key: _Optional[str] = ..., series: _Optional[_Union[TumourSeries, _Mapping]] = ..., quantity: _Optional[str] = ..., disease: _Optional[str] = ..., regimen: _Optional[str] = ...) -> None: ...

class Phase(_message.Message):
    __slots__ = ("start", "own_effect", "added_regimen")
    START_FIELD_NUMBER: _ClassVar[int]
    OWN_EFFECT_FIELD_NUMBER: _ClassVar[int]
    ADDED_REGIMEN_FIELD_NUMBER: _ClassVar[int]
    start: _timestamp_pb2.Timestamp
    own_effect: float
    added_regimen: str
    def __init__(self, start: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., own_effect: _Optional[float] = ..., added_regimen: _Optional[str] = ...) -> None: ...

class Course(_message.Message):
    __slots__ = ("name", "phases")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PHASES_FIELD_NUMBER: _ClassVar[int]
    name: str
    phases: _containers.RepeatedCompositeFieldContainer[Phase]
    def __init__(self, name: _Optional[str] = ..., phases: _Optional[_Iterable[_Union[Phase, _Mapping]]] = ...) -> None: ...

class PredictRequest(_message.Message):
    __slots__ = ("subject", "horizon_days", "planned_imaging", "seed", "explain")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    HORIZON_DAYS_FIELD_NUMBER: _ClassVar[int]
    PLANNED_IMAGING_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    subject: Subject
    horizon_days: int
    planned_imaging: _timestamp_pb2.Timestamp
    seed: int
    explain: bool
    def __init__(self, subject: _Optional[_Union[Subject, _Mapping]] = ..., horizon_days: _Optional[int] = ..., planned_imaging: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., seed: _Optional[int] = ..., explain: _Optional[bool] = ...) -> None: ...

class PredictResponse(_message.Message):
    __slots__ = ("forecast",)
    FORECAST_FIELD_NUMBER: _ClassVar[int]
    forecast: TumourForecast
    def __init__(self, forecast: _Optional[_Union[TumourForecast, _Mapping]] = ...) -> None: ...

class SimulateCoursesRequest(_message.Message):
    __slots__ = ("subject", "courses", "horizon_days", "seed")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    COURSES_FIELD_NUMBER: _ClassVar[int]
    HORIZON_DAYS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    subject: Subject
    courses: _containers.RepeatedCompositeFieldContainer[Course]
    horizon_days: int
    seed: int
    def __init__(self, subject: _Optional[_Union[Subject, _Mapping]] = ..., courses: _Optional[_Iterable[_Union[Course, _Mapping]]] = ..., horizon_days: _Optional[int] = ..., seed: _Optional[int] = ...) -> None: ...

class SimulateCoursesResponse(_message.Message):
    __slots__ = ("course", "forecast")
    COURSE_FIELD_NUMBER: _ClassVar[int]
    FORECAST_FIELD_NUMBER: _ClassVar[int]
    course: str
    forecast: TumourForecast
    def __init__(self, course: _Optional[str] = ..., forecast: _Optional[_Union[TumourForecast, _Mapping]] = ...) -> None: ...

class CompareRequest(_message.Message):
    __slots__ = ("subject", "courses", "horizon_days", "seed")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    COURSES_FIELD_NUMBER: _ClassVar[int]
    HORIZON_DAYS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    subject: Subject
    courses: _containers.RepeatedCompositeFieldContainer[Course]
    horizon_days: int
    seed: int
    def __init__(self, subject: _Optional[_Union[Subject, _Mapping]] = ..., courses: _Optional[_Iterable[_Union[Course, _Mapping]]] = ..., horizon_days: _Optional[int] = ..., seed: _Optional[int] = ...) -> None: ...

class CourseOutcome(_message.Message):
    __slots__ = ("course", "relative_size", "probability_of_progression", "probability_of_response", "time_to_progression", "probability_best")
    COURSE_FIELD_NUMBER: _ClassVar[int]
    RELATIVE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_OF_PROGRESSION_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_OF_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    TIME_TO_PROGRESSION_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_BEST_FIELD_NUMBER: _ClassVar[int]
    course: str
    relative_size: _common_pb2.Quantity
    probability_of_progression: float
    probability_of_response: float
    time_to_progression: _common_pb2.Quantity
    probability_best: float
    def __init__(self, course: _Optional[str] = ..., relative_size: _Optional[_Union[_common_pb2.Quantity, _Mapping]] = ..., probability_of_progression: _Optional[float] = ..., probability_of_response: _Optional[float] = ..., time_to_progression: _Optional[_Union[_common_pb2.Quantity, _Mapping]] = ..., probability_best: _Optional[float] = ...) -> None: ...

class PairComparison(_message.Message):
    __slots__ = ("course", "other", "probability_smaller", "probability_later_progression", "size_ratio")
    COURSE_FIELD_NUMBER: _ClassVar[int]
    OTHER_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_SMALLER_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_LATER_PROGRESSION_FIELD_NUMBER: _ClassVar[int]
    SIZE_RATIO_FIELD_NUMBER: _ClassVar[int]
    course: str
    other: str
    probability_smaller: float
    probability_later_progression: float
    size_ratio: _common_pb2.Quantity
    def __init__(self, course: _Optional[str] = ..., other: _Optional[str] = ..., probability_smaller: _Optional[float] = ..., probability_later_progression: _Optional[float] = ..., size_ratio: _Optional[_Union[_common_pb2.Quantity, _Mapping]] = ...) -> None: ...

class CompareResponse(_message.Message):
    __slots__ = ("outcomes", "pairs", "horizon", "provenance", "cautions")
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    HORIZON_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    CAUTIONS_FIELD_NUMBER: _ClassVar[int]
    outcomes: _containers.RepeatedCompositeFieldContainer[CourseOutcome]
    pairs: _containers.RepeatedCompositeFieldContainer[PairComparison]
    horizon: _timestamp_pb2.Timestamp
    provenance: _common_pb2.Provenance
    cautions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, outcomes: _Optional[_Iterable[_Union[CourseOutcome, _Mapping]]] = ..., pairs: _Optional[_Iterable[_Union[PairComparison, _Mapping]]] = ..., horizon: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., provenance: _Optional[_Union[_common_pb2.Provenance, _Mapping]] = ..., cautions: _Optional[_Iterable[str]] = ...) -> None: ...

class CalibrateRequest(_message.Message):
    __slots__ = ("subject", "seed")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    subject: Subject
    seed: int
    def __init__(self, subject: _Optional[_Union[Subject, _Mapping]] = ..., seed: _Optional[int] = ...) -> None: ...

class ForeseenMeasurement(_message.Message):
    __slots__ = ("at", "value", "expected", "rank", "inside_90")
    AT_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    INSIDE_90_FIELD_NUMBER: _ClassVar[int]
    at: _timestamp_pb2.Timestamp
    value: float
    expected: CurvePoint
    rank: float
    inside_90: bool
    def __init__(self, at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., value: _Optional[float] = ..., expected: _Optional[_Union[CurvePoint, _Mapping]] = ..., rank: _Optional[float] = ..., inside_90: _Optional[bool] = ...) -> None: ...

class FittedParameter(_message.Message):
    __slots__ = ("name", "value", "population_median")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    POPULATION_MEDIAN_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: _common_pb2.Quantity
    population_median: float
    def __init__(self, name: _Optional[str] = ..., value: _Optional[_Union[_common_pb2.Quantity, _Mapping]] = ..., population_median: _Optional[float] = ...) -> None: ...

class CalibrateResponse(_message.Message):
    __slots__ = ("parameters", "stein_probability", "foreseen", "effective_sets", "provenance", "cautions")
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    STEIN_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    FORESEEN_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_SETS_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    CAUTIONS_FIELD_NUMBER: _ClassVar[int]
    parameters: _containers.RepeatedCompositeFieldContainer[FittedParameter]
    stein_probability: float
    foreseen: _containers.RepeatedCompositeFieldContainer[ForeseenMeasurement]
    effective_sets: float
    provenance: _common_pb2.Provenance
    cautions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, parameters: _Optional[_Iterable[_Union[FittedParameter, _Mapping]]] = ..., stein_probability: _Optional[float] = ..., foreseen: _Optional[_Iterable[_Union[ForeseenMeasurement, _Mapping]]] = ..., effective_sets: _Optional[float] = ..., provenance: _Optional[_Union[_common_pb2.Provenance, _Mapping]] = ..., cautions: _Optional[_Iterable[str]] = ...) -> None: ...

class SimulatePopulationRequest(_message.Message):
    __slots__ = ("quantity", "disease", "regimen", "patients", "horizon_days", "seed")
    QUANTITY_FIELD_NUMBER: _ClassVar[int]
    DISEASE_FIELD_NUMBER: _ClassVar[int]
    REGIMEN_FIELD_NUMBER: _ClassVar[int]
    PATIENTS_FIELD_NUMBER: _ClassVar[int]
    HORIZON_DAYS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    quantity: str
    disease: str
    regimen: str
    patients: int
    horizon_days: int
    seed: int
    def __init__(self, quantity: _Optional[str] = ..., disease: _Optional[str] = ..., regimen: _Optional[str] = ..., patients: _Optional[int] = ..., horizon_days: _Optional[int] = ..., seed: _Optional[int] = ...) -> None: ...

class SimulatePopulationResponse(_message.Message):
    __slots__ = ("patients", "points")
    PATIENTS_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    patients: int
    points: _containers.RepeatedCompositeFieldContainer[PopulationPoint]
    def __init__(self, patients: _Optional[int] = ..., points: _Optional[_Iterable[_Union[PopulationPoint, _Mapping]]] = ...) -> None: ...

class PopulationPoint(_message.Message):
    __slots__ = ("day", "median", "lower_90", "upper_90", "progressed", "responded")
    DAY_FIELD_NUMBER: _ClassVar[int]
    MEDIAN_FIELD_NUMBER: _ClassVar[int]
    LOWER_90_FIELD_NUMBER: _ClassVar[int]
    UPPER_90_FIELD_NUMBER: _ClassVar[int]
    PROGRESSED_FIELD_NUMBER: _ClassVar[int]
    RESPONDED_FIELD_NUMBER: _ClassVar[int]
    day: float
    median: float
    lower_90: float
    upper_90: float
    progressed: float
    responded: float
    def __init__(self, day: _Optional[float] = ..., median: _Optional[float] = ..., lower_90: _Optional[float] = ..., upper_90: _Optional[float] = ..., progressed: _Optional[float] = ..., responded: _Optional[float] = ...) -> None: ...
