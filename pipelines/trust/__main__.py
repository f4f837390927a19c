"""`python -m pipelines.trust`: fits and measures the hippocampus model's familiarity reference."""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from pipelines.trust import hippocampus
from pipelines.trust.fit import caught, false_alarms, fit
from services.imaging.hippocampus import familiarity_features, load_bundle, network_input
from services.imaging.hippocampus_bundle import FAMILIARITY
from services.imaging.trust.familiarity import distances, write


def main() -> None:
    """Writes `trust/familiarity.npz` and `trust/evaluation.json` into the model's folder, and prints the figures."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.trust", description=main.__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with hippocampus/ and others")
    parser.add_argument("--model", type=Path, default=Path("models/hippocampus"), help="bundle to fit for")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    options = parser.parse_args()
    model = load_bundle(options.model, familiar=False)

    def features_of(crop: hippocampus.Crop) -> np.ndarray:
        return familiarity_features(model.network, network_input(*crop), hippocampus.LAYERS)

    quiet = Console(stderr=True, quiet=options.json)
    crops = list(hippocampus.known(options.data))
    known = np.array([features_of(crop) for crop in track(crops, "known", console=quiet)])
    strange = defaultdict(list)
    for kind, crop in track(list(hippocampus.strange(options.data)), "strange", console=quiet):
        strange[kind].append(features_of(crop))
    reference = fit(known, hippocampus.LAYERS, model.weights_sha256)
    write(options.model / FAMILIARITY, reference)
    elsewhere = features_of(hippocampus.foreign(options.data))
    figures = {
        "known": len(known),
        "limit": round(reference.limit, 3),
        "false_alarms": round(false_alarms(known, hippocampus.LAYERS), 3),
        "crop_of_another_hospital": round(float(distances(reference, elsewhere[None])[0]), 3),
        "strange": caught(reference, {kind: np.array(rows) for kind, rows in strange.items()}),
        "weights_sha256": model.weights_sha256,
        "command": "python -m pipelines.trust --data DIR",
    }
    text = json.dumps(figures, indent=1)
    (options.model / FAMILIARITY.parent / "evaluation.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
