"""What a feature set may declare: the schema of features/*.yaml, checked when a set is read.

A declaration says which entries count (by analyte, code set, codes or kind), how far back (window), how they become one
value (aggregate), in which unit, what their absence means (missing), and on whose authority (citation).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from typing import Annotated, Any, Literal

import yaml
from osler.fusion.v1 import fusion_pb2
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from services.clinical import units
from services.clinical.terminology import analytes, code_sets
from services.fusion.feature_aggregates import DAYS_IN
from services.fusion.feature_view import parse_duration
from services.platform.errors import RefusedError

DEFAULT_SET = "default"
_FOLDER = "features"
_KIND_NAMES = frozenset(name for name, _ in fusion_pb2.EntryKind.items())
_FILE = re.compile(r"[a-z][a-z0-9_]*")
# Units of declarations that are UCUM for certain: reading them needs no grammar.
_PLAIN = frozenset(("1", "a", "d", "mm", "mm2", "mm3", "mL", "g", "kg", "cm", "{score}", "g/ml{SUVbw}", *DAYS_IN))


def _duration(text: str) -> str:
    parse_duration(text)
    return text


def _code(text: str) -> str:
    if not all(text.rpartition("|")[::2]):
        raise ValueError(f"{text!r} is not a code written as system|code")
    return text


def _known_set(name: str) -> str:
    if name not in code_sets():
        raise ValueError(f"there is no code set {name!r} in services/clinical/terminology/code_sets.yaml")
    return name


def _known_analyte(name: str) -> str:
    if name not in analytes():
        raise ValueError(f"there is no analyte {name!r} in services/clinical/terminology/analytes.yaml")
    return name


def _kind(name: str) -> str:
    if f"ENTRY_KIND_{name}" not in _KIND_NAMES or name == "UNSPECIFIED":
        raise ValueError(f"there is no kind of entry {name!r}")
    return name


def _unit(text: str) -> str:
    if text not in _PLAIN and text not in _analyte_units():
        try:
            units.normalise(text)
        except RefusedError as error:
            raise ValueError(f"{text!r} is no UCUM unit") from error
    return text


@lru_cache(maxsize=1)
def _analyte_units() -> frozenset[str]:
    return frozenset(analyte.unit for analyte in analytes().values())


Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=63)]
Duration = Annotated[str, AfterValidator(_duration)]
CodeText = Annotated[str, AfterValidator(_code)]
CodeSetName = Annotated[str, AfterValidator(_known_set)]
AnalyteName = Annotated[str, AfterValidator(_known_analyte)]
KindName = Annotated[str, AfterValidator(_kind)]
Unit = Annotated[str, AfterValidator(_unit)]
TimeUnit = Literal["a", "mo", "wk", "d", "h"]


class _Declared(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    # Declarations are read once and kept: as keys of caches they are themselves, not their content.
    __eq__ = object.__eq__

    def __hash__(self) -> int:
        return id(self)


class FeatureRow(_Declared):
    """What every feature declares. `unit`: of the values it stands on, UCUM. `citation`: overrides that of the set."""

    name: Name
    unit: Unit = "1"
    citation: str = ""
    note: str = ""

    @property
    def result_unit(self) -> str:
        """The unit of the feature's value."""
        return self.unit


class Demographic(FeatureRow):
    """Age in completed years (`birth_date`, unit "a") or sex (`sex`: true for female)."""

    source: Literal["demographic"]
    field: Literal["birth_date", "sex"]
    missing: Literal["reason"] = "reason"


class Selected(FeatureRow):
    """Entries selected by exactly one of an analyte, a code set or a list of codes."""

    analyte: AnalyteName | None = None
    code_set: CodeSetName | None = None
    codes: tuple[CodeText, ...] = ()


class Observation(Selected):
    """Measured values. `per`: time unit of a slope. `at_least`, `span`: how many values over how long a slope needs."""

    source: Literal["observation"]
    aggregate: Literal["latest", "first", "min", "max", "mean", "sum", "slope", "count", "any", "time_since"]
    window: Duration | None = None
    per: TimeUnit | None = None
    at_least: Annotated[int, Field(ge=1)] = 1
    span: Duration | None = None
    derive: Literal["body_mass_index"] | None = None
    missing: Literal["reason", "zero"] = "reason"

    @property
    def result_unit(self) -> str:
        if self.aggregate in ("count", "any"):
            return "1"
        return f"{self.unit}/{self.per}" if self.aggregate == "slope" else self.unit

    @model_validator(mode="after")
    def _consistent(self) -> Observation:
        if sum((self.analyte is not None, self.code_set is not None, bool(self.codes))) != 1:
            raise ValueError("name exactly one of analyte, code_set and codes")
        _check_slope(self.aggregate, self.per, self.at_least)
        if self.aggregate == "time_since":
            _check_time_unit(self.unit)
        elif self.analyte is not None and self.aggregate not in ("count", "any"):
            _check_convertible(self.analyte, self.unit)
        if self.missing == "zero" and self.aggregate not in ("count", "any"):
            raise ValueError("missing: zero is for count and any; nothing measured is not a value of zero")
        return self


class Answer(FeatureRow):
    """A coded answer to a question, as yes or no; the latest one counts."""

    source: Literal["answer"]
    question: CodeSetName
    when_true: CodeSetName
    when_false: CodeSetName
    window: Duration | None = None
    missing: Literal["reason"] = "reason"


class _Flag(FeatureRow):
    code_set: CodeSetName
    missing: Literal["reason", "false_with_chart"]


class Condition(_Flag):
    """A diagnosis in effect, or with `past` ever; procedures (all, or within a window) and devices where declared."""

    source: Literal["condition"]
    past: bool = False
    procedures: bool = False
    procedure_window: Duration | None = None
    devices: bool = False


class Medication(_Flag):
    """A drug that is being taken."""

    source: Literal["medication"]


class Allergy(_Flag):
    """An allergy that stands."""

    source: Literal["allergy"]


class Pregnancy(_Flag):
    """Pregnancy by conditions, procedures and answers; the newest within the window counts."""

    source: Literal["pregnancy"]
    ended: CodeSetName
    question: CodeSetName
    when_true: CodeSetName
    when_false: CodeSetName
    window: Duration


class Event(FeatureRow):
    """That something happened: entries of a kind, all or those of a code set. Of a procedure that is over, its end."""

    source: Literal["event"]
    kind: KindName
    code_set: CodeSetName | None = None
    aggregate: Literal["any", "count", "time_since"]
    window: Duration | None = None
    missing: Literal["reason", "zero"] = "reason"

    @model_validator(mode="after")
    def _consistent(self) -> Event:
        if self.aggregate == "time_since":
            _check_time_unit(self.unit)
            if self.missing == "zero":
                raise ValueError("missing: zero is for count and any")
        return self


class Finding(FeatureRow):
    """Measurements of imaging findings: `aggregate` within a study, then `visit` over the studies.

    `concept`: the measurement; without it findings are counted. `largest`: how many of the greatest enter. `visit`: of
    the studies in the window that have the measurement the latest, the first, the least, the greatest, or their slope.
    """

    source: Literal["finding"]
    kind: Literal["lesion", "organ", "reference"]
    concept: CodeText | None = None
    finding_type: CodeText | None = None
    aggregate: Literal["sum", "max", "count"]
    largest: Annotated[int, Field(ge=1)] | None = None
    visit: Literal["latest", "first", "min", "max", "slope", "count", "time_since"] = "latest"
    window: Duration | None = None
    per: TimeUnit | None = None
    at_least: Annotated[int, Field(ge=1)] = 1
    span: Duration | None = None
    missing: Literal["reason", "zero_when_analysed"] = "reason"

    @property
    def result_unit(self) -> str:
        if self.visit == "slope":
            return f"{self.unit}/{self.per}"
        return {"count": "1", "time_since": "d"}.get(self.visit, self.unit)

    @model_validator(mode="after")
    def _consistent(self) -> Finding:
        _check_slope(self.visit, self.per, self.at_least)
        if self.concept is None and self.aggregate != "count":
            raise ValueError("without a concept findings can only be counted (aggregate: count)")
        return self


AnyRow = Annotated[
    Demographic | Observation | Answer | Condition | Medication | Allergy | Pregnancy | Event | Finding,
    Field(discriminator="source"),
]


class FeatureSet(_Declared):
    """A named set. `version` goes up with every change of meaning; `chart_kinds`: for each source of flags, the kinds of
    entry that show that a chart is there, which would say so."""

    name: Name
    version: Annotated[int, Field(ge=1)]
    title: Annotated[str, StringConstraints(min_length=1)]
    citation: Annotated[str, StringConstraints(min_length=1)]
    chart_kinds: Mapping[str, tuple[KindName, ...]] = {}
    features: tuple[AnyRow, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> FeatureSet:
        names = [row.name for row in self.features]
        for index, row in enumerate(self.features):
            if row.name in names[:index]:
                raise ValueError(f"the feature {row.name} is declared twice")
            if getattr(row, "missing", "") == "false_with_chart" and not self.chart_kinds.get(row.source):
                raise ValueError(f"{row.name}: missing: false_with_chart needs chart_kinds.{row.source}")
            if getattr(row, "derive", None) and not {"weight_kg", "height_cm"} <= set(names[:index]):
                raise ValueError(f"{row.name}: derive needs weight_kg and height_cm declared before it")
        return self

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that change with any change of the declarations."""
        return hashlib.sha256(self.model_dump_json(exclude_none=True).encode()).hexdigest()[:16]


def _check_slope(how: str, per: str | None, at_least: int) -> None:
    if (how == "slope") != (per is not None):
        raise ValueError("a slope, and nothing else, has per: the unit of time")
    if how == "slope" and at_least < 2:
        raise ValueError("a slope needs at_least: 2 or more values")


def _check_time_unit(unit: str) -> None:
    if unit not in DAYS_IN:
        raise ValueError(f"time_since needs a unit of time ({', '.join(DAYS_IN)}), not {unit!r}")


def _check_convertible(analyte: str, unit: str) -> None:
    if unit == analytes()[analyte].unit:
        return
    try:
        units.convert(1.0, analytes()[analyte].unit, unit, analyte=analyte)
    except RefusedError as error:
        raise ValueError(f"values of {analyte} ({analytes()[analyte].unit}) have no unit {unit!r}") from error


def set_names() -> list[str]:
    """The names of all shipped sets, the default first."""
    files = resources.files("services.fusion").joinpath(_FOLDER).iterdir()
    names = sorted(file.name[:-5] for file in files if file.name.endswith(".yaml"))
    return sorted(names, key=lambda name: name != DEFAULT_SET)


@lru_cache(maxsize=64)
def load_set(name: str = DEFAULT_SET) -> FeatureSet:
    """A shipped set. Raises RefusedError `features.unknown_set`, or `features.bad_set` for one that does not hold."""
    file = resources.files("services.fusion").joinpath(_FOLDER, f"{name}.yaml")
    if not _FILE.fullmatch(name) or not file.is_file():
        raise RefusedError(
            "features.unknown_set",
            "there is no feature set of that name",
            remedy=f"ask for one of {', '.join(set_names())}",
        )
    return parse_set(file.read_text(encoding="utf-8"), name)


def parse_set(text: str, name: str) -> FeatureSet:
    """A set from YAML; `name` is that of its file. Raises RefusedError `features.bad_set` that says where it is wrong."""
    try:
        declared = FeatureSet.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise _bad(name, f"not YAML{f' at line {mark.line + 1}' if mark else ''}") from error
    except ValidationError as error:
        raise _bad(name, "; ".join(_say(problem) for problem in error.errors())) from error
    if declared.name != name:
        raise _bad(name, f"name: the file is {name}.yaml and the set calls itself {declared.name}")
    return declared


def _say(problem: Any) -> str:
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"]).lstrip(".")
    return f"{where}: {problem['msg']}" if where else str(problem["msg"])


def _bad(name: str, what: str) -> RefusedError:
    return RefusedError(
        "features.bad_set",
        f"feature set {name!r}: {what}",
        remedy=f"correct services/fusion/features/{name}.yaml; docs/features.md says what may be declared",
    )


def is_flag(row: FeatureRow) -> bool:
    """Whether a feature is yes or no rather than a number."""
    if isinstance(row, Observation | Event):
        return row.aggregate == "any"
    return isinstance(row, _Flag | Answer) or (isinstance(row, Demographic) and row.field == "sex")
