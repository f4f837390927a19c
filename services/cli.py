"""The `osler` command."""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from services.compose import (
    commands_advise,
    commands_analyse,
    commands_analytics,
    commands_data,
    commands_features,
    commands_fhir,
    commands_look,
    commands_models,
    commands_patient,
    commands_quality,
    commands_register,
    commands_respond,
    commands_run,
    commands_streams,
    commands_twin,
    commands_worklist,
)
from services.platform.errors import ConfigurationError, OslerError

app = typer.Typer(
    name="osler",
    help="Osler joins what imaging sees with what the record knows.\n\n"
    "Start with `osler up --demo`, or `osler process --dicom FOLDER --out FOLDER` for one case without servers.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="markdown",
)
commands_run.add_to(app)
commands_advise.add_to(app)
commands_analyse.add_to(app)
commands_analytics.add_to(app)
commands_data.add_to(app)
commands_features.add_to(app)
commands_fhir.add_to(app)
commands_look.add_to(app)
commands_models.add_to(app)
commands_patient.add_to(app)
commands_register.add_to(app)
commands_quality.add_to(app)
commands_respond.add_to(app)
commands_streams.add_to(app)
commands_twin.add_to(app)
commands_worklist.add_to(app)

# Exit status of a wrong setting (EX_CONFIG of sysexits): the supervisor does not start such a process again.
EX_CONFIG = 78


def main() -> None:
    """Runs the command; what went wrong is one line on standard error."""
    try:
        app()
    except ConfigurationError as error:
        _complain(error)
        sys.exit(EX_CONFIG)
    except OslerError as error:
        _complain(error)
        sys.exit(1)


def _complain(error: OslerError) -> None:
    Console(stderr=True).print(f"[red]osler:[/red] {error}", highlight=False)


if __name__ == "__main__":
    main()
