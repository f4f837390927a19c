"""How long the board's pages take in chromium, of a running Osler with the demo patient: opening a case, another course
of treatment, and following the presenter. Prints the figures with the load that they were taken under.

python -m tests.e2e.board_figures --url http://127.0.0.1:8080 --home var
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tests.e2e.board_flow import NARROW, follow_delays, password_of
from tests.e2e.flow import CHROMIUM_OPTIONS

# From a change of the form until the new chart is laid out and painted.
_COURSE = """weeks => new Promise(done => {
  const began = performance.now(), slider = document.getElementById('start-weeks');
  const settled = event => {
    if (event.target.id !== 'whatif') return;
    document.removeEventListener('htmx:afterSettle', settled);
    requestAnimationFrame(() => setTimeout(() => done(performance.now() - began)));
  };
  document.addEventListener('htmx:afterSettle', settled);
  slider.value = weeks;
  slider.dispatchEvent(new Event('input', { bubbles: true }));
})"""
_OPENED = """() => {
  const all = kind => performance.getEntriesByType(kind);
  return Object.fromEntries([
    ...all('paint').map(e => [e.name, e.startTime]),
    ...all('navigation').map(e => ['first byte', e.responseStart]),
    ...performance.getEntriesByName('osler:images').slice(0, 1).map(e => ['complete', e.startTime]),
  ]);
}"""


def enter(browser: Browser, url: str, home: Path, user: str) -> Page:
    page = browser.new_context(viewport=NARROW, base_url=url).new_page()
    page.set_default_timeout(120_000)
    page.goto("/login")
    page.fill("input[name=user]", user)
    page.fill("input[name=password]", password_of(home, user))
    page.keyboard.press("Enter")
    page.wait_for_selector("table.list")
    return page


def opening(page: Page, times: int) -> list[dict[str, float]]:
    """Milliseconds after the click until paint, and until the fused images are drawn; the case is opened `times` times."""
    page.click("table.list a.strong")
    found = []
    for _ in range(times):
        page.reload()
        page.wait_for_selector("#gl[data-ready='2']")
        found.append(page.evaluate(_OPENED))
    return found


def courses(page: Page, times: int) -> list[float]:
    """Milliseconds until another start of another course is drawn."""
    page.keyboard.press("3")
    page.wait_for_selector("#whatif .outcomes")
    page.select_option("#course-name", "stop")
    page.wait_for_selector("#whatif path.against")
    page.wait_for_timeout(1000)
    found = []
    for weeks in range(1, times + 1):
        found.append(page.evaluate(_COURSE, str(weeks)))
        page.wait_for_timeout(150)
    return found


def following(presenter: Page, follower: Page) -> list[float]:
    """Milliseconds until the second browser has followed a scroll of the presenter's, in a meeting made for it."""
    presenter.goto("/meetings")
    presenter.get_by_label("Title").fill("Figures")
    presenter.get_by_role("button", name="Plan").click()
    presenter.get_by_role("button", name="Add").click()
    presenter.wait_for_selector("ol.agenda")
    follower.goto(presenter.url)
    follower.get_by_label("Discipline").select_option("radiology")
    follower.locator("form[action$='/join'] button").click()
    for page in (presenter, follower):
        page.get_by_role("link", name="Open the first case").click()
        page.wait_for_selector("#gl[data-ready='2']")
    presenter.keyboard.press("p")
    follower.wait_for_selector("#presenter:has-text('presents')")
    presenter.wait_for_timeout(1500)
    return [1000 * seconds for seconds in follow_delays(presenter, follower, (600, -400, 500, -300, 400, -500))]


def measure(url: str, home: Path) -> Iterator[tuple[str, list[float]]]:
    """Name of a figure, and its values in milliseconds."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM_OPTIONS)
        page = enter(browser, url, home, "board")
        opened = opening(page, 4)
        for name in ("first byte", "first-contentful-paint", "complete"):
            yield name, [each[name] for each in opened]
        yield "another course", courses(page, 12)
        yield "following", following(page, enter(browser, url, home, "clinician"))
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--home", type=Path, default=Path("var"))
    parser.add_argument("--json", action="store_true", help="one JSON object for each figure, values in milliseconds")
    options = parser.parse_args()
    for name, values in measure(options.url, options.home):
        words = f"{name}: median {statistics.median(values):.0f} ms, slowest {max(values):.0f} ms of {len(values)}"
        print(json.dumps({"figure": name, "ms": values}) if options.json else words, flush=True)
    if not options.json:
        print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
