"""The model card, filled in from the figures so that no number in it is typed by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

TEMPLATE = Path(__file__).with_name("card.md")
PARTS = ("anterior", "posterior", "total")


def _with_interval(value: Mapping[str, float]) -> str:
    return f"{value['mean']:.3f} ({value['ci95_low']:.3f} to {value['ci95_high']:.3f})"


def _dice_table(summary: Mapping[str, Any]) -> str:
    rows = ["| part | Dice, mean (95 % interval) | lowest case |", "|---|---|---|"]
    rows += [
        f"| {part} | {_with_interval(summary['dice'][part])} | {summary['dice_lowest'][part]:.3f} |" for part in PARTS
    ]
    return "\n".join(rows)


def _volume_table(summary: Mapping[str, Any]) -> str:
    rows = [
        "| part | bias, mm³ | 95 % limits of agreement, mm³ | mean absolute error, % | correlation "
        "| 90 % interval, ± % | its coverage, each case left out |",
        "|---|---|---|---|---|---|---|",
    ]
    for part in PARTS:
        v = summary["volume"][part]
        rows.append(
            f"| {part} | {v['bias_mm3']:+.0f} | {v['limits_low_mm3']:+.0f} to {v['limits_high_mm3']:+.0f} "
            f"| {v['mean_absolute_percent']:.1f} | {v['correlation']:.2f} "
            f"| {v['interval_half_width_percent']:.1f} | {v['left_out_coverage']:.2f} |"
        )
    return "\n".join(rows)


def _size_table(summary: Mapping[str, Any]) -> str:
    rows = [
        "| third by volume | cases | expert volume, mm³ | Dice anterior | Dice posterior | volume bias, % |",
        "|---|---|---|---|---|---|",
    ]
    rows += [
        f"| {name} | {group['cases']} | {group['volume_low_mm3']:.0f} to {group['volume_high_mm3']:.0f} "
        f"| {_with_interval(group['dice_anterior'])} | {_with_interval(group['dice_posterior'])} "
        f"| {group['volume_bias_percent']['mean']:+.1f} |"
        for name, group in summary["by_size"].items()
    ]
    return "\n".join(rows)


def _lowest_table(summary: Mapping[str, Any]) -> str:
    rows = [
        "| case | anterior | posterior | both | measured / expert volume, mm³ | cautions raised |",
        "|---|---|---|---|---|---|",
    ]
    rows += [
        f"| {c['case_id']} | {c['dice_anterior']:.3f} | {c['dice_posterior']:.3f} | {c['dice_total']:.3f} "
        f"| {c['volume_total_mm3']:.0f} / {c['true_total_mm3']:.0f} | {c['cautions'] or 'none'} |"
        for c in summary["lowest_cases"]
    ]
    return "\n".join(rows)


def write_card(path: Path, metadata: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
    """Fill the template."""
    osler = metadata["osler"]
    validated, recipe = osler["validated"], osler["recipe"]
    text = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        version=metadata["version"],
        fitted_on=osler["fitted_on"],
        sha256=osler["weights_sha256"],
        training_cases=osler["training_cases"],
        epochs=recipe["epochs"],
        last_epoch=min(recipe["epochs"], recipe["stop_after"] or recipe["epochs"]),
        batch_size=recipe["batch_size"],
        seed=recipe["seed"],
        cases=summary["cases"],
        folds=", ".join(str(f) for f in summary["folds"]),
        refused=len(summary["refused"]),
        hd95=_with_interval(summary["hd95_total_mm"]),
        dice_table=_dice_table(summary),
        volume_table=_volume_table(summary),
        size_table=_size_table(summary),
        lowest_table=_lowest_table(summary),
        orientation_ratio=f"{summary['orientation_ratio_lowest']:.2f}",
        entropy_correlation=f"{summary['entropy_dice_correlation']:.2f}",
        extent=" x ".join(f"{a:g}-{b:g}" for a, b in validated["extent_ras_mm"]),
        accepted=" x ".join(f"{a:g}-{b:g}" for a, b in validated["accepted_extent_ras_mm"]),
        spacing="{:g} to {:g}".format(*validated["accepted_spacing_mm"]),
        total_range="{:.0f} to {:.0f}".format(*validated["volume_mm3"]["total"]),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
