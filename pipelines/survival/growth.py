"""The validation report of the tumour twin, from the five-fold evaluation in `pipelines/twin`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.twin import evaluate, ffcd, study
from services.platform.errors import RefusedError
from services.twin import validation_figures
from services.twin.validation_report import Report, Section

VIRTUAL_PATIENTS = 500
VIRTUAL = "virtual patients"


def report(folder: Path, say: Callable[[str], None] = lambda text: None) -> Report:
    """Report of the growth twin on FFCD 2000-05 in `folder`. Raises RefusedError `survival.data_absent`."""
    if not (folder / "colorectalLongi.csv").is_file():
        raise RefusedError("survival.data_absent", "tumour-growth/ has no colorectalLongi.csv")
    found = evaluate.run(ffcd.read(folder), progress=lambda text: say(f"growth: {text}"))
    found[VIRTUAL] = study.run(VIRTUAL_PATIENTS, 1, lambda text: say(f"growth: {text}"))
    say("growth: progression of virtual patients")
    found[VIRTUAL]["progression"] = study.progression(VIRTUAL_PATIENTS // 5, 1)
    return of_figures(found)


def of_figures(found: dict[str, Any]) -> Report:
    """The report of figures that were made before: those of `evaluate.run`, and under "virtual patients" those of `study`."""
    methods, progression = found["methods"], found["progression"]
    rivals = {name: entry for name, entry in methods.items() if name != "twin"}
    overall = progression["every visit"]
    low, high = overall["interval_95"]
    said = f"{100 * found['coverage_90']:.0f} % of later sizes lie in the 90 % band"
    told = "is" if low > 0.5 else "is not"
    said += f"; the time to progression {told} foretold (C-index {overall['c_index']:.2f}, {low:.2f} to {high:.2f})"
    now = progression["at the next visit"]["all"]
    low, high = now["interval_95"]
    told = "is" if low > 0.5 else "is not"
    said += f", the status at the next visit {told} ({now['c_index']:.2f}, {low:.2f} to {high:.2f})"
    return Report(
        "growth",
        "Tumour twin (growth and inhibition)",
        said,
        [
            _error(methods, rivals),
            _coverage(found),
            _subgroups(found),
            _progression(progression),
            _next_visit(progression["at the next visit"], found["response"]),
            *_virtual(found[VIRTUAL]),
        ],
        found,
    )


def _error(methods: dict[str, Any], rivals: dict[str, Any]) -> Section:
    rows = [{"method": "twin", "mean CRPS, mm": methods["twin"]["crps_mm"], "twin lower by (95 % interval)": ""}]
    for name, entry in rivals.items():
        low, high = entry["interval_95"]
        gain = f"{100 * entry['twin_lower_by']:.1f} % ({100 * low:.1f} to {100 * high:.1f} %)"
        rows.append({"method": name, "mean CRPS, mm": entry["crps_mm"], "twin lower by (95 % interval)": gain})
    text = (
        "Five folds by patient: every later sum of diameters predicted from the earlier ones, against simpler methods."
    )
    return Section("Error", text, rows)


def _coverage(found: dict[str, Any]) -> Section:
    ranks = np.array(found["rank_histogram"], dtype=np.float64)
    png = validation_figures.shares(ranks / ranks.sum(), 0.1, "rank of the size in its prediction", "share of sizes")
    text = (
        f"{found['predictions']} predictions. The 90 % band holds {100 * found['coverage_90']:.1f} % of the sizes, the 50 % band "
        f"{100 * found['coverage_50']:.1f} %. Ranks that are even over the tenths mean calibrated predictions."
    )
    return Section("Coverage and calibration", text, figures={"coverage": png})


def _subgroups(found: dict[str, Any]) -> Section:
    rows = [
        {
            "group": name,
            "predictions": group["predictions"],
            "90 % coverage": f"{100 * group['coverage_90']:.1f} %",
            "mean CRPS, mm": group["crps_mm"],
            "median error, mm": group["median_error_mm"],
        }
        for name, group in found["subgroups"].items()
    ]
    return Section("Error by horizon and subgroup", "", rows)


def _progression(progression: dict[str, Any]) -> Section:
    names = {"every visit": progression["every visit"], "second visit only": progression["second visit only"]}
    text = (
        f"Event: {progression['definition']}. Predicted: that scans every eight weeks measure it within 180 days. Patients "
        "whose size had progressed already are not counted."
    )
    return Section("Discrimination: progression within half a year", text, _landmarks(names))


def _landmarks(groups: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for name, group in groups.items():
        low, high = group["interval_95"]
        rows.append(
            {
                "landmark": name,
                "patients": group["patients"],
                "events": group["events"],
                "C-index (95 % interval)": f"{group['c_index']:.3f} ({low:.3f} to {high:.3f})",
                "predicted by 180 days": f"{group['mean_predicted_180_days']:.2f}",
                "observed": f"{group['observed_180_days']:.2f}",
            }
        )
    return rows


def _next_visit(progression: dict[str, Any], response: dict[str, Any]) -> Section:
    rows = []
    groups = {f"progression, {key}": one for key, one in progression.items()}
    groups["response"] = response
    for name, group in groups.items():
        low, high = group["interval_95"]
        rows.append(
            {
                "at the next visit": name,
                "predictions": group["predictions"],
                "events": group["events"],
                "area under the ROC curve (95 % interval)": f"{group['c_index']:.3f} ({low:.3f} to {high:.3f})",
                "predicted": f"{group['mean_predicted']:.2f}",
                "observed": f"{group['observed']:.2f}",
            }
        )
    text = (
        "Progression: the next size is 20 % and 5 mm over the smallest so far; response: at most 70 % of the first. "
        "Predicted from the sizes before, on the day of that visit."
    )
    return Section("Discrimination: status at the next visit", text, rows)


def _virtual(found: dict[str, Any]) -> list[Section]:
    rows = [
        {"quantity": name, "coverage of the 90 % interval": f"{100 * share:.1f} %"}
        for name, share in found["coverage_90"].items()
    ]
    treatment, progression = found["treatment"], found["progression"]
    text = (
        f"{found['patients']} virtual patients drawn from the shipped population, five visits each. The better treatment "
        f"({treatment['question']}) was named in {100 * treatment['named_right']:.1f} % of the {treatment['clear']} patients "
        "for whom the true sizes differ by a fifth or more."
    )
    ceiling = {key: progression[key] for key in ("every visit", "second visit only")}
    return [
        Section("Virtual patients", text, rows),
        Section(
            "Progression where the model is the truth",
            "The same figures on virtual patients scanned every eight weeks: what they would be if tumours followed the model.",
            _landmarks(ceiling),
        ),
    ]
