"""Commands `twin validate`, `twin outcome` and `twin glioma`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.compose.console import Json, context_of, print_json, print_rows, wide_console
from services.platform.errors import OslerError, RefusedError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from services.twin.glioma_case import Fractions, GliomaCase
    from services.twin.glioma_fit import Visit
    from services.twin.glioma_forecast import GliomaForecast
    from services.twin.nifti import Volume
    from services.twin.survival import OutcomeModel
    from services.twin.validation_report import Report


def register(app: typer.Typer) -> None:
    """Adds the commands to `osler twin`."""
    app.command()(validate)
    app.command()(outcome)
    app.command()(glioma)


def validate(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder to write the reports to.")],
    data: Annotated[
        Path | None,
        typer.Option(
            envvar="OSLER_SHARED_DATA", help="Folder of data sets, laid out as docs/development.md says.", exists=True
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Only this model; repeat for more. `glioma`, `heart` and `growth` are three of them."),
    ] = None,
    virtual_patients: Annotated[
        int, typer.Option(min=20, help="Virtual gliomas to recover, and hearts (100 at most).")
    ] = 500,
    again: Annotated[
        bool, typer.Option("--again", help="Also what the folder already holds from the same code and data.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Validates every model of the twin that the data allow, and writes a report for each: Markdown, HTML, figures, numbers.

    Outcome models are judged by nested cross-validation on the patients in the folder; shipped weights also on patients that
    they were not fitted to, where there are any. The tumour twin predicts every later size from the earlier ones. Without
    --data only what needs none is validated. Some ten minutes of one core; deterministic. Broken off and started again with
    the same --out it goes on with the model at which it stopped.

    Example: osler twin validate --data DIR --out reports --model sarcoma-lung-metastasis
    """
    from services.twin.validation_report import Made, write, write_index, written

    jobs = _jobs(data, context_of(ctx).settings().models.path, virtual_patients)
    unknown = sorted(set(model or ()) - set(jobs))
    if unknown:
        raise OslerError(f"no model {', '.join(unknown)}; known: {', '.join(jobs)}")
    reports: list[Made] = []
    left_out: dict[str, str] = {}
    origin = _made_from(data, virtual_patients)
    with _progress() as bars:
        for name in model or list(jobs):
            task = bars.add_task(name, total=None)
            known = None if again else written(name, out, origin)
            try:
                reports.append(known or write(jobs[name](partial(_describe, bars, task)), out, origin))
            except RefusedError as refusal:
                left_out[name] = refusal.message
            bars.remove_task(task)
    write_index(reports, left_out, out)
    rows = [{"model": report.name, "verdict": report.verdict} for report in reports]
    if as_json:
        print_json(
            {"reports": {report.name: report.figures for report in reports}, "left_out": left_out, "folder": out}
        )
        return
    print_rows("Validated", rows, "nothing could be validated")
    for name, reason in left_out.items():
        wide_console().print(f"{name}: not looked at: {reason}", style="dim")
    wide_console().print(f"reports: {out / 'index.md'}")


def _describe(bars: Progress, task: TaskID, text: str) -> None:
    bars.update(task, description=text)


def _progress() -> Progress:
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    return Progress(*columns, console=wide_console(stderr=True), transient=True)


def _made_from(data: Path | None, virtual_patients: int) -> str:
    """Digest of what the reports depend on: code and tables of the twin, the data's files (name, size), the options."""
    import hashlib

    root = Path(__file__).parents[2]
    digest = hashlib.sha256(str(virtual_patients).encode())
    for folder in ("services/twin", "pipelines/twin", "pipelines/survival"):
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in (".py", ".yaml"):
                digest.update(path.read_bytes())
    if data is None:
        return digest.hexdigest()
    for name in ("tumour-growth", "sts-petctmr"):
        for path in sorted((data / name).rglob("*")):
            digest.update(f"{path.relative_to(data)} {path.stat().st_size}".encode())
    return digest.hexdigest()


Say = Callable[[str], None]
_VIRTUAL_HEARTS = 100


def _jobs(data: Path | None, models: Path, virtual_patients: int) -> dict[str, Callable[[Say], Report]]:
    from pipelines.survival.data import plan

    def glioma_report(say: Say) -> Report:
        from services.twin import validation_glioma

        return validation_glioma.report(
            virtual_patients, progress=lambda done, of: say(f"glioma: {done} of {of} patients")
        )

    def heart_report(say: Say) -> Report:
        from services.twin import validation_heart

        patients = min(virtual_patients, _VIRTUAL_HEARTS)
        return validation_heart.report(patients, progress=lambda done, of: say(f"heart: {done} of {of} patients"))

    def growth_report(say: Say) -> Report:
        from pipelines.survival.growth import report

        return report(_needed(data) / "tumour-growth", say)

    def outcome_report(name: str, say: Say) -> Report:
        from pipelines.survival import judge, nested
        from pipelines.survival.data import read
        from pipelines.survival.report import report
        from services.twin.survival import load

        cohort = read(name, _needed(data))
        held = nested.held_out(cohort, progress=say)
        known = models / name / "metadata.json"
        shipped = known.is_file() and json.loads(known.read_text(encoding="utf-8"))["status"] != "not shipped"
        say(f"{name}: intervals")
        return report(cohort, held, judge.figures(cohort, held), load(models / name) if shipped else None)

    jobs: dict[str, Callable[[Say], Report]] = {
        "glioma": glioma_report,
        "heart": heart_report,
        "growth": growth_report,
    }
    for name in plan()["studies"]:
        jobs[name] = partial(outcome_report, name)
    return jobs


def _needed(data: Path | None) -> Path:
    if data is None:
        raise RefusedError("validation.no_data", "it needs the data sets: give --data DIR", missing=["--data"])
    return data


def outcome(
    ctx: typer.Context,
    model: Annotated[
        str,
        typer.Argument(help="A shipped model, for example pbc-transplant-free-survival; without it they are listed."),
    ] = "",
    value: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", help="name=value, with a unit where it is another: 'bilirubin_mg_dl=24 mg/L'."),
    ] = None,
    pet: Annotated[
        Path | None, typer.Option(help="SUV image (NIfTI) to take the PET inputs from; needs --outline.", exists=True)
    ] = None,
    outline: Annotated[Path | None, typer.Option(help="Tumour outline on the PET grid (NIfTI).", exists=True)] = None,
    horizon: Annotated[list[float] | None, typer.Option(help="Horizon in days; repeat for more.")] = None,
    as_json: Json = False,
) -> None:
    """Gives one patient's risk by a fitted outcome model, with its interval, what drove it and what would change it.

    Example: osler twin outcome pbc-transplant-free-survival -i age_years=55 -i sex_male=0 -i bilirubin_mg_dl=2.4

    Example: osler twin outcome sarcoma-lung-metastasis --pet suv.nii.gz --outline tumour.nii.gz
    """
    from services.twin import survival
    from services.twin.outcomes import measured
    from services.twin.survival import predict

    models = context_of(ctx).settings().models.path
    if not model:
        _list_outcome_models(models, as_json)
        return
    loaded = survival.named(models, model)
    values = _values(value or [], loaded)
    if pet is not None:
        if outline is None:
            raise typer.BadParameter("--pet needs --outline")
        values = measured(loaded, _volume(pet), _volume(outline)) | values
    found = predict(loaded, values, horizon or None)
    if as_json:
        print_json({"title": loaded.title, "outcome": loaded.outcome, **asdict(found)})
        return
    rows = [
        {
            "by": "follow-up" if risk.horizon_days is None else f"{risk.horizon_days:.0f} days",
            "risk": f"{100 * risk.value:.0f} %",
            "90_%_interval": f"{100 * risk.lower:.0f} to {100 * risk.upper:.0f} %",
        }
        for risk in found.risks
    ]
    print_rows(f"{loaded.title}: {loaded.outcome} ({found.status})", rows, "")
    drivers = [
        {
            "input": driver.name,
            "value": f"{driver.value:.3g}",
            "contribution": f"{driver.contribution:+.2f}",
            "risk_were_it_typical": f"{100 * driver.risk_if_typical:.0f} %",
        }
        for driver in found.drivers
    ]
    print_rows("What drives it", drivers, "")
    for caution in found.cautions:
        wide_console().print(f"- {caution}", highlight=False, style="dim")


def _list_outcome_models(models: Path, as_json: bool) -> None:
    from google.protobuf.json_format import MessageToDict

    from services.twin.outcomes import listed

    found = listed(models)
    if as_json:
        print_json([MessageToDict(one, preserving_proto_field_name=True) for one in found])
        return
    rows = [
        {
            "model": one.name,
            "outcome": one.outcome,
            "status": one.status,
            "inputs": ", ".join(i.name for i in one.inputs),
        }
        for one in found
    ]
    print_rows("Outcome models", rows, "none in the folder of models")


def _values(texts: Sequence[str], model: OutcomeModel) -> dict[str, float]:
    """Values from `name=2.4` or `name=2.4 mg/dL`, in the model's units."""
    from services.twin.survival import in_own_unit

    found = {}
    for text in texts:
        name, _, rest = text.partition("=")
        number, _, unit = rest.strip().partition(" ")
        try:
            found[name.strip()] = in_own_unit(model, name.strip(), float(number), unit.strip())
        except ValueError:
            raise typer.BadParameter(f"cannot read {text!r}; write name=number or 'name=number unit'") from None
    return found


def _volume(path: Path) -> Volume:
    from services.twin.nifti import read

    try:
        return read(path.read_bytes())
    except RefusedError as refusal:
        raise RefusedError(refusal.reason, f"{path.name}: {refusal.message}", remedy=refusal.remedy) from refusal


def glioma(
    tissue: Annotated[
        Path, typer.Option(help="Tissue labels (NIfTI): 0 outside, 1 CSF, 2 grey, 3 white.", exists=True)
    ],
    tumour: Annotated[
        Path,
        typer.Option(help="BraTS labels of today on the same grid: 1 core, 2 oedema, 3 or 4 enhancing.", exists=True),
    ],
    earlier: Annotated[
        list[str], typer.Option(help="An earlier visit before treatment: DAYS_BEFORE=FILE of BraTS labels, any grid.")
    ],
    horizon: Annotated[int, typer.Option(min=1, max=1095, help="Days to look ahead.")] = 180,
    radiotherapy: Annotated[
        str, typer.Option(help="FRACTIONSxGY@START_DAY to FLAIR and a margin of 20 mm, for example 30x2@14.")
    ] = "",
    resect: Annotated[int, typer.Option(help="Day on which the T1Gd-visible part is removed; -1 not at all.")] = -1,
    draws: Annotated[int, typer.Option(min=4, max=200, help="Parameter sets to run.")] = 16,
    out: Annotated[Path | None, typer.Option(help="Folder for density maps (NIfTI) at the horizon.")] = None,
    device: Annotated[str, typer.Option(help="torch device.")] = "cpu",
    as_json: Json = False,
) -> None:
    """Grows a patient's glioma through their own brain, untreated and treated, with what two visits leave unknown.

    Diffusion and proliferation are estimated from the outlined volumes of at least two visits before treatment.

    Example: osler twin glioma --tissue t.nii.gz --tumour now.nii.gz --earlier 60=before.nii.gz --radiotherapy 30x2@14 --resect 7
    """
    from services.twin.glioma_case import Plan, density_volume, simulate
    from services.twin.nifti import write

    plan = Plan(horizon, _fractions(radiotherapy), resect if resect >= 0 else None, draws, device)
    visits = [_earlier(text) for text in earlier]
    with _progress() as bars:
        task = bars.add_task("glioma", total=None)
        found = simulate(
            _volume(tissue), _volume(tumour), visits, plan,
            progress=lambda done, of: bars.update(task, description=f"glioma: run {done} of {of}"),
        )  # fmt: skip
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for name, one in found.courses.items():
            (out / f"density-{name}.nii.gz").write_bytes(write(density_volume(one)))
    if as_json:
        rates = {name: asdict(one) for name, one in found.posterior.summaries().items()}
        better = found.probability_smaller_if_treated
        print_json({"rates": rates, "courses": _as_json(found.courses), "probability_smaller_if_treated": better})
        return
    _show(found)


def _earlier(text: str) -> Visit:
    from services.twin.glioma_case import earlier_visit

    before, _, name = text.partition("=")
    path = Path(name)
    if not before.strip().isdigit() or not path.is_file():
        raise typer.BadParameter(f"cannot read --earlier {text!r}; write DAYS=FILE")
    return earlier_visit(float(before), _volume(path))


def _fractions(text: str) -> Fractions | None:
    import re

    from services.twin.glioma_case import Fractions

    if not text:
        return None
    plan = re.fullmatch(r"(\d+)x([\d.]+)@(\d+)", text)
    if plan is None:
        raise typer.BadParameter(f"cannot read {text!r}; write FRACTIONSxGY@DAY, for example 30x2@14")
    return Fractions(int(plan[1]), float(plan[2]), float(plan[3]))


def _as_json(found: Mapping[str, GliomaForecast]) -> dict[str, Any]:
    return {
        name: {"t1gd": one.bands("t1gd"), "flair": one.bands("flair"), "cautions": list(one.cautions)}
        for name, one in found.items()
    }


def _show(found: GliomaCase) -> None:
    rows = [
        {"rate": name, "median": f"{one.median:.3g}", "90_%_interval": f"{one.lower:.3g} to {one.upper:.3g}"}
        for name, one in found.posterior.summaries().items()
    ]
    print_rows("Rates", rows, "")
    for name, one in found.courses.items():
        bands = [
            {
                "day": f"{t1gd['day']:.0f}",
                "T1Gd_mL": f"{t1gd['median_mm3'] / 1000:.1f} ({t1gd['lower_90'] / 1000:.1f}-{t1gd['upper_90'] / 1000:.1f})",
                "FLAIR_mL": f"{flair['median_mm3'] / 1000:.1f} ({flair['lower_90'] / 1000:.1f}-{flair['upper_90'] / 1000:.1f})",
            }
            for t1gd, flair in zip(one.bands("t1gd"), one.bands("flair"), strict=True)
        ]
        print_rows(f"{name}, median and 90 % interval", bands, "")
    console = wide_console()
    if found.probability_smaller_if_treated is not None:
        console.print(
            f"probability of less FLAIR abnormality if treated: {100 * found.probability_smaller_if_treated:.0f} %"
        )
    for caution in found.cautions:
        console.print(f"- {caution}", style="dim")
    console.print(
        "- A model of growth, not validated on patients; it supports a discussion and decides nothing.", style="dim"
    )
