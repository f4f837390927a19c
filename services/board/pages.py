"""What every page of the board stands on: who reads, which cases they may open, templates, and errors as pages."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

import grpc.aio
from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.templating import Jinja2Templates
from starlette.exceptions import HTTPException

from services.board import access_store, store
from services.board.access import READERS, GlassError, may_open
from services.board.live import Hub
from services.board.reading import Board
from services.platform.database import Database
from services.platform.errors import OslerError
from services.platform.http import csrf_token, require
from services.platform.room import RoomContext
from services.platform.rpc import NotFoundError
from services.platform.security import AuthenticationError, Principal

HERE = Path(__file__).parent
THEMES = {"dark": "Dark reading", "light": "Light", "projector": "Projector"}
THEME_COOKIE = "osler_theme"
_REMEMBERED_SESSIONS = 20_000
# Browsers ask for these by themselves: they are no sign that somebody is there.
_PASSIVE = ("/live", "/part/")


class IdleLock:
    """Ends sessions that nobody used for a while. Remembers in this process only: a restart forgives."""

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self._seen: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    def touch(self, principal: Principal, passive: bool, now: float | None = None) -> None:
        """Raises AuthenticationError for a session that was idle too long; it stays ended."""
        key = principal.token_id
        if not key:
            return
        now = time.monotonic() if now is None else now
        with self._lock:
            seen = self._seen.get(key, now)
            if now - seen > self._longest_s:
                raise AuthenticationError("this session was locked after a while without activity: sign in again")
            if not passive or key not in self._seen:
                self._seen[key] = now
                self._seen.move_to_end(key)
            while len(self._seen) > _REMEMBERED_SESSIONS:
                self._seen.popitem(last=False)


@dataclass
class Pages:
    """Shared by the routers."""

    context: RoomContext
    board: Board
    templates: Jinja2Templates
    hub: Hub = field(default_factory=Hub)
    idle: IdleLock = field(default_factory=lambda: IdleLock(900))
    # Channels belong to the event loop that serves; they are opened when first asked.
    twin: grpc.aio.Channel | None = None
    imaging: grpc.aio.Channel | None = None

    @property
    def database(self) -> Database:
        return self.context.database

    def may_open(self, principal: Principal, patient_key: str) -> bool:
        with self.database.session() as session:
            case = access_store.case_access(session, patient_key, principal.subject)
        return may_open(principal, case, self.context.settings.board.case_access, datetime.now(UTC))

    def require_open(self, principal: Principal, patient_key: str) -> None:
        """Raises GlassError for a case that the caller may not open, NotFoundError for none."""
        if not self.may_open(principal, patient_key):
            with self.database.session() as session:
                known = store.find_case(session, patient_key)
            if known is None:
                raise NotFoundError("there is no such case")
            raise GlassError("this case is open to its team only: break the glass with a reason, or ask for access")

    def render(
        self, request: Request, template: str, reader: Principal | None, *, status: int = HTTPStatus.OK, **values: Any
    ) -> Response:
        """A page or a part of one, with who is signed in and the session's CSRF token."""
        shared = {
            "who": reader.subject if reader else "",
            "keeper": bool(reader and reader.has("board", "admin")),
            "csrf": csrf_token(request),
            "idle_s": self.context.settings.board.idle_lock_s,
        }
        return self.templates.TemplateResponse(request, template, shared | values, status_code=status)


def pages_of(request: Request) -> Pages:
    found: Pages = request.app.state.pages
    return found


async def _reader(request: Request) -> Principal:
    pages = pages_of(request)
    principal = await require(*READERS)(request)
    if "authorization" not in request.headers:
        pages.idle.touch(principal, any(part in request.url.path for part in _PASSIVE))
    key = request.path_params.get("patient_key")
    if key and not request.url.path.endswith("/glass"):
        await asyncio.to_thread(pages.require_open, principal, key)
    return principal


#: The signed-in reader; for routes with a `patient_key`, one who may open that case.
Reader = Annotated[Principal, Depends(_reader)]


def theme_of(request: Request) -> str:
    """The theme that the browser chose."""
    chosen = request.cookies.get(THEME_COOKIE, "")
    return chosen if chosen in THEMES else "dark"


def _number(value: float | None, digits: int = 3) -> str:
    """`3.14`, `1250`, or a dash."""
    if value is None:
        return "–"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"


_UNITS = (("10*9", "×10⁹"), ("10*12", "×10¹²"), ("10*3", "×10³"), ("10*6", "×10⁶"), ("mm[Hg]", "mmHg"), ("[iU]", "IU"),
          ("{1.73_m2}", "1.73 m²"), ("m2", "m²"), ("cm3", "cm³"), ("ug/", "µg/"), ("Cel", "°C"), ("[hnsf'U]", "HU"))  # fmt: skip
_ANNOTATION = re.compile(r"\{[^}]*\}")


def unit_words(ucum: str) -> str:
    """A UCUM unit as clinicians write it: `10*9/L` is ×10⁹/L, `mm[Hg]` is mmHg; "1" is nothing."""
    text = "" if ucum == "1" else ucum
    for code, words in _UNITS:
        text = text.replace(code, words)
    return _ANNOTATION.sub("", text)


def percent_words(change: float) -> str:
    """A change in percent with its sign; what rounds to nothing has none."""
    return "0 %" if abs(change) < 0.5 else f"{change:+.0f} %".replace("-", "−")


def _moment(value: datetime | None) -> str:
    return f"{value:%d %b %Y %H:%M} UTC" if value else ""


def make_templates() -> Jinja2Templates:
    """The templates with the filters that they use. Everything is escaped unless a template says otherwise."""
    templates = Jinja2Templates(HERE / "templates", context_processors=[lambda r: {"theme": theme_of(r)}])
    templates.env.filters.update(
        number=_number,
        day=lambda d: f"{d:%d %b %Y}" if d else "",
        moment=_moment,
        unit=unit_words,
        percent=percent_words,
    )
    templates.env.globals.update(themes=THEMES)
    return templates


def add_error_pages(app: FastAPI, pages: Pages) -> None:
    """Browsers get errors as pages that say what to do; everybody else keeps the problem documents."""
    for kind in (OslerError, HTTPException, RequestValidationError):
        plain: Any = app.exception_handlers[kind]

        async def handler(request: Request, error: Exception, plain: Any = plain) -> Response:
            answer: Response = await plain(request, error)
            if answer.status_code < HTTPStatus.BAD_REQUEST or not wants_page(request):
                return answer
            if isinstance(error, GlassError):
                return _glass_page(request, pages)
            return _error_page(request, pages, answer.status_code, error)

        app.add_exception_handler(kind, handler)


def wants_page(request: Request) -> bool:
    """A browser that opens a page, or a part of one that is swapped in."""
    accepts = "text/html" in request.headers.get("accept", "")
    return accepts or request.headers.get("hx-request") == "true"


def _glass_page(request: Request, pages: Pages) -> Response:
    principal = getattr(request.state, "principal", None)
    key = request.path_params.get("patient_key", "")
    minutes = pages.context.settings.board.break_glass_minutes
    return pages.render(request, "glass.html", principal, status=HTTPStatus.FORBIDDEN, patient_key=key, minutes=minutes)


_ADVICE = {
    HTTPStatus.NOT_FOUND: "The case or page may have moved. Go back to the list of cases.",
    HTTPStatus.FORBIDDEN: "Ask whoever keeps the board for the role or for access to this case.",
    HTTPStatus.UNAUTHORIZED: "Sign in again.",
    HTTPStatus.UNPROCESSABLE_ENTITY: "Go back, change what is named here, and send it again.",
    HTTPStatus.SERVICE_UNAVAILABLE: "Another part of Osler does not answer. Try again in a moment.",
}


def _error_page(request: Request, pages: Pages, status: int, error: Exception) -> Response:
    known = status != HTTPStatus.INTERNAL_SERVER_ERROR and isinstance(error, OslerError | HTTPException)
    said = str(getattr(error, "message", "") or getattr(error, "detail", "") or error) if known else ""
    remedy = str(getattr(error, "remedy", "")) or _ADVICE.get(HTTPStatus(status), "The service's log names the cause.")
    template = "part_error.html" if request.headers.get("hx-request") == "true" else "error.html"
    principal = getattr(request.state, "principal", None)
    values = {"title": HTTPStatus(status).phrase, "said": said, "remedy": remedy}
    return pages.render(request, template, principal, status=status, **values)
