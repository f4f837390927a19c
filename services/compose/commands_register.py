"""The command `register`: one pair of series, aligned, judged and written as DICOM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from services.compose.console import Json, print_json, wide_console

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from services.clinical.volume import ImageVolume
    from services.platform.errors import RefusedError
    from services.registration.align import Alignment

_EPILOG = """
**Examples**

`osler register CT/ PET/ --out aligned` verifies and refines a PET-CT.

`osler register today/ last/ --method diffeo --out change` bends last visit's scan onto today's, with a growth map.

`osler register CT/ MR/ --out aligned --structures MR_RTSTRUCT.dcm` carries the regions drawn on MR over to CT.

**What is written**: `registration.dcm` (Spatial Registration, or Deformable Spatial Registration), `resampled/` (the moving
series on the fixed grid, DICOM), `report.json` (matrix, verdict, every figure), `growth.nii.gz` (Jacobian determinant, for
deformations), `segmentation.dcm` (with --structures).

The verdict is good, review or failed; a failed pair is refused and nothing is written. Exit status 1 when it is refused.
"""

_METHOD_HELP = "rigid: turn and shift; affine: stretch and shear too; bspline, diffeo: bend (diffeo can be undone)."


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(epilog=_EPILOG)(register)


def register(
    fixed: Annotated[Path, typer.Argument(help="Folder with one DICOM series, which stays where it is.")],
    moving: Annotated[Path, typer.Argument(help="Folder with the DICOM series to bring onto it.")],
    out: Annotated[Path, typer.Option(help="Folder to write to; made when absent.")],
    method: Annotated[Literal["rigid", "affine", "bspline", "diffeo"], typer.Option(help=_METHOD_HELP)] = "rigid",
    follow_up: Annotated[
        bool, typer.Option("--follow-up", help="The two series are of different visits, not of one session.")
    ] = False,
    structures: Annotated[
        Path | None, typer.Option(help="RT Structure Set or SEG of the moving series, to carry over.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
    as_json: Json = False,
) -> None:
    """Aligns two series of one patient and says how far to trust it."""
    from services.platform.errors import RefusedError

    try:
        report = _run(fixed, moving, out, method, follow_up, structures, threads, quiet=as_json)
    except RefusedError as refusal:
        _refuse(refusal, as_json=as_json)
        raise typer.Exit(1) from None
    if as_json:
        print_json(report)
        return
    _show(report, out)


def _run(
    fixed: Path,
    moving: Path,
    out: Path,
    method: str,
    follow_up: bool,
    structures: Path | None,
    threads: int,
    *,
    quiet: bool,
) -> dict[str, Any]:
    from services.registration.align import Method, accepted, align
    from services.registration.plan import Purpose

    sides = [read_series(folder) for folder in (fixed, moving)]
    _one_patient(*(datasets for datasets, _ in sides))
    volumes = [volume for _, volume in sides]
    console = wide_console(stderr=True)

    def progress(stage: str, fraction: float) -> None:
        if not quiet:
            status.update(f"{stage} {100 * fraction:.0f} %")

    with console.status("reading") as status:
        purpose = Purpose.FOLLOW_UP if follow_up else Purpose.HYBRID
        found = align(*volumes, purpose=purpose, method=Method(method), threads=threads, progress=progress)
    accepted(found)
    report = document(found)
    _write(out, sides, found, report, structures)
    return report


def read_series(folder: Path) -> tuple[list[Dataset], ImageVolume]:
    """The DICOM images of a folder and their volume. Raises RefusedError `register.no_images`, `series.*`."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    from services.clinical.dicom.series import load_series
    from services.platform.errors import RefusedError

    found: list[Dataset] = []
    for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
        if path.is_file():
            try:
                dataset = pydicom.dcmread(path)
            except InvalidDicomError:
                continue
            if "PixelData" in dataset:
                found.append(dataset)
    if not found:
        raise RefusedError(
            "register.no_images",
            "the folder holds no DICOM images",
            remedy="name a folder with the instances of one series",
            subject=folder.name,
        )
    return found, load_series(found)


def _one_patient(fixed: list[Dataset], moving: list[Dataset]) -> None:
    """Raises RefusedError `registration.different_patients`: by identifier and issuer, never shown."""
    from services.platform.errors import RefusedError

    keys = [(str(side[0].get("PatientID", "")), str(side[0].get("IssuerOfPatientID", ""))) for side in (fixed, moving)]
    if keys[0] != keys[1]:
        raise RefusedError(
            "registration.different_patients",
            "the two series belong to different patients",
            remedy="register series of one patient; merge the patients first when they are one",
        )


def document(found: Alignment) -> dict[str, Any]:
    """The alignment as JSON."""
    from dataclasses import asdict

    from services.registration.geometry import rotation_deg

    judgement = found.judgement
    return {
        "method": found.method.label,
        "verdict": judgement.verdict.value,
        "reasons": list(judgement.reasons),
        "matrix_fixed_to_moving_lps_mm": found.matrix.tolist(),
        "rotation_deg": rotation_deg(found.matrix) if found.method.value == "rigid" else None,
        "shift_mm": judgement.measures.shift_mm,
        "predicted_tre_mm": judgement.measures.predicted_tre_mm,
        "measures": asdict(judgement.measures),
        "deformation": asdict(judgement.bent) if judgement.bent is not None else None,
        "seconds": found.seconds,
    }


def _write(
    out: Path,
    sides: list[tuple[list[Dataset], ImageVolume]],
    found: Alignment,
    report: dict[str, Any],
    structures: Path | None,
) -> None:
    from datetime import UTC, datetime

    from services.clinical.dicom.derived import ObjectIdentity, derived_uid, to_bytes
    from services.registration import products
    from services.registration.resample import growth_map, resample

    (fixed_sets, fixed), (moving_sets, moving) = sides
    made_at = datetime.now(UTC)
    cause = (fixed.series_instance_uid, moving.series_instance_uid, found.method.label)

    def identity(kind: str, number: int) -> ObjectIdentity:
        uids = (derived_uid(f"{kind}-series", *cause), derived_uid(kind, *cause))
        return ObjectIdentity(*uids, number, 1, f"{moving.modality} on {fixed.modality}", made_at)

    transform = found.deformation if found.deformation is not None else found.matrix
    (out / "resampled").mkdir(parents=True, exist_ok=True)
    if found.deformation is None:
        reg = products.spatial_registration(fixed_sets, moving_sets, found.matrix, identity("reg", 9800))
    else:
        reg = products.deformable_registration(fixed_sets, moving_sets, found.deformation, identity("reg", 9800))
        _save_nifti(growth_map(found.deformation, fixed), out / "growth.nii.gz")
    (out / "registration.dcm").write_bytes(to_bytes(reg))
    volume = resample(moving, fixed, transform)
    for dataset in products.derived_series(volume, fixed_sets, moving_sets, identity("resampled", 9801)):
        (out / "resampled" / f"{int(dataset.InstanceNumber):04d}.dcm").write_bytes(to_bytes(dataset))
    if structures is not None:
        regions = products.carried_regions(structures.read_bytes(), moving, fixed, transform)
        made = products.segmentation(fixed_sets, regions, identity("carried", 9802))
        (out / "segmentation.dcm").write_bytes(to_bytes(made))
        report["regions"] = [{"label": label, "voxels": int(mask.sum())} for label, mask in regions]
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _save_nifti(volume: ImageVolume, path: Path) -> None:
    import SimpleITK as sitk  # noqa: N813 - its customary name

    from services.registration.geometry import to_sitk

    sitk.WriteImage(to_sitk(volume), str(path))


def _refuse(refusal: RefusedError, *, as_json: bool) -> None:
    if as_json:
        names = ("reason", "message", "missing", "remedy", "subject")
        print_json({"refusal": {name: getattr(refusal, name) for name in names}})
        return
    console = wide_console(stderr=True)
    console.print(f"osler: {refusal.message} [{refusal.reason}]", style="red", markup=False, highlight=False)
    if refusal.remedy:
        console.print(f"  {refusal.remedy}", markup=False, highlight=False)


def _show(report: dict[str, Any], out: Path) -> None:
    console = wide_console()
    console.print(f"{report['verdict']}: predicted error {report['predicted_tre_mm']:.1f} mm", style="bold")
    for reason in report["reasons"]:
        console.print(f"  {reason}", markup=False, highlight=False)
    if report["rotation_deg"] is not None:
        console.print(f"  turn {report['rotation_deg']:.2f} degrees, shift {report['shift_mm']:.2f} mm")
    if report["deformation"] is not None:
        bent = report["deformation"]
        console.print(
            f"  bends {bent['displacement_mm']:.1f} mm on average; volume changes by {bent['jacobian_min']:.2f} to "
            f"{bent['jacobian_max']:.2f}; folded {bent['folding_fraction']:.2%}"
        )
    console.print(f"  {report['seconds']:.1f} s; written to {out}", markup=False, highlight=False)
