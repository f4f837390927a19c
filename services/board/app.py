"""The board's pages: sign-in, case list, case page, volumes for the viewer, and the OHIF viewer on Osler's DICOMweb."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates
from osler.fusion.v1 import fusion_pb2
from osler.ingest.v1 import ingest_pb2
from starlette.background import BackgroundTask

from services.board import case as cases
from services.board import store, volumes
from services.clinical.dicom.series import find_series, load_series, read_manifest_series
from services.clinical.suv import suv_scale
from services.platform.errors import OslerError, RefusedError
from services.platform.http import create_app, csrf_token, require
from services.platform.http_login import add_login
from services.platform.room import RoomContext
from services.platform.rpc import NotFoundError
from services.platform.security import Principal

HERE = Path(__file__).parent
VENDOR = HERE / "static" / "vendor"
OHIF = VENDOR / "ohif"
_READERS = ("clinician", "board", "admin")
Reader = Annotated[Principal, Depends(require(*_READERS))]
# NiiVue compiles small WebAssembly parts and decodes in workers made from blobs.
_PAGE_CSP = {
    "script-src": "'self' 'wasm-unsafe-eval'",
    "worker-src": "'self' blob:",
    "connect-src": "'self' blob: data:",
}
_HOP_HEADERS = frozenset({"connection", "transfer-encoding", "content-encoding", "content-length", "server", "date"})


class Board:
    """Reads cases and volumes for the pages."""

    def __init__(self, context: RoomContext) -> None:
        self._database = context.database
        self._blobs = context.blobs

    def worklist(self) -> list[tuple[store.Case, cases.Summary]]:
        with self._database.session() as session:
            found = store.cases(session)
        today = datetime.now(UTC).date()
        return [(c, cases.summarise(self._snapshot(c), today)) for c in found]

    def _snapshot(self, case: store.Case) -> fusion_pb2.PatientSnapshot:
        return fusion_pb2.PatientSnapshot.FromString(self._blobs.get(case.snapshot))

    def view(self, patient_key: str) -> tuple[store.Case, cases.CaseView, list[dict[str, Any]]]:
        """Raises NotFoundError for an unknown patient."""
        with self._database.session() as session:
            found = store.find_case(session, patient_key)
            if found is None:
                raise NotFoundError("there is no such case: it may have been merged into another patient")
            registrations = store.registrations(session, patient_key)
            studies = store.studies(session, patient_key)
        snapshot = self._snapshot(found)
        page = cases.view(snapshot, found.predictions, found.advice, registrations, datetime.now(UTC))
        return found, page, [self._visit(s, cases.places(snapshot, s.study_instance_uid)) for s in studies]

    def _visit(self, study: store.Study, places: list[cases.Place]) -> dict[str, Any]:
        manifest = self._manifest(study)
        return {
            "study_uid": study.study_instance_uid,
            "date": f"{study.study_time:%d %b %Y}" if study.study_time else "no date",
            "series": [
                {
                    "uid": s.series_instance_uid,
                    "modality": s.modality,
                    "label": s.label,
                    "frame": s.frame_of_reference_uid,
                }
                for s in volumes.shown_series(manifest)
            ],
            "places": [{"label": p.label, "ras": p.ras_mm, "frame": p.frame_of_reference_uid} for p in places],
        }

    def _manifest(self, study: store.Study) -> ingest_pb2.StudyManifest:
        return ingest_pb2.StudyManifest.FromString(self._blobs.get(study.manifest))

    def volume(self, patient_key: str, series_uid: str, space_of: str) -> bytes:
        """A series as NIfTI in the space of series `space_of`.

        Raises NotFoundError for an unknown series, RefusedError when no good registration links the two.
        """
        with self._database.session() as session:
            studies = store.studies(session, patient_key)
            registrations = store.registrations(session, patient_key)
        manifests = {s.series_instance_uid: m for m in map(self._manifest, studies) for s in m.series}
        frames = {uid: find_series(m, uid).frame_of_reference_uid for uid, m in manifests.items()}
        if series_uid not in manifests or space_of not in manifests:
            raise NotFoundError("there is no such series in this case")
        placement = volumes.moving_to_fixed(space_of, series_uid, registrations)
        if placement is None and frames[series_uid] and frames[series_uid] == frames[space_of]:
            placement = np.eye(4)
        if placement is None:
            raise RefusedError(
                "board.not_aligned",
                "these two series were not aligned with confidence, so they are not shown on top of each other",
                remedy="show them side by side, or look at the registration's verdict on this page",
            )
        datasets = read_manifest_series(manifests[series_uid], series_uid, self._blobs)
        volume = load_series(datasets)
        scale = suv_scale(datasets).body_weight if volume.modality == "PT" else 1.0
        return volumes.to_nifti(volume, placement, scale)


def build_app(context: RoomContext) -> FastAPI:
    """The board's web application."""
    ports = context.settings.http
    archive = httpx.AsyncClient(
        base_url=f"http://{ports.host}:{ports.port('ingest')}",
        timeout=httpx.Timeout(60.0, connect=5.0),
        trust_env=False,
    )

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await archive.aclose()

    app = create_app(
        "osler board",
        settings=context.settings,
        security=context.security,
        csp=_PAGE_CSP,
        login_path="/login",
        lifespan=lifespan,
    )
    board = Board(context)
    templates = Jinja2Templates(HERE / "templates")
    templates.env.filters.update(number=_number, day=lambda d: f"{d:%d %b %Y}" if d else "")
    templates.env.globals.update(has_ohif=OHIF.is_dir())
    add_login(app, after="/", page=_login_page(templates))
    _add_pages(app, board, templates)
    _add_dicomweb(app, archive, context.security.token_provider("board"))
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    _add_ohif(app)
    return app


def _number(value: float | None, digits: int = 3) -> str:
    """`3.14`, `1250`, or a dash."""
    if value is None:
        return "–"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"


def _login_page(templates: Jinja2Templates) -> Any:
    def page(request: Request, error: str, hidden: str, action: str) -> str:
        values = {"request": request, "error": error, "hidden": hidden, "action": action}
        return templates.get_template("login.html").render(values)

    return page


def _add_pages(app: FastAPI, board: Board, templates: Jinja2Templates) -> None:
    volume = lru_cache(maxsize=24)(board.volume)

    @app.get("/", response_class=HTMLResponse)
    async def index(request: Request, reader: Reader) -> Response:
        found = await asyncio.to_thread(board.worklist)
        values = {"cases": found, "csrf": csrf_token(request), "who": reader.subject}
        return templates.TemplateResponse(request, "index.html", values)

    @app.get("/case/{patient_key}", response_class=HTMLResponse)
    async def case_page(request: Request, reader: Reader, patient_key: str) -> Response:
        case, view, visits = await asyncio.to_thread(board.view, patient_key)
        values = {"case": case, "view": view, "visits": visits, "csrf": csrf_token(request), "who": reader.subject}
        return templates.TemplateResponse(request, "case.html", values)

    @app.get("/case/{patient_key}/volume/{series_uid}/in/{space_of}.nii.gz")
    async def series_volume(reader: Reader, patient_key: str, series_uid: str, space_of: str) -> Response:
        content = await asyncio.to_thread(volume, patient_key, series_uid, space_of)
        # Not Content-Encoding: the viewer expects the file itself to be gzipped.
        return Response(
            content, media_type="application/octet-stream", headers={"cache-control": "private, max-age=600"}
        )


def _add_dicomweb(app: FastAPI, archive: httpx.AsyncClient, token: Callable[[], str]) -> None:
    """Passes DICOMweb reads on to the ingest room in the board's own name, so that browsers need one sign-in only."""

    @app.get("/dicom-web/{path:path}")
    async def dicomweb(request: Request, reader: Reader, path: str) -> Response:
        # The archive names its own addresses in answers: they must be the ones that the browser knows.
        headers = {
            "authorization": f"Bearer {token()}",
            "accept": request.headers.get("accept", "*/*"),
            "x-forwarded-host": request.headers.get("host", ""),
            "x-forwarded-proto": request.url.scheme,
        }
        url = httpx.URL(path=f"/dicom-web/{path}", query=request.url.query.encode())
        try:
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
