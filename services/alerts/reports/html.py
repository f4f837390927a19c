"""A report as one HTML page that needs nothing else: its style is inside."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup

from services.alerts.reports.present import Shown

MEDIA_TYPE = "text/html; charset=utf-8"
_FOLDER = Path(__file__).with_name("templates")


@cache
def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(_FOLDER)
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined).get_template(
        "report.html"
    )


@cache
def _css() -> str:
    return (_FOLDER / "report.css").read_text(encoding="utf-8")


def content_security_policy() -> str:
    """Allows this page's own style and nothing else (CSP level 3 hash source)."""
    digest = base64.b64encode(hashlib.sha256(_css().encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def render(report: Shown) -> bytes:
    """The page, UTF-8. Text is escaped; the style comes from Osler's own file."""
    return _template().render(report=report, css=Markup(_css())).encode()  # noqa: S704
