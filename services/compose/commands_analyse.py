"""The command `analyse`: runs an analyser without learned weights on files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from services.compose.console import Json, print_json, print_rows, wide_console

if TYPE_CHECKING:
    from services.imaging.analysers.cards import Card


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(analyse)


def analyse(
    name: Annotated[str, typer.Argument(help="Name of an analyser, or `list`.")],
    path: Annotated[
        Path | None,
        typer.Argument(
            exists=True, help="A NIfTI file, a folder of DICOM, or a folder with ROLE.nii.gz. Without it: the card."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for maps and regions (NIfTI) and result.json.")] = None,
    named: Annotated[
        list[str] | None, typer.Option("--input", "-i", help="ROLE=PATH of one input; goes before PATH.")
    ] = None,
    options: Annotated[list[str] | None, typer.Option("--set", "-s", help="OPTION=VALUE, as the card lists.")] = None,
    as_json: Json = False,
) -> None:
    """Measures with published methods that learn nothing: perfusion, cardiac function, flow, vertebrae, change, radiomics.

    `osler analyse list` names them; `osler analyse NAME` shows the card: inputs, options, sources, limits.
    What is missing or contradictory is refused with the reason, never guessed.

    Example: osler analyse ct_perfusion DICOM_FOLDER --out maps --set tmax_s=6
    """
    from services.imaging.analysers import registry

    if name == "list":
        rows = [{"analyser": one.name, "title": one.title, "inputs": _roles(one)} for one in registry.cards()]
        told = [{key: escape(text) for key, text in row.items()} for row in rows]
        print_json(rows) if as_json else print_rows("Analysers", told, "")
        return
    known = registry.card_named(name)
    inputs = {role: Path(place) for role, place in _pairs(named or [], "input").items()}
    if path is None and not inputs:
        _show_card(known, as_json)
        return
    _run(known, path, out, inputs, _pairs(options or [], "set"), as_json)


def _run(
    known: Card, path: Path | None, out: Path | None, named: dict[str, Path], options: dict[str, str], as_json: bool
) -> None:
    from services.imaging.analysers import files, registry

    places = files.find_inputs(known, path, named) if path else named
    with wide_console(stderr=True).status(f"{known.title} ...") as shown:
        images = {}
        for role, place in places.items():
            shown.update(f"reading {role}")
            images[role] = files.read(known, role, place)
        shown.update(f"{known.title} ...")
        result = registry.run(known.name, images, options)
        document = files.write(result, out, places) if out else files.to_document(result)
        if out and known.name == "enhancement" and places["image"].is_dir():
            document["dicom"] = files.write_derived(result, places["image"], out / "dicom")
    if as_json:
        print_json(document)
        return
    print_rows(known.title, [_row(value) for value in document["values"]], "No measurement.")
    console = wide_console()
    for caution in document["cautions"]:
        console.print(f"- {caution}", markup=False)
    if out:
        console.print(f"written to {out}: result.json, {', '.join(document['files'].values())}", markup=False)


def _row(value: dict[str, Any]) -> dict[str, str]:
    interval = value.get("interval")
    told = (
        f"{interval['lower']:.4g} to {interval['upper']:.4g} ({interval['level']:.0%})"
        if interval
        else value["not_estimated"]
    )
    unit = "" if value["unit"] == "1" else escape(f" {value['unit']}")
    return {
        "measurement": value["code"]["display"],
        "value": f"{value['value']:.4g}{unit}",
        "uncertainty": escape(told),
    }


def _pairs(texts: list[str], option: str) -> dict[str, str]:
    from services.platform.errors import RefusedError

    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise RefusedError(
                "analysers.bad_argument",
                f"--{option} {text!r} is not NAME=VALUE",
                remedy=f"Write --{option} NAME=VALUE.",
            )
        pairs[key] = value
    return pairs


def _roles(known: Card) -> str:
    return ", ".join(role.name if role.required else f"[{role.name}]" for role in known.inputs.values())


def _show_card(known: Card, as_json: bool) -> None:
    import dataclasses

    if as_json:
        print_json(dataclasses.asdict(known))
        return
    console = wide_console()
    console.print(f"{known.title}, version {known.version}", style="bold", markup=False)
    console.print(f"{known.what}\nFor: {known.intended_use}", markup=False)
    print_rows(
        "Inputs",
        [
            {"role": r.name, "what": r.what, "unit": escape(r.unit), "required": "yes" if r.required else "no"}
            for r in known.inputs.values()
        ],
        "",
    )
    print_rows(
        "Options (--set)",
        [
            {"option": o.name, "default": o.default, "unit": escape(o.unit), "what": o.what}
            for o in known.options.values()
        ],
        "No options.",
    )
    for title, lines in (("Sources", known.sources), ("Limits", known.limits)):
        console.print(title, style="bold")
        for line in lines:
            console.print(f"- {line}", markup=False)
