"""The model card, filled in from the figures so that no number in it is typed by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

TEMPLATE = Path(__file__).with_name("card.md")
NAMES = {
    "box": "the expert's box",
    "loose_box": "a loose box",
    "click": "a click",
    "automatic": "nothing",
    "ellipsoid_in_box": "ellipsoid in the box (no image)",
    "suv_2.5_in_box": "SUV 2.5 in the box",
    "41_percent_in_box": "41 % of the maximum in the box",
    "suv_2.5_alone": "SUV 2.5, largest region",
    "41_percent_alone": "41 % of the maximum, largest region",
}


def _interval(value: Mapping[str, float], name: str) -> str:
    return f"{value[name]:.3f} ({value['ci95_low']:.3f} to {value['ci95_high']:.3f})"


def _row(name: str, one: Mapping[str, Any]) -> str:
    volume = one["volume_error_percent"]
    return (
        f"| {NAMES[name]} | {_interval(one['dice'], 'median')} | {one['dice_mean']['mean']:.3f} | {one['dice_lowest']:.2f} "
        f"| {100 * one['share_above_0.8']:.0f} % | {volume['median']:+.0f} % "
        f"({volume['limits_low']:+.0f} to {volume['limits_high']:+.0f}) | {volume['median_absolute']['median']:.0f} % |"
    )


def _groups(summary: Mapping[str, Any]) -> str:
    rows = []
    for key, scale, unit in (("by_volume_mm3", 1000, " mL"), ("by_median_suv", 1, "")):
        for one in summary[key]:
            scores = " | ".join(
                f"{one[f'dice_{way}']['median']:.2f}" for way in ("box", "loose_box", "click", "automatic")
            )
            digits = 0 if unit else 1
            rows.append(
                f"| {one['by']} | {one['patients']} | {one['from'] / scale:.{digits}f} - {one['to'] / scale:.{digits}f}{unit} "
                f"| {scores} |"
            )
    return "\n".join(rows)


def _lowest(summary: Mapping[str, Any]) -> str:
    return "\n".join(
        f"| {one['patient_id']} | {one['true_ml']:.0f} | {one['suv_max']:.1f} / {one['suv_median']:.1f} | {one['dice_box']:.2f} "
        f"| {one['dice_loose_box']:.2f} | {one['dice_click']:.2f} | {one['dice_automatic']:.2f} "
        f"| {one['dice_ellipsoid_in_box']:.2f} |"
        for one in summary["lowest"]
    )


def write_card(path: Path, metadata: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
    """Fill the template."""
    osler = metadata["osler"]
    recipe, gain, intervals = osler["recipe"], summary["gain_over_same_box"], summary["interval"]
    text = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        version=metadata["version"],
        patients=summary["patients"],
        folds=len(summary["folds"]),
        volume_range="{:.0f} to {:.0f}".format(*(v / 1000 for v in osler["volume_mm3"])),
        low_suv=f"{summary['by_median_suv'][0]['to']:.1f}",
        epochs=recipe["epochs"],
        hidden=recipe["hidden"],
        voxels=recipe["voxels"],
        variants=recipe["variants"],
        batch_size=recipe["batch_size"],
        seed=recipe["seed"],
        sha256=osler["weights_sha256"],
        model_table="\n".join(_row(name, one) for name, one in summary["model"].items()),
        threshold_table="\n".join(_row(name, one) for name, one in summary["thresholds"].items()),
        gain_ellipsoid=_interval(gain["ellipsoid_in_box"], "median"),
        gain_fixed=_interval(gain["suv_2.5_in_box"], "median"),
        gain_relative=_interval(gain["41_percent_in_box"], "median"),
        groups=_groups(summary),
        half_box=f"{100 * intervals['box']['relative_half_width']:.0f}",
        half_click=f"{100 * intervals['click']['relative_half_width']:.0f}",
        half_auto=f"{100 * intervals['automatic']['relative_half_width']:.0f}",
        unsure_correlation=f"{summary['unsure_dice_correlation']:.2f}",
        lowest=_lowest(summary),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
