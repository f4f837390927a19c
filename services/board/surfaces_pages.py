"""Surfaces and projections of a case: the list, the viewer, GLB, STL, MIP."""

from __future__ import annotations

import asyncio
import hashlib
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Literal

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse

from services.board import mip, store, surfaces
from services.board.pages import Pages, Reader
from services.board.ranges import cache_headers, not_modified, ranged
from services.board.surfaces import Surface
from services.clinical.dicom.series import load_series, read_manifest_series
from services.clinical.suv import suv_scale
from services.clinical.volume import ImageVolume
from services.platform.errors import RefusedError
from services.platform.rpc import NotFoundError

# <model-viewer> lays its own styles inline and decodes in workers: it lives in a frame of its own, so that no other page
# allows that.
_FRAME_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self' blob: data:; worker-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
_MEDIA = {"glb": "model/gltf-binary", "stl": "model/stl"}


def add_surface_pages(app: FastAPI, pages: Pages) -> None:
    """Registers the routes."""
    made = lru_cache(maxsize=6)(lambda key, study, stamp: _surfaces(pages, key, study))
    exported = lru_cache(maxsize=12)(lambda key, study, stamp, kind: surfaces.export(made(key, study, stamp), kind))
    volumes = lru_cache(maxsize=4)(lambda key, series: _projectable(pages, key, series))

    @app.get("/case/{patient_key}/surfaces", response_class=HTMLResponse)
    async def surface_list(request: Request, reader: Reader, patient_key: str, study: str = "") -> Response:
        def read() -> dict[str, Any]:
            visits = _visits(pages, patient_key)
            chosen = study if study in visits else next(reversed(visits), "")
            found = made(patient_key, chosen, visits[chosen][1]) if chosen else []
            return {"visits": visits, "chosen": chosen, "surfaces": found}

        values = await asyncio.to_thread(read)
        return pages.render(request, "case_surfaces.html", reader, key=patient_key, **values)

    @app.get("/case/{patient_key}/surfaces/{study_uid}/view", response_class=HTMLResponse)
    async def surface_view(request: Request, reader: Reader, patient_key: str, study_uid: str) -> Response:
        response = pages.render(request, "surfaces_view.html", reader, key=patient_key, study=study_uid)
        response.headers["content-security-policy"] = _FRAME_POLICY
        response.headers["x-frame-options"] = "SAMEORIGIN"
        return response

    @app.get("/case/{patient_key}/surfaces/{study_uid}/model.{kind}")
    async def surface_file(
        request: Request, _reader: Reader, patient_key: str, study_uid: str, kind: Literal["glb", "stl"]
    ) -> Response:
        visits = await asyncio.to_thread(_visits, pages, patient_key)
        if study_uid not in visits:
            raise NotFoundError("this visit has no segmentation")
        stamp = visits[study_uid][1]
        tag = hashlib.sha256(f"{study_uid} {stamp} {kind}".encode()).hexdigest()[:32]
        if not_modified(request, tag):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=cache_headers(tag))
        content = await asyncio.to_thread(exported, patient_key, study_uid, stamp, kind)
        return ranged(request, content, _MEDIA[kind], f"surfaces.{kind}", tag)

    @app.get("/case/{patient_key}/mip/{series_uid}/{angle}.png")
    async def projection(_reader: Reader, patient_key: str, series_uid: str, angle: int, top: float = 8.0) -> Response:
        def make() -> bytes:
            volume, bottom = volumes(patient_key, series_uid)
            highest = float(volume.array.max()) if bottom < 0 else top
            return mip.to_png(mip.project(volume, float(angle % 360)), highest, bottom)

        headers = {"cache-control": "private, max-age=600"}
        return Response(await asyncio.to_thread(make), media_type="image/png", headers=headers)


def _visits(pages: Pages, patient_key: str) -> dict[str, tuple[str, str]]:
    """Study -> (day, stamp) of visits with a segmentation, oldest first. The stamp changes with the segmentations."""
    with pages.database.session() as session:
        analyses = store.analyses(session, patient_key)
    found = {}
    for study in pages.board.studies(patient_key):
        analysis = analyses.get(study.study_instance_uid)
        made = [o.content.sha256 for o in analysis.derived_objects if o.modality == "SEG"] if analysis else []
        if analysis and made:
            day = f"{study.study_time:%d %b %Y}" if study.study_time else "no date"
            found[study.study_instance_uid] = (day, " ".join([study.manifest.sha256, *made]))
    return found


def _surfaces(pages: Pages, patient_key: str, study_uid: str) -> list[Surface]:
    """Regions of a visit's segmentations, each name once (the first series that has it), and the body around them."""
    with pages.database.session() as session:
        analysis = store.analyses(session, patient_key).get(study_uid)
    found: dict[str, Surface] = {}
    for made in analysis.derived_objects if analysis else ():
        if made.modality == "SEG":
            for surface in surfaces.from_segmentation(pages.context.blobs.get(made.content)):
                found.setdefault(surface.name, surface)
    body = _body(pages, patient_key, study_uid)
    return [*found.values(), *([body] if body else [])]


def _body(pages: Pages, patient_key: str, study_uid: str) -> Surface | None:
    study = next((s for s in pages.board.studies(patient_key) if s.study_instance_uid == study_uid), None)
    if study is None:
        return None
    manifest = pages.board.manifest(study)
    ct = next((s for s in manifest.series if s.modality == "CT" and not s.derived), None)
    if ct is None:
        return None
    try:
        return surfaces.skin(load_series(read_manifest_series(manifest, ct.series_instance_uid, pages.context.blobs)))
    except RefusedError:
        return None


def _projectable(pages: Pages, patient_key: str, series_uid: str) -> tuple[ImageVolume, float]:
    """The series, PET in SUV, and the value that is shown white."""
    for study in pages.board.studies(patient_key):
        manifest = pages.board.manifest(study)
        if any(s.series_instance_uid == series_uid for s in manifest.series):
            datasets = read_manifest_series(manifest, series_uid, pages.context.blobs)
            volume = load_series(datasets)
            if volume.modality != "PT":
                return volume, min(-1.0, float(volume.array.min()))
            volume.array[...] *= suv_scale(datasets).body_weight
            return volume, 0.0
    raise NotFoundError("there is no such series in this case")
