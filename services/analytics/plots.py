"""Two small pictures as SVG: studies by day, and predicted against observed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from services.analytics.truth import Calibration

_WIDTH, _HEIGHT, _SIDE = 720, 120, 260


def bars(days: Sequence[dict[str, Any]]) -> Markup:
    """One bar a day; a dot where the count is too small to be shown."""
    most = max((row["studies"] or 0 for row in days), default=0) or 1
    step = _WIDTH / max(1, len(days))
    parts = []
    for n, row in enumerate(days):
        x, count = n * step, row["studies"]
        title = f"<title>{row['day']}: {'few' if count is None else count}</title>"
        if count is None:
            parts.append(f'<circle class="few" cx="{x + step / 2:.1f}" cy="{_HEIGHT - 5}" r="3">{title}</circle>')
        elif count:
            height = count / most * (_HEIGHT - 14)
            parts.append(
                f'<rect class="bar" x="{x + 1:.1f}" y="{_HEIGHT - height:.1f}" width="{step - 2:.1f}" height="{height:.1f}">'
                f"{title}</rect>"
            )
    label = f"Studies a day; the highest bar is {most}"
    return _svg(_WIDTH, _HEIGHT, label, "".join(parts) + f'<text x="2" y="11">{most}</text>')


def reliability(calibration: Calibration | None) -> Markup:
    """Observed share (with its 95 % interval) over predicted probability; on the line, 30 % is 30 %."""
    if calibration is None:
        return Markup("")
    parts = [f'<line class="ideal" x1="0" y1="{_SIDE}" x2="{_SIDE}" y2="0"/>']
    for row in calibration.bins:
        x, y = row.predicted * _SIDE, (1 - row.happened) * _SIDE
        low, high = (1 - row.happened_lower) * _SIDE, (1 - row.happened_upper) * _SIDE
        title = f"<title>said {row.predicted:.0%}, happened {row.happened:.0%} of {row.count}</title>"
        parts.append(f'<line class="range" x1="{x:.1f}" y1="{low:.1f}" x2="{x:.1f}" y2="{high:.1f}"/>')
        parts.append(f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="5">{title}</circle>')
    return _svg(_SIDE, _SIDE, "Observed share over predicted probability", "".join(parts))


def _svg(width: int, height: int, label: str, content: str) -> Markup:
    # Numbers and dates of ours: nothing from outside is written here.
    return Markup(f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{content}</svg>')  # noqa: S704
