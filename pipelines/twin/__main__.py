"""Population priors of the tumour twin, and how well it predicts.

    python -m pipelines.twin fit      --data FOLDER [--write] [--json]
    python -m pipelines.twin evaluate --data FOLDER [--seed N] [--json]
    python -m pipelines.twin study    [--patients N] [--seed N] [--json]
    python -m pipelines.twin card     --figures OUT/growth/figures.json

FOLDER holds `colorectalLongi.csv` and `colorectal.csv` of the R package frailtypack (FFCD 2000-05), which is not part of
Osler. `study` needs no data: it recovers virtual patients drawn from the shipped prior.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.twin", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, help_text in (
        ("fit", "fit the population prior"),
        ("evaluate", "five-fold evaluation against last value and mixed models"),
        ("study", "recover virtual patients drawn from the prior"),
    ):
        command = commands.add_parser(name, help=help_text)
        command.add_argument("--json", action="store_true", help="print JSON")
        if name == "study":
            command.add_argument("--patients", type=int, default=500, help="virtual patients (default 500)")
        else:
            command.add_argument("--data", type=Path, required=True, help="folder of the trial's two files")
        if name == "fit":
            command.add_argument("--write", action="store_true", help="write services/twin/growth_priors.yaml")
        else:
            command.add_argument("--seed", type=int, default=1, help="of the folds or the virtual patients (default 1)")
    writer = commands.add_parser("card", help="write the model card from the figures of `osler twin validate`")
    writer.add_argument("--figures", type=Path, required=True, help="figures.json of the growth report")
    writer.add_argument("--models", type=Path, default=Path("models"), help="folder of models (default models)")
    return parser.parse_args()


def _run(arguments: argparse.Namespace) -> dict[str, Any]:
    from pipelines.twin import evaluate, ffcd, fit, priors

    if arguments.command == "study":
        from pipelines.twin import study

        found = study.run(arguments.patients, arguments.seed, _say)
        _say("progression of virtual patients")
        return found | {"progression": study.progression(max(arguments.patients // 5, 20), arguments.seed)}
    if not (arguments.data / "colorectalLongi.csv").is_file():
        raise SystemExit(f"{arguments.data} holds no colorectalLongi.csv; it comes with the R package frailtypack")
    patients = ffcd.read(arguments.data)
    if arguments.command == "evaluate":
        return evaluate.run(patients, arguments.seed, _say)
    _say(f"fitting the population to {len(patients)} patients")
    fitted = fit.fit(patients)
    if arguments.write:
        priors.write(fitted)
    return priors.document(fitted)


def main() -> None:
    arguments = _arguments()
    if arguments.command == "card":
        from pipelines.twin import card

        print(card.write(json.loads(arguments.figures.read_text(encoding="utf-8")), arguments.models / card.NAME))
        return
    report = _run(arguments)
    if arguments.json:
        print(json.dumps(report, indent=1))
    else:
        import yaml

        print(yaml.safe_dump(report, sort_keys=False, width=110, allow_unicode=True), end="")


if __name__ == "__main__":
    main()
