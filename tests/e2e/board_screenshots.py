"""Pictures of the board's pages for the documentation, of a running Osler with the demo patient.

python -m tests.e2e.board_screenshots --url http://127.0.0.1:8080 --home var --out docs/screenshots/board
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from tests.e2e.flow import CHROMIUM_OPTIONS

SIZES = {"1366": {"width": 1366, "height": 768}, "1920": {"width": 1920, "height": 1080}}


def save(page: Page, out: Path, name: str) -> None:
    """256 colours: the pages are flat, and the documentation stays small."""
    image = Image.open(io.BytesIO(page.screenshot()))
    image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(out / f"{name}.png", optimize=True)


def pictures(page: Page, out: Path, size: str) -> None:
    save(page, out, f"cases-{size}")
    page.click("table.list a.strong")
    page.wait_for_selector("#gl[data-ready='2']")
    case = page.url
    page.wait_for_timeout(1000)
    save(page, out, f"case-{size}")
    for key, name in ((2, "findings"), (3, "twin"), (4, "timeline"), (5, "record"), (6, "surfaces")):
        page.keyboard.press(str(key))
        if name == "twin":
            page.select_option("#course-name", "stop")
            page.wait_for_selector("#whatif path.against")
        page.wait_for_timeout(8000 if name == "surfaces" else 600)
        save(page, out, f"{name}-{size}")
    page.goto("/meetings")
    save(page, out, f"meetings-{size}")
    page.click("table.list a.strong")
    page.wait_for_selector("ol.agenda")
    save(page, out, f"meeting-{size}")
    page.click("text=Open the first case")
    page.wait_for_selector("#gl[data-ready='2']")
    page.wait_for_timeout(1000)
    save(page, out, f"meeting-case-{size}")
    for path, name in (("/tasks", "tasks"), ("/reads", "reads"), (f"{case}/access", "access")):
        page.goto(path)
        save(page, out, f"{name}-{size}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--home", type=Path, default=Path("var"))
    parser.add_argument("--out", type=Path, default=Path("docs/screenshots/board"))
    parser.add_argument("--size", choices=sorted(SIZES), action="append", help="only this width; both when not given")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    lines = (options.home / "first-run-credentials.txt").read_text(encoding="utf-8").splitlines()
    password = next(line.split()[1] for line in lines if line.split()[:1] == ["board"])
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM_OPTIONS)
        for size in options.size or sorted(SIZES):
            page = browser.new_context(viewport=SIZES[size], base_url=options.url).new_page()
            page.set_default_timeout(120_000)
            page.goto("/login")
            save(page, options.out, f"sign-in-{size}")
            page.fill("input[name=user]", "board")
            page.fill("input[name=password]", password)
            page.keyboard.press("Enter")
            page.wait_for_selector("table.list")
            pictures(page, options.out, size)
        browser.close()


if __name__ == "__main__":
    main()
