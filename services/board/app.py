"""The board's web application: wires the pages, the pass to the archive, and the OHIF viewer on Osler's DICOMweb."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import httpx
from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates
from starlette.background import BackgroundTask

from services.board import store
from services.board.access_pages import add_access_pages
from services.board.case_pages import add_case_pages
from services.board.live import watch_cases
from services.board.meeting_pages import add_meeting_pages
from services.board.pages import HERE, IdleLock, Pages, Reader, add_error_pages, make_templates
from services.board.reading import Board
from services.board.reads_pages import add_reads_pages
from services.board.smart_launch import resolver
from services.board.surfaces_pages import add_surface_pages
from services.platform.errors import OslerError
from services.platform.http import create_app
from services.platform.http_login import add_login
from services.platform.http_smart import add_smart
from services.platform.room import RoomContext
from services.platform.rpc import NotFoundError
from services.platform.security import PermissionDeniedError, Principal

VENDOR = HERE / "static" / "vendor"
OHIF = VENDOR / "ohif"
# NiiVue compiles small WebAssembly parts and decodes in workers made from blobs.
_PAGE_CSP = {
    "script-src": "'self' 'wasm-unsafe-eval'",
    "worker-src": "'self' blob:",
    "connect-src": "'self' blob: data:",
    "frame-src": "'self'",
}
_HOP_HEADERS = frozenset({"connection", "transfer-encoding", "content-encoding", "content-length", "server", "date"})


def build_app(context: RoomContext) -> FastAPI:
    """The board's web application."""
    ports = context.settings.http
    archive = httpx.AsyncClient(
        base_url=f"http://{ports.host}:{ports.port('ingest')}",
        timeout=httpx.Timeout(60.0, connect=5.0),
        trust_env=False,
    )
    templates = make_templates()
    templates.env.globals.update(has_ohif=OHIF.is_dir())
    idle = IdleLock(context.settings.board.idle_lock_s)
    pages = Pages(context, Board(context), templates, idle=idle)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(watch_cases(pages.hub, lambda keys: _stamps(pages, keys)))
        yield
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        for channel in (pages.twin, pages.imaging):
            if channel is not None:
                await channel.close()
        await archive.aclose()

    app = create_app(
        "osler board",
        settings=context.settings,
        security=context.security,
        csp=_PAGE_CSP,
        login_path="/login",
        lifespan=lifespan,
    )
    app.state.pages = pages
    add_error_pages(app, pages)
    add_login(app, after="/", page=_login_page(templates))
    add_smart(app, resolver(context))
    add_case_pages(app, pages)
    add_access_pages(app, pages)
    add_meeting_pages(app, pages)
    add_surface_pages(app, pages)
    add_reads_pages(app, pages)
    _add_dicomweb(app, pages, archive, context.security.token_provider("board"))
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    _add_ohif(app)
    return app


def _stamps(pages: Pages, keys: list[str]) -> Mapping[str, str]:
    with pages.database.session() as session:
        return store.stamps(session, keys)


def _login_page(templates: Jinja2Templates) -> Any:
    def page(request: Request, error: str, hidden: str, action: str) -> str:
        values = {"request": request, "error": error, "hidden": hidden, "action": action, "theme": "dark"}
        return templates.get_template("login.html").render(values)

    return page


_STUDY_IN_PATH = re.compile(r"^studies/([0-9.]{1,64})(?:/|$)")


def _add_dicomweb(app: FastAPI, pages: Pages, archive: httpx.AsyncClient, token: Callable[[], str]) -> None:
    """Passes DICOMweb reads on to the ingest room in the board's own name, so that browsers need one sign-in only.

    Only reads of a study that is named, of a case that is open to the reader, and a patient's other studies (the viewer
    asks for them) as far as these are: searching the archive is for its own door.
    """

    def require_study(reader: Principal, uid: str) -> None:
        with pages.database.session() as session:
            study = store.find_study(session, uid)
        if study is None:
            raise NotFoundError("there is no such study on the board")
        pages.require_open(reader, study.patient_key)

    def is_open(reader: Principal, uid: str) -> bool:
        with pages.database.session() as session:
            study = store.find_study(session, uid)
        return study is not None and pages.may_open(reader, study.patient_key)

    async def studies_of_a_patient(reader: Principal, url: httpx.URL, headers: Mapping[str, str]) -> Response:
        answer = await archive.get(url, headers={**headers, "accept": "application/dicom+json"})
        found = answer.json() if answer.status_code == HTTPStatus.OK else []
        uids = [study["0020000D"]["Value"][0] for study in found]
        open_to_reader = await asyncio.to_thread(lambda: [is_open(reader, uid) for uid in uids])
        shown = [study for study, is_shown in zip(found, open_to_reader, strict=True) if is_shown]
        return Response(json.dumps(shown), media_type="application/dicom+json")

    @app.get("/dicom-web/{path:path}")
    async def dicomweb(request: Request, reader: Reader, path: str) -> Response:
        named = _STUDY_IN_PATH.match(path)
        wanted = request.query_params.get("StudyInstanceUID") or request.query_params.get("0020000D") or ""
        uids = [named.group(1)] if named else [uid for uid in re.split(r"[,\\]", wanted) if uid]
        of_patient = path == "studies" and bool({"PatientID", "00100020"} & request.query_params.keys())
        if not uids and not of_patient:
            raise PermissionDeniedError("name a study: the board does not search the archive")
        for uid in uids:
            await asyncio.to_thread(require_study, reader, uid)
        # The archive names its own addresses in answers: they must be the ones that the browser knows.
        headers = {
            "authorization": f"Bearer {token()}",
            "accept": request.headers.get("accept", "*/*"),
            "x-forwarded-host": request.headers.get("host", ""),
            "x-forwarded-proto": request.url.scheme,
        }
        url = httpx.URL(path=f"/dicom-web/{path}", query=request.url.query.encode())
        try:
            if not uids:
                return await studies_of_a_patient(reader, url, headers)
            answer = await archive.send(archive.build_request("GET", url, headers=headers), stream=True)
        except httpx.TransportError:
            raise OslerError("the image archive does not answer") from None
        kept = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP_HEADERS}
        return StreamingResponse(answer.aiter_bytes(), answer.status_code, kept, background=_closing(answer))


def _closing(answer: httpx.Response) -> BackgroundTask:
    return BackgroundTask(answer.aclose)


_OHIF_CONFIG = """window.config = {
  routerBasename: '/', showStudyList: false, extensions: [], modes: [], customizationService: {},
  showWarningMessageForCrossOrigin: false, showCPUFallbackMessage: false, strictZSpacingForVolumeViewport: false,
  defaultDataSourceName: 'osler',
  dataSources: [{
    namespace: '@ohif/extension-default.dataSourcesModule.dicomweb', sourceName: 'osler',
    configuration: {
      friendlyName: 'Osler', name: 'osler', wadoUriRoot: '/dicom-web', qidoRoot: '/dicom-web', wadoRoot: '/dicom-web',
      qidoSupportsIncludeField: true, imageRendering: 'wadors', thumbnailRendering: 'wadors', enableStudyLazyLoad: true,
      supportsFuzzyMatching: false, supportsWildcard: true, omitQuotationForMultipartRequest: true,
      bulkDataURI: { enabled: true },
    },
  }],
};
"""


def _add_ohif(app: FastAPI) -> None:
    """OHIF's build expects to live at the root: its page is /viewer, its files are found after the board's own routes."""
    if not OHIF.is_dir():
        return
    page = (OHIF / "index.html").read_text(encoding="utf-8")
    # Its one inline script is allowed by its hash; it compiles WebAssembly and lays styles inline.
    inline = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in inline)
    policy = (
        f"default-src 'self'; script-src 'self' 'wasm-unsafe-eval' 'unsafe-eval' blob: {hashes}; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
        "connect-src 'self' blob: data:; worker-src 'self' blob:; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
    )

    @app.get("/viewer", response_class=HTMLResponse)
    async def viewer(reader: Reader) -> Response:
        return HTMLResponse(page, headers={"content-security-policy": policy})

    @app.get("/app-config.js")
    async def config() -> Response:
        return Response(_OHIF_CONFIG, media_type="text/javascript")

    @app.get("/{path:path}", include_in_schema=False)
    async def part(path: str) -> Response:
        file = (OHIF / path).resolve()
        if not path or OHIF not in file.parents or not file.is_file():
            raise NotFoundError("there is no such page")
        return FileResponse(file, headers={"content-security-policy": policy, "cache-control": "public, max-age=86400"})
