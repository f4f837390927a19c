"""The model card of the tumour twin: what it is for, what it rests on, and every figure of its validation report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipelines.survival.growth import of_figures
from services.twin.tables import table
from services.twin.validation_report import table as markdown_table

NAME = "colorectal-tumour-growth"
_USE = """## Intended use
Research, and a tumour board's discussion of "what if" (`osler twin predict`, `simulate`, `compare`, `calibrate`). It is not a
medical device and decides nothing.

- Input: the sum of the longest lesion diameters at one or more visits; or a metabolic volume, total lesion glycolysis or a
  serum marker, whose priors are derived from the diameters' and not fitted. Output: trajectory with 50 and 90 % bands,
  probability of response and progression by date, what drove them and what would change them, courses side by side, the
  value of a scan.
- No weights: the fitted priors are in `services/twin/growth_priors.yaml`, what was derived from them in `growth.yaml`.

## Limits
- Fitted to 100 patients of one trial of 2002-2006. For other tumours the same priors are widened, which is a choice.
- Do not rank patients by predicted time to progression: on these patients that does no better than chance (see below), and
  where the model is the truth not much better, as most of what decides is yet to happen. Use the bands and the status at the
  next visit.
- New lesions, symptoms and death are not in the model.
- What another regimen does is taken from patients who had none before.
"""
_REPRODUCE = """## To reproduce

    python -m pipelines.twin fit --data DIR/tumour-growth          the priors
    osler twin validate --data DIR --out OUT --model growth        every figure above
    python -m pipelines.twin card --figures OUT/growth/figures.json
"""


def card(figures: dict[str, Any]) -> str:
    """Markdown; `figures` are those of `pipelines.survival.growth`."""
    report = of_figures(figures)
    priors = table("growth_priors.yaml")["diseases"]["ffcd_2000_05"]
    lines = [
        "# Tumour twin: growth and inhibition under chemotherapy, version 2",
        "",
        f"**{report.verdict}.**",
        "",
        _USE,
    ]
    half_year = figures["progression"]["every visit"]
    lines[-1] += (
        f"- Progression within 180 days is predicted for {100 * half_year['mean_predicted_180_days']:.0f} % and was seen in "
        f"{100 * half_year['observed_180_days']:.0f} % of those followed: read it as an upper figure.\n"
    )
    lines += ["## Data", f"{priors['citation']}", ""]
    lines += [
        f"{priors['patients']} patients, {priors['measurements']} measurements. The data are not part of Osler.",
        "",
    ]
    for section in report.sections:
        lines += [f"## {section.title}", *([section.text, ""] if section.text else [""])]
        lines += [*markdown_table(section.table), ""] if section.table else []
    return "\n".join([*lines, _REPRODUCE])


def write(figures: dict[str, Any], folder: Path) -> Path:
    """Writes the card and the figures into `folder`/docs; returns the card's path."""
    target = folder / "docs"
    target.mkdir(parents=True, exist_ok=True)
    (target / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    path = target / "README.md"
    path.write_text(card(figures), encoding="utf-8")
    return path
