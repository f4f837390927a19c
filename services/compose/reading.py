"""Figures for people: tables and summaries of a case on the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from osler.imaging.v1 import imaging_pb2
from osler.registration.v1 import registration_pb2
from rich.console import Console
from rich.table import Table

from services.clinical import codes
from services.compose.case import PatientCase


def show(console: Console, cases: Iterable[PatientCase], document: dict[str, Any]) -> None:
    """Prints each patient's case as tables: studies, findings, registrations, predictions, recommendations, refusals."""
    for case in cases:
        console.rule(f"patient {case.patient_key[:12]}")
        _studies(console, case)
        _findings(console, case)
        _registrations(console, case)
        _predictions(console, case)
        _recommendations(console, case)
    _refusals(console, document)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", expand=False)
    for column in columns:
        table.add_column(column)
    return table


def _studies(console: Console, case: PatientCase) -> None:
    if not case.studies:
        return
    table = _table("Studies", "date", "modalities", "series accepted", "warned", "rejected", "findings")
    for uid, study in case.studies.items():
        findings = case.findings.get(uid)
        verdicts = [q.verdict for q in findings.quality] if findings else []
        table.add_row(
            f"{study.study_time.ToDatetime():%Y-%m-%d}" if study.HasField("study_time") else "",
            ", ".join(study.modalities),
            *(
                str(verdicts.count(v))
                for v in (
                    imaging_pb2.QUALITY_VERDICT_ACCEPT,
                    imaging_pb2.QUALITY_VERDICT_WARN,
                    imaging_pb2.QUALITY_VERDICT_REJECT,
                )
            ),
            str(len(findings.findings)) if findings else "not analysed",
        )
    console.print(table)


# What a reader looks for first; the rest is in case.json.
_HEADLINES = {
    c.code: name
    for c, name in (
        (codes.SUV_MAX, "SUVmax"),
        (codes.SUV_PEAK, "SUVpeak"),
        (codes.METABOLIC_VOLUME, "MTV"),
        (codes.TOTAL_LESION_GLYCOLYSIS, "TLG"),
        (codes.VOLUME, "volume"),
        (codes.LONG_AXIS, "long axis"),
        (codes.SHORT_AXIS, "short axis"),
    )
}


def measurement_text(measurement: imaging_pb2.Measurement) -> str:
    """`SUVmax 9.4 g/mL`; volumes in mL."""
    quantity = measurement.value
    value, unit = quantity.value, quantity.unit.split("{")[0]
    if unit == codes.UNIT_MM3:
        value, unit = value / 1000, codes.UNIT_ML
    suffix = "" if unit in ("1", "") else f" {unit}"
    return f"{_HEADLINES.get(measurement.concept.code, measurement.concept.display)} {value:.4g}{suffix}"


def _findings(console: Console, case: PatientCase) -> None:
    findings = [f for study in case.findings.values() for f in study.findings]
    if not findings:
        return
    table = _table("Findings", "date", "finding", "site", "measurements")
    for finding in sorted(findings, key=lambda f: f.observed_at.ToNanoseconds()):
        table.add_row(
            f"{finding.observed_at.ToDatetime():%Y-%m-%d}" if finding.HasField("observed_at") else "",
            finding.tracking_id or finding.finding_type.display,
            finding.site.display,
            ", ".join(measurement_text(m) for m in finding.measurements if m.concept.code in _HEADLINES),
        )
    console.print(table)


def _registrations(console: Console, case: PatientCase) -> None:
    if not case.registrations:
        return
    table = _table("Registrations", "fixed", "moving", "verdict", "rotation", "translation", "predicted error", "why")
    for r in case.registrations.values():
        verdict = registration_pb2.Verdict.Name(r.quality.verdict).removeprefix("VERDICT_").lower()
        table.add_row(
            r.pair.fixed.modality,
            r.pair.moving.modality,
            "refused" if r.HasField("refusal") else verdict,
            f"{r.transform.rotation_deg:.1f} deg" if r.HasField("transform") else "",
            f"{r.transform.translation_mm:.1f} mm" if r.HasField("transform") else "",
            f"{r.quality.predicted_tre_mm:.1f} mm" if r.HasField("quality") else "",
            r.refusal.message if r.HasField("refusal") else "; ".join(r.quality.reasons),
        )
    console.print(table)


def _predictions(console: Console, case: PatientCase) -> None:
    if case.predictions is None:
        return
    table = _table("Predictions", "what", "value", "interval", "note")
    for risk in case.predictions.risks:
        unit, value = risk.value.unit, risk.value.value
        text = f"{100 * value:.1f} %" if unit == "1" else f"{value:.4g} {unit.replace('{1.73_m2}', '1.73 m2')}"
        interval = risk.value.uncertainty.interval
        scale, suffix = (100, " %") if unit == "1" else (1, "")
        has_interval = risk.value.uncertainty.HasField("interval")
        table.add_row(
            risk.title or risk.name,
            "" if risk.HasField("refusal") else text,
            f"{scale * interval.lower:.3g} to {scale * interval.upper:.3g}{suffix}" if has_interval else "",
            risk.refusal.message if risk.HasField("refusal") else "; ".join(risk.cautions),
        )
    for forecast in case.predictions.forecasts:
        refused = forecast.HasField("refusal")
        table.add_row(
            f"progression ({forecast.quantity})",
            "" if refused else f"{100 * forecast.probability_of_progression:.0f} %",
            "",
            forecast.refusal.message if refused else f"by {forecast.horizon.ToDatetime():%Y-%m-%d}",
        )
    console.print(table)


def _recommendations(console: Console, case: PatientCase) -> None:
    if case.advice is None:
        return
    if case.advice.responses:
        table = _table("Response", "criterion", "category", "change", "explanation")
        for response in case.advice.responses:
            refused = response.HasField("refusal")
            table.add_row(
                response.criterion,
                "not assessed" if refused else response.label,
                "" if refused else f"{response.change_percent:+.0f} %",
                response.refusal.message if refused else response.explanation,
            )
        console.print(table)
    table = _table("Recommendations", "urgency", "what", "why")
    for r in sorted(case.advice.recommendations, key=lambda r: -r.urgency):
        urgency = {1: "info", 2: "warning", 3: "critical"}.get(r.urgency, "")
        table.add_row(urgency, r.summary, "; ".join(e.statement for e in r.evidence))
    console.print(table)


def _refusals(console: Console, document: dict[str, Any]) -> None:
    rows = [*document["errors"], *(e for p in document["patients"] for e in p["errors"])]
    if not rows:
        return
    table = _table("Refused", "what", "reason", "message", "what to do")
    for row in rows:
        table.add_row(
            str(row.get("subject", ""))[-24:], row.get("reason", ""), row.get("message", ""), row.get("remedy", "")
        )
    console.print(table)
