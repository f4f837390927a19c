"""The model card, filled in from the figures so that no number in it is typed by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

TEMPLATE = Path(__file__).with_name("card.md")


def _interval(value: Mapping[str, float] | None) -> str:
    if value is None:
        return "one class only"
    return f"{value['value']:.3f} ({value['ci95_low']:.3f} to {value['ci95_high']:.3f})"


def _thirds(summary: Mapping[str, Any]) -> str:
    rows = ["| property | third | from - to | images (normal) | AUC |", "|---|---|---|---|---|"]
    for name in ("exposure", "contrast", "sharpness"):
        groups: Sequence[Mapping[str, Any]] = summary[f"by_{name}"]
        rows += [
            f"| {name} | {third} | {one['from']:.2f} - {one['to']:.2f} | {one['images']} ({one['normal']}) "
            f"| {_interval(one['auc'])} |"
            for third, one in zip(("low", "middle", "high"), groups, strict=True)
        ]
    return "\n".join(rows)


def _worse(summary: Mapping[str, Any]) -> str:
    rows = ["| change | AUC | ECE |", "|---|---|---|"]
    rows += [f"| {name} | {one['auc']:.3f} | {one['ece']:.3f} |" for name, one in summary["worse_pictures"].items()]
    return "\n".join(rows)


def write_card(path: Path, metadata: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
    """Fill the template."""
    osler, crossed = metadata["osler"], summary["cross_validation"]
    recipe, calibration, half = osler["recipe"], summary["calibration"], summary["at_half"]
    text = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        version=metadata["version"],
        prevalence=f"{summary['prevalence']:.2f}",
        train_images=f"{crossed['images']:,}",
        train_share=f"{100 * crossed['share_pneumonia']:.0f}",
        images=summary["images"],
        share=f"{100 * summary['share_pneumonia']:.0f}",
        folds=recipe["folds"],
        epochs=recipe["epochs"],
        batch_size=recipe["batch_size"],
        seed=recipe["seed"],
        temperature=f"{summary['temperature']:.2f}",
        bias=f"{summary['bias']:+.2f}",
        sha256=osler["weights_sha256"],
        auc=_interval(summary["auc"]),
        members=", ".join(f"{one:.3f}" for one in summary["auc_single_members"]),
        ece=_interval(calibration["ece"]),
        raw_ece=f"{summary['uncalibrated_ece']:.3f}",
        brier=f"{calibration['brier']:.3f}",
        stated=f"{calibration['mean_stated']:.3f}",
        observed=f"{calibration['mean_observed']:.3f}",
        sensitivity=_interval(half["sensitivity"]),
        specificity=_interval(half["specificity"]),
        accuracy=_interval(half["accuracy"]),
        cv_auc=_interval(crossed["auc"]),
        cv_ece=_interval(crossed["calibration"]["ece"]),
        thirds=_thirds(summary),
        worse=_worse(summary),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
