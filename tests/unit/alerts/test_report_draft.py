"""The demo patient's report: drafted from recorded events, edited, signed, and in every form that people and machines read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date
from io import BytesIO
from pathlib import Path

import docx
import highdicom as hd
import pytest
from fhir.resources.R4B.diagnosticreport import DiagnosticReport
from osler.advisor.v1 import advisor_pb2
from osler.events.v1 import events_pb2
from osler.fusion.v1 import fusion_pb2
from osler.imaging.v1 import imaging_pb2
from osler.ingest.v1 import ingest_pb2
from typer.testing import CliRunner

from pipelines.cohort import demo
from services.alerts import worklist_store
from services.alerts.reports import drafting, html, measured, pdf, present
from services.alerts.reports.desk import ReportDesk, Stored
from services.alerts.reports.differences import between
from services.alerts.reports.model import Line, Report, Section, digest, from_json, to_json
from services.alerts.reports.output import Printer
from services.cli import app
from services.clinical import codes
from services.compose.rooms import Foundations, lay_foundations, migrate_all
from services.platform.config import Settings
from services.platform.errors import RefusedError
from tests.fixtures import demo_case

BY = "reader-1"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def foundations(home: Path) -> Iterator[Foundations]:
    found = lay_foundations(Settings.load(home=home))
    migrate_all(found.database, ["alerts"])
    yield found
    found.close()


@pytest.fixture(scope="module")
def case(foundations: Foundations) -> demo_case.DemoCase:
    made = demo_case.build(foundations)
    demo_case.announce(foundations, made)
    demo_case.drain_alerts(foundations)
    return made


@pytest.fixture(scope="module")
def desk(foundations: Foundations, case: demo_case.DemoCase) -> ReportDesk:
    return ReportDesk(foundations.database, foundations.blobs)


@pytest.fixture(scope="module")
def drafted(desk: ReportDesk, case: demo_case.DemoCase) -> Stored:
    return desk.draft(case.manifests[1].study_instance_uid)


@pytest.fixture(scope="module")
def printer(desk: ReportDesk, foundations: Foundations) -> Printer:
    return Printer(desk, foundations.blobs)


def text(stored: Stored, name: str) -> str:
    return "\n".join(line.text for line in stored.latest.report.section(name).lines)


def test_the_sections_stand_in_reading_order(drafted: Stored) -> None:
    assert [section.name for section in drafted.latest.report.sections] == [
        "critical", "clinical", "technique", "comparison", "findings", "impression", "recommendations", "limitations",
    ]  # fmt: skip
    assert drafted.status == "preliminary"


def test_the_findings_are_the_truth_of_the_cohort(drafted: Stored) -> None:
    """Every lesion with its diameter and uptake at both visits, as the cohort made it."""
    before, after = (visit.lesions for visit in demo.visits())
    for earlier, now in zip(before, after, strict=True):
        (line,) = [x for x in drafted.latest.report.section("findings").lines if x.text.startswith(now.name)]
        change = round(100 * (now.diameter_mm / earlier.diameter_mm - 1))
        expected = (
            f"Long axis {now.diameter_mm:.0f} mm (previously {earlier.diameter_mm:.0f} mm on 2 Jun 2026, −{-change}"
        )
        assert expected in line.text
        assert f"SUVmax {now.suv:.1f} (previously {earlier.suv:.1f}" in line.text
        assert ": smaller." in line.text
        assert len(line.sources) == 4


def test_the_table_tells_the_same(drafted: Stored) -> None:
    table = drafted.latest.report.section("findings").table
    assert table is not None
    assert table.columns[:2] == ("Lesion", "Long axis, mm")
    assert {row[0]: row[1].replace("\u00a0", " ") for row in table.rows}["Lesion 1 liver"] == "24 (34, −29 %)"


def test_comparison_names_the_earlier_study_and_its_distance(drafted: Stored) -> None:
    assert text(drafted, "comparison") == "PET/CT and MR, whole body of 2 Jun 2026 (84 days earlier)."


def test_the_impression_gives_the_response_with_its_arithmetic(drafted: Stored) -> None:
    lines = text(drafted, "impression")
    assert "RECIST 1.1: PR (partial response). Sum of 3 target lesion(s) 83.0 mm at baseline" in lines
    assert "PERCIST 1.0: PMR (partial response)" in lines
    assert "the largest: Lesion 1 liver, long axis 24 mm" in lines


def test_the_chart_speaks_where_it_matters(drafted: Stored) -> None:
    lines = text(drafted, "clinical")
    assert "61 years, female, synthetic data" in lines
    assert "Malignant neoplasm of colon" in lines
    assert "Creatinine 2.1 mg/dL (24 Aug 2026" in lines


def test_advice_comes_with_strength_and_source(drafted: Stored) -> None:
    lines = drafted.latest.report.section("recommendations").lines
    assert "FDG PET/CT again in 6 weeks" in lines[0].text
    assert any("eGFR 26: before iodinated contrast" in line.text and "ACR" in line.text for line in lines)
    assert "Not known, and looked for:" in lines[-1].text


def test_what_was_not_read_is_said(drafted: Stored) -> None:
    assert "Not read by Osler: MR T1 axial (whole-region MR without contours)." in text(drafted, "limitations")
    assert "RTSTRUCT" not in text(drafted, "limitations")


def test_a_baseline_says_that_there_is_nothing_to_compare_with(desk: ReportDesk, case: demo_case.DemoCase) -> None:
    baseline = desk.draft(case.manifests[0].study_instance_uid)
    assert text(baseline, "comparison") == "No earlier study is known to Osler."
    assert "change cannot be judged" in text(baseline, "impression")
    assert "previously" not in text(baseline, "findings")


def test_an_earlier_study_is_reported_with_what_was_so_on_its_day(desk: ReportDesk, case: demo_case.DemoCase) -> None:
    baseline = desk.draft(case.manifests[0].study_instance_uid)
    assert "Malignant neoplasm of colon" in text(baseline, "clinical")
    assert "neoplasm of liver" not in text(baseline, "clinical")
    assert "oxaliplatin" not in text(baseline, "clinical")
    assert "CEA 48.2 ng/mL" in text(baseline, "clinical")
    assert text(baseline, "recommendations").startswith("A later study of this patient is known")
    assert "PERCIST" not in text(baseline, "recommendations")


def test_drafting_again_shows_the_same_report(desk: ReportDesk, drafted: Stored) -> None:
    again = desk.draft(drafted.row.study_instance_uid)
    assert (again.row.report_id, again.latest.version) == (drafted.row.report_id, drafted.latest.version)


def test_no_name_is_stored_in_a_report(drafted: Stored) -> None:
    content = to_json(drafted.latest.report).decode().lower()
    assert demo.PERSON.record_number.lower() not in content
    assert "demo synthetic" not in content
    assert from_json(content.encode()).patient_key == drafted.row.patient_key


def test_an_unknown_study_is_refused(desk: ReportDesk) -> None:
    with pytest.raises(RefusedError) as error:
        desk.draft("1.2.3")
    assert error.value.reason == "report.unknown_study"


def test_only_a_person_edits_and_signs(desk: ReportDesk, drafted: Stored) -> None:
    for by in ("", "osler", "room:advisor"):
        with pytest.raises(RefusedError, match="only a person"):
            desk.edit(drafted.row.report_id, 1, {"impression": ["Stable."]}, by=by)
        with pytest.raises(RefusedError, match="only a person"):
            desk.sign(drafted.row.report_id, 1, drafted.latest.body_sha256, by=by)


@pytest.mark.parametrize(
    ("section", "lines", "reason"),
    [
        ("opinion", ["x"], "report.no_section"),
        ("impression", ["  "], "report.bad_text"),
        ("impression", ["x" * 4001], "report.bad_text"),
        ("impression", ["x"] * 201, "report.bad_text"),
    ],
)
def test_edits_that_do_not_fit_are_refused(
    desk: ReportDesk, drafted: Stored, section: str, lines: list[str], reason: str
) -> None:
    with pytest.raises(RefusedError) as error:
        desk.edit(drafted.row.report_id, 1, {section: lines}, by=BY)
    assert error.value.reason == reason


def test_forms_of_a_draft_say_that_it_is_one(drafted: Stored, printer: Printer) -> None:
    page = printer.make(drafted, "html").content.decode()
    assert "DRAFT: not read and not signed" in page
    assert "Synthetic, Demo (synthetic)" in page
    word = docx.Document(BytesIO(printer.make(drafted, "docx").content))
    assert word.paragraphs[0].text.startswith("DRAFT")
    assert next(p.text for p in word.paragraphs if p.style.name == "Heading 1") == "Critical results"
    assert word.tables[1].cell(0, 0).text == "Lesion"
    assert printer.make(drafted, "pdf").content.startswith(b"%PDF-")
    resource = json.loads(printer.make(drafted, "fhir").content)
    assert DiagnosticReport.model_validate(resource).status == "preliminary"
    report = hd.sr.srread(BytesIO(printer.make(drafted, "sr").content))
    assert (report.PreliminaryFlag, report.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")


def test_text_is_escaped_and_what_a_font_cannot_show_is_refused(drafted: Stored, printer: Printer) -> None:
    nasty = replace(drafted.latest.report, sections=(Section("findings", (Line("<script>x</script> 胸部"),)),))
    shown = present.shown(replace(drafted.latest, report=nasty), "preliminary", demo_demographics())
    assert b"<script>" not in html.render(shown)
    with pytest.raises(RefusedError, match=r"U\+80F8"):
        pdf.render(shown)


def demo_demographics() -> fusion_pb2.Demographics:
    return fusion_pb2.Demographics(family_name="Synthetic", given_name="Demo", sex="female")


def test_a_report_is_edited_signed_and_amended(
    desk: ReportDesk, case: demo_case.DemoCase, printer: Printer, foundations: Foundations
) -> None:
    first = desk.draft(case.manifests[0].study_instance_uid)
    identity = first.row.report_id
    kept = [line.text for line in first.latest.report.section("impression").lines]
    edited = desk.edit(identity, 1, {"impression": ["Metastases.", *kept]}, by=BY, drop_tables=["findings"])
    assert edited.latest.report.section("impression").lines[0] == Line("Metastases.")
    assert edited.latest.report.section("impression").lines[1].sources
    assert edited.status == "preliminary"
    with pytest.raises(RefusedError, match="changed since"):
        desk.edit(identity, 1, {"impression": ["Late."]}, by="reader-2")
    with pytest.raises(RefusedError, match="changed since"):
        desk.sign(identity, 1, first.latest.body_sha256, by=BY)
    with pytest.raises(RefusedError, match="lose that work"):
        desk.draft(first.row.study_instance_uid, redraft=True)

    signed = desk.sign(identity, 2, digest(edited.latest.report), by=BY)
    assert (signed.status, signed.latest.signed_by) == ("final", BY)
    assert desk.sign(identity, 2, edited.latest.body_sha256, by=BY).latest.signed_at == signed.latest.signed_at
    difference = desk.differences(identity)
    assert [(c.section, c.added, c.table_dropped) for c in difference.changes] == [
        ("findings", (), True),
        ("impression", ("Metastases.",), False),
    ]
    with foundations.database.session() as session:
        items = worklist_store.workitems(session, study_uid=first.row.study_instance_uid)
    assert [(item.state, item.performer) for item in items] == [("COMPLETED", BY)]

    resource = json.loads(printer.make(signed, "fhir").content)
    assert DiagnosticReport.model_validate(resource).status == "final"
    assert "contained" not in resource
    report = hd.sr.srread(BytesIO(printer.make(signed, "sr").content))
    assert (report.PreliminaryFlag, report.VerificationFlag) == ("FINAL", "VERIFIED")
    assert b"DRAFT" not in printer.make(signed, "html").content

    changed = desk.edit(identity, 2, {"impression": ["Metastases in liver."]}, by=BY)
    assert changed.status == "final"
    assert printer.make(changed, "html").name.endswith("v2.html")
    assert b"CHANGED AND NOT SIGNED" in printer.make(changed, "html", version=3).content
    assert json.loads(printer.make(changed, "fhir", version=3).content)["status"] == "preliminary"
    amended = desk.sign(identity, 3, changed.latest.body_sha256, by=BY)
    assert amended.status == "amended"


def test_a_critical_finding_stands_on_top_and_blocks_the_signature_until_it_is_decided(
    desk: ReportDesk, case: demo_case.DemoCase, foundations: Foundations
) -> None:
    uid = case.manifests[1].study_instance_uid
    found = imaging_pb2.StudyFindings()
    found.CopyFrom(case.findings[1])
    found.study_revision = 2
    extra = found.findings.add()
    extra.CopyFrom(found.findings[0])
    extra.finding_id, extra.tracking_id, extra.tracking_uid = "2.25.1", "Pneumothorax", "2.25.2"
    extra.finding_type.code, extra.finding_type.display = "36118008", "Pneumothorax"
    extra.site.display = "Lung"
    extra.ClearField("measurements")
    demo_case.publish(foundations, case.key, [events_pb2.FindingsReady(findings=found)])
    demo_case.drain_alerts(foundations)

    with foundations.database.session() as session:
        (first, *_) = worklist_store.workitems(session, kinds=["reading"], states=["SCHEDULED"])
    assert (first.study_instance_uid, first.reasons[0].text) == (uid, "Pneumothorax, lung")
    stored = desk.draft(uid, redraft=True)
    assert text(stored, "critical") == "Pneumothorax, lung. Urgent: tell within 12 hours (ACR category 2)."
    impression = [line.text for line in stored.latest.report.section("impression").lines]
    assert impression[0] == "Pneumothorax, lung."
    assert impression[-2:] == [
        "3 lesions measured; the largest: Lesion 1 liver, long axis 24 mm.",
        "Present and not measured: Pneumothorax (lung).",
    ]
    with pytest.raises(RefusedError) as error:
        desk.sign(stored.row.report_id, stored.latest.version, stored.latest.body_sha256, by=BY)
    assert error.value.reason == "report.critical_undecided"
    (task,) = desk.communications(report_id=stored.row.report_id)
    desk.act(task.item.task_id, "confirm", by=BY, recipient="Dr Who, ward 4")
    assert desk.sign(stored.row.report_id, stored.latest.version, stored.latest.body_sha256, by=BY).status == "final"


def test_differences_count_what_stands() -> None:
    def report(*lines: str) -> Report:
        return Report("1.2", "p", "", (), "", (Section("impression", tuple(Line(x) for x in lines)),))

    found = between(report("a", "b", "c"), report("a", "x", "c", "d"))
    assert found.kept_share == pytest.approx(2 / 3, abs=1e-4)
    assert (found.changes[0].removed, found.changes[0].added) == (("b",), ("x", "d"))
    assert between(report("a"), report("a")).changes == ()


def test_the_command_line_drafts_the_demo_patient(home: Path, drafted: Stored, tmp_path: Path) -> None:
    arguments = ["--home", str(home), "report", "draft", drafted.row.study_instance_uid[-8:], "--out", str(tmp_path)]
    result = CliRunner().invoke(app, [*arguments, "--forms", "html,sr", "--json"])
    assert result.exit_code == 0, result.output
    (made,) = json.loads(result.output)["reports"]
    assert made["report_id"] == drafted.row.report_id
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".dcm", ".html"]


def test_advice_that_waits_is_not_taken_for_none(case: demo_case.DemoCase, desk: ReportDesk) -> None:
    visit = drafting.Visit(case.manifests[0], case.findings[0], case.manifests[0].study_time.ToDatetime(UTC))
    without = drafting.draft(drafting.Case(visit, case.snapshot), date(2026, 8, 25))
    assert [x.text for x in without.section("recommendations").lines] == [
        "No advice has been made yet for this patient."
    ]
    empty = advisor_pb2.PatientAdvice(patient_key=case.key)
    none = drafting.draft(drafting.Case(visit, case.snapshot, empty), date(2026, 8, 25))
    assert none.section("recommendations").lines[0].text.startswith("None from the rules")


def of(name: str, concept: codes.Concept, value: float, unit: str, kind: int) -> imaging_pb2.Finding:
    found = imaging_pb2.Finding(finding_id=f"id-{name}", kind=kind, tracking_id=name, tracking_uid=f"uid-{name}")
    found.measurements.add(concept=concept.proto, value={"value": value, "unit": unit})
    return found


def test_one_mass_drawn_on_three_images_is_one_lesion() -> None:
    """As the contours of the public soft-tissue sarcoma set are named."""
    lesion = imaging_pb2.FINDING_KIND_LESION
    found = measured.things(
        [
            of("GTV_Mass_CT", codes.LONG_AXIS, 105.0, "mm", lesion),
            of("GTV_Mass_MR_T1", codes.LONG_AXIS, 104.0, "mm", lesion),
            of("GTV_Mass_PET", codes.SUV_MAX, 10.2, codes.UNIT_SUV_BW, lesion),
            of("GTV_Node_CT", codes.LONG_AXIS, 12.0, "mm", lesion),
        ]
    )
    assert [(thing.label, thing.values) for thing in found.values()] == [
        ("GTV Mass", {"LONG_AXIS": 105.0, "SUV_MAX": 10.2}),
        ("GTV Node", {"LONG_AXIS": 12.0}),
    ]
    assert found["label:gtv mass"].finding_ids == ["id-GTV_Mass_CT", "id-GTV_Mass_MR_T1", "id-GTV_Mass_PET"]


def test_organs_without_lesions_are_the_impression(case: demo_case.DemoCase) -> None:
    findings = imaging_pb2.StudyFindings(study_instance_uid="1.2", patient_key=case.key)
    findings.findings.append(of("hippocampus", codes.VOLUME, 3600.0, "mm3", imaging_pb2.FINDING_KIND_ORGAN))
    manifest = ingest_pb2.StudyManifest(study_instance_uid="1.2", patient_key=case.key)
    made = drafting.draft(drafting.Case(drafting.Visit(manifest, findings, None), case.snapshot), date(2026, 8, 25))
    assert [line.text for line in made.section("impression").lines] == [
        "No lesion was measured by Osler. Measured: hippocampus volume 3.6 mL."
    ]
    assert made.study_date == ""


@pytest.mark.parametrize(
    ("now", "word"), [(22.0, "unchanged"), (22.1, "larger"), (18.0, "unchanged"), (17.9, "smaller")]
)
def test_the_words_for_change_turn_at_ten_percent(now: float, word: str) -> None:
    lesion = imaging_pb2.FINDING_KIND_LESION
    earlier = measured.earlier_of([(date(2026, 1, 1), [of("a", codes.LONG_AXIS, 20.0, "mm", lesion)])])
    (line,) = measured.lines(measured.things([of("a", codes.LONG_AXIS, now, "mm", lesion)]), earlier)
    assert line.text.startswith(f"a: {word}. Long axis")


def test_a_lesion_that_is_gone_and_one_that_is_new_are_told() -> None:
    lesion = imaging_pb2.FINDING_KIND_LESION
    earlier = measured.earlier_of([(date(2026, 1, 1), [of("a", codes.LONG_AXIS, 20.0, "mm", lesion)])])
    found = measured.lines(measured.things([of("b", codes.LONG_AXIS, 9.0, "mm", lesion)]), earlier)
    assert [line.text for line in found] == [
        "b: not among the lesions measured before. Long axis 9 mm.",
        "a: measured on 1 Jan 2026 (Long axis 20 mm) and not on this study; whether it has resolved must be read.",
    ]


def test_what_the_category_counts_as_one_lesion_the_report_does_too() -> None:
    """Names differ between visits and readers; the advisor joined the lesion by its place."""
    lesion = imaging_pb2.FINDING_KIND_LESION
    lesions = {"id-GTV-1": "uid-GTV-1", "id-big one_CT": "uid-GTV-1", "id-apart": "of its own"}
    earlier = measured.earlier_of([(date(2026, 1, 1), [of("GTV-1", codes.LONG_AXIS, 20.0, "mm", lesion)])], lesions)
    now = [
        of("big one_CT", codes.LONG_AXIS, 10.0, "mm", lesion),
        of("big one_PET", codes.SUV_MAX, 4.0, codes.UNIT_SUV_BW, lesion),
        of("apart", codes.LONG_AXIS, 9.0, "mm", lesion),
    ]
    found = [line.text.replace("\u00a0", " ") for line in measured.lines(measured.things(now, lesions), earlier)]
    assert found == [
        "apart: not among the lesions measured before. Long axis 9 mm.",
        "big one: smaller. Long axis 10 mm (previously 20 mm on 1 Jan 2026, −50 %); SUVmax 4.0."
        " The same lesion was named GTV-1 then.",
    ]
