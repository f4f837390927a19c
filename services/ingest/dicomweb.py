"""DICOMweb: QIDO-RS and WADO-RS of the embedded archive, below /dicom-web.

Source: DICOM PS3.18 10.4 (Retrieve), 10.6 (Search). STOW-RS is in `dicomweb_store.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import StreamingResponse
from pydicom.uid import ExplicitVRLittleEndian
from sqlalchemy import Row

from services.ingest import frames, store
from services.ingest.archive import Archive, instance_ref
from services.ingest.dicom_file import MEDIA_TYPE, JsonDataset, tag_of
from services.ingest.frames import Frame
from services.ingest.multipart import Acceptable, RelatedWriter, parse_accept
from services.ingest.query import Level, from_parameters
from services.ingest.search import find
from services.platform.errors import RefusedError
from services.platform.http import require

PREFIX = "/dicom-web"
ROLES = ("clinician", "board", "admin", "service")
JSON_TYPE = "application/dicom+json"
# Metadata of about this many instances stays in memory.
_CACHED = 2048


def base_url(request: Request) -> str:
    """Where the caller sees this door; a proxy in front names itself in X-Forwarded-Host and X-Forwarded-Proto."""
    host = request.headers.get("x-forwarded-host", "") or _host(request)
    scheme = request.headers.get("x-forwarded-proto", request.url.scheme)
    return f"{scheme}://{host}{request.scope.get('root_path', '')}{PREFIX}"


def _host(request: Request) -> str:
    """The Host header; dicomweb-client leaves out the port there, which is then that of this server."""
    server = request.scope.get("server")
    if server and request.headers.get("host", "") == server[0] and server[1] not in (None, 80, 443):
        return f"{server[0]}:{server[1]}"
    return request.url.netloc


def json_response(content: Any, status: int = 200) -> Response:
    """DICOM JSON."""
    return Response(json.dumps(content), status, media_type=JSON_TYPE)


def router(archive: Archive) -> APIRouter:
    """The routes of QIDO-RS and WADO-RS; every one asks for a role of `ROLES`."""
    routes = APIRouter(prefix=PREFIX, dependencies=[Depends(require(*ROLES))])
    _add_search(routes, archive)
    _add_retrieve(routes, _Reader(archive))
    return routes


def _add_search(routes: APIRouter, archive: Archive) -> None:
    def search(level: Level, request: Request, **uids: str) -> Response:
        query = _refusals_as_400(lambda: from_parameters(level, request.query_params.multi_items(), uids))
        with archive.database.session() as session:
            found = find(session, query)
        return json_response([_with_url(dataset, base_url(request)) for dataset in found])

    @routes.get("/studies")
    def studies(request: Request) -> Response:
        return search("study", request)

    @routes.get("/series")
    def all_series(request: Request) -> Response:
        return search("series", request)

    @routes.get("/instances")
    def all_instances(request: Request) -> Response:
        return search("instance", request)

    @routes.get("/studies/{study}/series")
    def series_of_study(study: str, request: Request) -> Response:
        return search("series", request, StudyInstanceUID=study)

    @routes.get("/studies/{study}/instances")
    def instances_of_study(study: str, request: Request) -> Response:
        return search("instance", request, StudyInstanceUID=study)

    @routes.get("/studies/{study}/series/{series}/instances")
    def instances_of_series(study: str, series: str, request: Request) -> Response:
        return search("instance", request, StudyInstanceUID=study, SeriesInstanceUID=series)


def _refusals_as_400(make: Any) -> Any:
    try:
        return make()
    except RefusedError as error:
        raise HTTPException(400, str(error)) from error


def _with_url(dataset: JsonDataset, base: str) -> JsonDataset:
    names = (("studies", "StudyInstanceUID"), ("series", "SeriesInstanceUID"), ("instances", "SOPInstanceUID"))
    parts = [f"{name}/{dataset[tag_of(keyword)]['Value'][0]}" for name, keyword in names if tag_of(keyword) in dataset]
    return {**dataset, tag_of("RetrieveURL"): {"vr": "UR", "Value": ["/".join([base, *parts])]}}


def _add_retrieve(routes: APIRouter, reader: _Reader) -> None:
    @routes.get("/studies/{study}")
    @routes.get("/studies/{study}/series/{series}")
    @routes.get("/studies/{study}/series/{series}/instances/{instance}")
    def retrieve(request: Request, study: str, series: str = "", instance: str = "") -> Response:
        rows = reader.rows(study, series, instance)
        accept = request.headers.get("accept", "")
        choice, wanted = _choose(parse_accept(accept), MEDIA_TYPE)
        parts = reader.files(rows, wanted)
        if choice.multipart or len(rows) > 1 or choice.media_type == "*/*":
            return _multipart(MEDIA_TYPE, parts)
        kind, content = next(parts)
        return Response(content, media_type=kind)

    @routes.get("/studies/{study}/metadata")
    @routes.get("/studies/{study}/series/{series}/metadata")
    @routes.get("/studies/{study}/series/{series}/instances/{instance}/metadata")
    def metadata(request: Request, study: str, series: str = "", instance: str = "") -> Response:
        rows = reader.rows(study, series, instance)
        return json_response([reader.metadata(row, base_url(request)) for row in rows])

    @routes.get("/studies/{study}/series/{series}/instances/{instance}/frames/{numbers}")
    def frame_list(request: Request, study: str, series: str, instance: str, numbers: str) -> Response:
        [row] = reader.rows(study, series, instance)
        if not all(number.isdecimal() for number in numbers.split(",")):
            raise HTTPException(400, "frames are numbers from 1, separated by commas")
        choices = parse_accept(request.headers.get("accept", ""))
        found = reader.frames(row, [int(number) for number in numbers.split(",")], choices)
        return _multipart(found[0].media_type, ((part.content_type, part.content) for part in found))

    @routes.get("/studies/{study}/series/{series}/instances/{instance}/bulkdata/{path:path}")
    def bulk_data(study: str, series: str, instance: str, path: str) -> Response:
        [row] = reader.rows(study, series, instance)
        found = _refusals_as_404(lambda: frames.bulk_data(reader.dataset(row), path.split("/")))
        return _multipart(found[0].media_type, ((part.content_type, part.content) for part in found))


def _refusals_as_404(make: Any) -> Any:
    try:
        return make()
    except RefusedError as error:
        raise HTTPException(404, str(error)) from error


def _multipart(media_type: str, parts: Any) -> Response:
    writer = RelatedWriter(media_type)
    return StreamingResponse(writer.write(parts), headers={"content-type": writer.content_type})


def _choose(choices: Sequence[Acceptable], media_type: str) -> tuple[Acceptable, str]:
    """The best choice that takes this media type, and the transfer syntax it asks for ("" or "*": as stored)."""
    for choice in choices:
        if choice.takes(media_type):
            return choice, choice.transfer_syntax
    raise HTTPException(406, f"given as {media_type}, in multipart/related or alone")


class _Reader:
    """Reads stored instances for answers."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._cached_metadata = lru_cache(maxsize=_CACHED)(self._read_metadata)
        # The frames of one multi-frame instance are asked for one after another.
        self._cached_dataset = lru_cache(maxsize=4)(self._read_dataset)

    def rows(self, study: str, series: str, instance: str) -> Sequence[Row[Any]]:
        """Index rows of a study, a series or an instance. Raises HTTPException 404."""
        with self._archive.database.session() as session:
            rows = store.instance_rows(session, study, series, instance)
        if not rows:
            raise HTTPException(404, "not in this archive")
        return rows

    def content(self, row: Row[Any]) -> bytes:
        """The stored bytes."""
        return self._archive.blobs.get(instance_ref(row))

    def dataset(self, row: Row[Any]) -> Any:
        """The stored data set; do not change it."""
        return self._cached_dataset(row)

    def _read_dataset(self, row: Row[Any]) -> Any:
        return frames.read(self.content(row))

    def files(self, rows: Sequence[Row[Any]], wanted: str) -> Iterator[tuple[str, bytes]]:
        """(Content-Type, file) for each row, in the transfer syntax asked for. Raises HTTPException 406."""
        same = wanted in ("", "*")
        if not same and wanted != ExplicitVRLittleEndian and any(r.transfer_syntax_uid != wanted for r in rows):
            raise HTTPException(406, f"given as stored or as {ExplicitVRLittleEndian}")
        return self._files(rows, "" if same else wanted)

    def _files(self, rows: Sequence[Row[Any]], wanted: str) -> Iterator[tuple[str, bytes]]:
        for row in rows:
            content, syntax = self.content(row), row.transfer_syntax_uid
            if wanted and wanted != syntax:
                content, syntax = frames.transcode(content, wanted), wanted
            yield f"{MEDIA_TYPE}; transfer-syntax={syntax}", content

    def metadata(self, row: Row[Any], base: str) -> JsonDataset:
        """DICOM JSON with links below `base`."""
        return self._cached_metadata(row, base)

    def _read_metadata(self, row: Row[Any], base: str) -> JsonDataset:
        place = f"{base}/studies/{row.study_uid}/series/{row.series_uid}/instances/{row.sop_uid}"
        found = frames.metadata(frames.read(self.content(row)), f"{place}/bulkdata")
        return {
            **found,
            tag_of("RetrieveURL"): {"vr": "UR", "Value": [place]},
            tag_of("AvailableTransferSyntaxUID"): {"vr": "UI", "Value": [row.transfer_syntax_uid]},
        }

    def frames(self, row: Row[Any], numbers: Sequence[int], choices: Sequence[Acceptable]) -> list[Frame]:
        """Frames as stored or in little endian, whichever the first possible choice asks for.

        Raises HTTPException 404 for a frame that is not there, 406 when no choice can be met.
        """
        stored = row.transfer_syntax_uid
        as_stored_type = frames.media_type_of(stored)
        for choice in choices:
            native = choice.takes(frames.OCTETS) and choice.transfer_syntax in ("", str(ExplicitVRLittleEndian))
            kept = choice.transfer_syntax in ("*", stored) and (
                choice.takes(as_stored_type) or choice.takes(frames.OCTETS)
            )
            kept = kept or (choice.takes(as_stored_type) and choice.media_type != "*/*" and not choice.transfer_syntax)
            if kept or native:
                dataset = self.dataset(row)
                return [self._frame(dataset, number, as_stored=kept) for number in numbers]
        raise HTTPException(406, f"frames are given as {as_stored_type} as stored, or as {frames.OCTETS}")

    def _frame(self, dataset: Any, number: int, *, as_stored: bool) -> Frame:
        try:
            return frames.frame(dataset, number, as_stored=as_stored)
        except RefusedError as error:
            raise HTTPException(404 if error.reason == "dicom.no_such_frame" else 406, str(error)) from error
