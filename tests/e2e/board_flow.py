"""The tumour board in real browsers on the demo patient: read, correct, ask what if, meet, decide, sign, and reach it all by key.

`flow.py` brings the case; a module with the `osler` fixture imports both.
"""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from services import board
from tests.e2e.flow import CHROMIUM_OPTIONS
from tests.e2e.running import RunningOsler
from tests.peers import require_or_skip

VENDOR = Path(board.__file__).parent / "static/vendor"
WIDE, NARROW = {"width": 1920, "height": 1080}, {"width": 1366, "height": 768}
# Pixels are drawn by the processor here, which other work may hold.
PATIENCE_MS = 120_000
FOLLOWS_WITHIN_S = 0.5
SignIn = Callable[..., Page]
expect.set_options(timeout=30_000)


@pytest.fixture
def sign_in(osler: RunningOsler, case: dict[str, Any]) -> Iterator[SignIn]:
    """Opens a browser that is signed in; a script error on any page fails the test that uses it."""
    chromium = shutil.which("chromium")
    if chromium is None:
        require_or_skip("chromium is missing: apt-get install chromium")
    if not (VENDOR / "axe.min.js").exists():
        require_or_skip("the board's browser parts are missing: python -m pipelines.assets")
    errors: list[str] = []
    with sync_playwright() as playwright:
        browser: Browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_OPTIONS)

        def enter(user: str, size: dict[str, int] = NARROW) -> Page:
            page = browser.new_context(viewport=size, base_url=osler.url("board")).new_page()
            page.set_default_timeout(PATIENCE_MS)
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.goto("/login")
            page.fill("input[name=user]", user)
            page.fill("input[name=password]", osler.password(user))
            page.keyboard.press("Enter")
            page.wait_for_selector("table.list")
            return page

        yield enter
        browser.close()
    assert errors == []


def password_of(home: Path, user: str) -> str:
    """The first password of a user, as `osler up` wrote it."""
    lines = (home / "first-run-credentials.txt").read_text(encoding="utf-8").splitlines()
    return next(line.split()[1] for line in lines if line.split()[:1] == [user])


def open_case(page: Page) -> Page:
    page.click("table.list a.strong")
    page.wait_for_selector("#gl[data-ready='2']")
    return page


def set_range(page: Page, selector: str, value: float) -> None:
    page.eval_on_selector(
        selector, "(e, v) => { e.value = v; e.dispatchEvent(new Event('input', { bubbles: true })); }", str(value)
    )


def reddish(page: Page) -> int:
    """Pixels of the viewer where red clearly leads: PET over CT."""
    pixels = np.asarray(Image.open(io.BytesIO(page.locator("#gl").screenshot())).convert("RGB")).astype(int)
    return int(((pixels[..., 0] - pixels[..., 2]) > 40).sum())


@pytest.mark.browser
def test_pet_is_blended_over_ct(sign_in: SignIn) -> None:
    page = open_case(sign_in("board"))
    set_range(page, "#blend", 0)
    page.wait_for_timeout(500)
    without = reddish(page)
    set_range(page, "#blend", 1)
    page.wait_for_timeout(500)
    assert reddish(page) > without + 1000
    before = page.inner_text("#viewer-place")
    page.keyboard.press("l")
    expect(page.locator("#viewer-place")).not_to_have_text(before)
    page.context.close()


@pytest.mark.browser
def test_another_course_is_drawn_at_once(sign_in: SignIn) -> None:
    page = open_case(sign_in("board"))
    page.keyboard.press("3")
    page.wait_for_selector("#whatif .outcomes")
    page.select_option("#course-name", "stop")
    page.wait_for_selector("#whatif path.against")
    with page.expect_response(lambda r: "/whatif" in r.url) as answer:
        set_range(page, "#start-weeks", 8)
    assert answer.value.ok
    expect(page.locator("#whatif .outcomes")).to_contain_text("Stop")
    page.context.close()


def recist(page: Page) -> str:
    return page.locator("#strip .fact", has_text="RECIST 1.1").locator(".badge").inner_text()


@pytest.mark.browser
def test_a_corrected_finding_changes_the_response(sign_in: SignIn) -> None:
    page = open_case(sign_in("clinician"))
    assert recist(page) == "PR"
    page.keyboard.press("2")
    row = page.locator("tr[data-finding]", has_text="Lesion 1 liver")
    row.get_by_role("button", name="Correct").focus()
    page.keyboard.press("e")
    page.get_by_label("Long axis mm", exact=True).fill("45")
    page.get_by_label("Reason").select_option("outline")
    page.get_by_role("button", name="Keep the correction").click()
    expect(row).to_contain_text("Corrected")
    # Through timeline, prediction and advice, and back onto this page without a reload.
    badge = page.locator("#strip .fact", has_text="RECIST 1.1").locator(".badge")
    expect(badge).to_have_text("SD", timeout=PATIENCE_MS)
    row.get_by_role("button", name="Withdraw").click()
    expect(badge).to_have_text("PR", timeout=PATIENCE_MS)
    page.context.close()


@pytest.mark.browser
def test_the_board_meets_decides_and_signs(sign_in: SignIn) -> None:
    chair, other, third = sign_in("board"), sign_in("clinician"), sign_in("admin")
    chair.goto("/meetings")
    chair.get_by_label("Title").fill("GI tumour board")
    chair.get_by_role("button", name="Plan").click()
    chair.get_by_label("Question for the board").fill("Resect, ablate or go on?")
    chair.get_by_role("button", name="Add").click()
    chair.wait_for_selector("ol.agenda")
    meeting = chair.url
    for page, discipline in ((other, "medical_oncology"), (third, "radiology")):
        page.goto(meeting)
        page.get_by_label("Discipline").select_option(discipline)
        page.locator("form[action$='/join'] button").click()
        page.wait_for_selector("text=Participants")
    for page in (chair, other, third):
        page.goto(meeting)
        page.get_by_role("link", name="Open the first case").click()
        page.wait_for_selector("#gl[data-ready='2']")
    chair.keyboard.press("p")
    expect(other.locator("#presenter")).to_have_text("board presents")
    assert min(follow_delays(chair, other)) < FOLLOWS_WITHIN_S

    chair.get_by_label("What we decide").fill("Resect after two more cycles")
    chair.get_by_label("Surgery").check()
    chair.get_by_label("Why", exact=True).fill("Three lesions, all shrinking")
    chair.get_by_role("button", name="Record").click()
    expect(other.locator(".decision")).to_have_text("Resect after two more cycles")
    other.get_by_label("Reason (needed for a dissent)").fill("Ablate the lung lesion")
    other.get_by_role("button", name="Dissent").click()
    for page, role in ((chair, "chair"), (other, "medical oncology"), (third, "radiology")):
        page.get_by_role("button", name=f"Sign as {role}").click()
    expect(chair.locator("#dock")).to_contain_text("Signed by all groups")
    expect(chair.locator("#dock")).to_contain_text("clinician dissents: Ablate the lung lesion")
    chair.goto(meeting)
    with chair.expect_download() as download:
        chair.get_by_role("link", name="Minutes (PDF)").click()
    content = Path(download.value.path()).read_bytes()
    assert content.startswith(b"%PDF-")
    assert len(content) > 3000
    for page in (chair, other, third):
        page.context.close()


def follow_delays(presenter: Page, follower: Page, distances: Sequence[int] = (600, -400, 500)) -> list[float]:
    """Seconds until the second browser has followed each scroll."""
    found = []
    for distance in distances:
        presenter.mouse.move(300, 420)
        presenter.wait_for_timeout(1500)
        before = follower.evaluate("window.scrollY")
        # The follower itself notes when it moves, so that the test's own way there and back does not count; by a timer,
        # because scroll events wait for the next picture, which the processor draws here.
        follower.evaluate(
            "from => { window.moved = 0; const watch = setInterval(() => { if (window.scrollY === from) return;"
            " window.moved = Date.now(); clearInterval(watch); }, 5); }",
            before,
        )
        began = presenter.evaluate("d => { const at = Date.now(); window.scrollBy(0, d); return at; }", distance)
        deadline = time.monotonic() + 20
        while not (moved := follower.evaluate("window.moved")) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert moved, f"nobody followed the move from {before}"
        found.append((moved - began) / 1000)
    return found


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["dark", "light", "projector"])
def test_axe_finds_nothing(sign_in: SignIn, osler: RunningOsler, theme: str) -> None:
    page = sign_in("board", WIDE)
    page.context.add_cookies([{"name": "osler_theme", "value": theme, "url": osler.url("board")}])
    script = (VENDOR / "axe.min.js").read_text(encoding="utf-8")
    case_path = page.locator("table.list a.strong").first.get_attribute("href") or ""
    page.goto("/meetings")
    meeting = page.locator("table.list a.strong").first.get_attribute("href") or ""
    found: dict[str, list[str]] = {}
    paths = ["/", "/meetings", "/tasks", "/reads", case_path, f"{case_path}/access", meeting,
             meeting + case_path, "/no-such-page"]  # fmt: skip
    for path in paths:
        page.goto(path)
        page.wait_for_timeout(300)
        page.evaluate(script)
        result = page.evaluate(
            "axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa'], iframes: false })"
        )
        problems = [f"{v['id']}: {n['html'][:160]}" for v in result["violations"] for n in v["nodes"]]
        if problems:
            found[path.split("/")[1] or "/"] = problems
    page.context.close()
    assert found == {}


@pytest.mark.browser
def test_everything_is_reached_by_key(sign_in: SignIn) -> None:
    page = open_case(sign_in("board"))
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#help")).to_be_hidden()
    unreachable = page.evaluate(
        "[...document.querySelectorAll('button, a, input, select, textarea, summary, canvas, iframe')]"
        ".filter(e => e.offsetParent && e.tabIndex < 0 && e.type !== 'hidden').map(e => e.outerHTML.slice(0, 120))"
    )
    assert unreachable == []
    for number, section in enumerate(("images", "findings", "twin", "course", "record", "surfaces"), start=1):
        page.keyboard.press(str(number))
        expect(page.locator("#case")).to_have_attribute("data-section", section)
    page.locator("#timeline").focus()
    span = "Number(document.getElementById('timeline').dataset.to) - Number(document.getElementById('timeline').dataset.from)"
    page.keyboard.press("Home")
    before = page.evaluate(span)
    page.keyboard.press("+")
    assert page.evaluate(span) == pytest.approx(before / 1.6, rel=0.01)
    page.keyboard.press("g")
    page.keyboard.press("m")
    page.wait_for_url("**/meetings")
    page.context.close()


@pytest.mark.browser
def test_a_lost_connection_is_told_and_nothing_typed_is_lost(sign_in: SignIn) -> None:
    page = open_case(sign_in("board"))
    page.locator("tr[data-finding]", has_text="Lesion 2 lung").get_by_role("button", name="Reject").click()
    page.get_by_label("In your own words").fill("looks like a vessel")
    page.context.set_offline(True)
    page.get_by_role("button", name="Reject the finding").click()
    expect(page.locator("#notice")).to_contain_text("connection to Osler is lost")
    assert page.get_by_label("In your own words").input_value() == "looks like a vessel"
    page.context.set_offline(False)
    page.context.close()


@pytest.mark.browser
def test_nothing_of_the_patient_stays_in_the_browser(sign_in: SignIn) -> None:
    page = open_case(sign_in("board"))
    stored = page.evaluate("JSON.stringify({ ...localStorage, ...sessionStorage })")
    assert stored == "{}"
    assert "Synthetic" not in page.title() + page.url
    page.context.close()
