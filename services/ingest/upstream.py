"""In front of an existing archive: instances go on to it with STOW-RS and are read back with WADO-RS.

Source: DICOM PS3.18 10.5 (Store Transaction). The index stays with Osler; the pixels stay with the archive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx
from osler.common.v1 import common_pb2

from services.ingest.dicom_file import MEDIA_TYPE, InstanceHeader, tag_of
from services.ingest.multipart import RelatedWriter
from services.platform.errors import RefusedError, RetryableError

_TIMEOUT = httpx.Timeout(120.0, connect=10.0)


@dataclass(frozen=True)
class UpstreamKeeper:
    """Keeps instances in a DICOMweb archive. `url`: its base URL; `headers` go with each request."""

    url: str
    headers: Mapping[str, str]
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=_TIMEOUT))

    def keep(self, header: InstanceHeader, content: bytes) -> common_pb2.BlobRef:
        """Stores an instance there and refers to it by its WADO-RS URL.

        Raises RetryableError when the archive is away, full or does not let us in; RefusedError
        `dicom.archive_refused` when it does not take the instance.
        """
        writer = RelatedWriter(MEDIA_TYPE)
        # The part's type carries no transfer syntax: Orthanc does not take a part that has one.
        headers = {**self.headers, "content-type": writer.content_type, "accept": "application/dicom+json"}
        try:
            answer = self.client.post(
                f"{self._base}/studies", content=b"".join(writer.write([(MEDIA_TYPE, content)])), headers=headers
            )
        except httpx.TransportError as error:
            raise RetryableError(f"the DICOMweb archive cannot be reached: {type(error).__name__}") from error
        if answer.status_code in (401, 403, 408, 413, 429) or answer.status_code >= 500:
            raise RetryableError(
                f"the DICOMweb archive answered {answer.status_code}: check archive.headers and its state"
            )
        if answer.status_code != 200 or header.sop_instance_uid not in _stored(answer):
            raise RefusedError(
                "dicom.archive_refused",
                f"the archive behind Osler did not store the instance (STOW-RS answered {answer.status_code})",
                remedy="look into that archive's log, then replay the instance",
                subject=header.sop_instance_uid,
            )
        return common_pb2.BlobRef(uri=self._place(header), size_bytes=len(content), media_type=MEDIA_TYPE)

    @property
    def _base(self) -> str:
        return self.url.rstrip("/")

    def _place(self, header: InstanceHeader) -> str:
        series = f"studies/{header.study_instance_uid}/series/{header.series_instance_uid}"
        return f"{self._base}/{series}/instances/{header.sop_instance_uid}"


def _stored(answer: httpx.Response) -> set[str]:
    """The SOP instances that the archive says it stored: some answer 200 and store nothing."""
    try:
        items = answer.json()[tag_of("ReferencedSOPSequence")]["Value"]
        return {item[tag_of("ReferencedSOPInstanceUID")]["Value"][0] for item in items}
    except (ValueError, KeyError, IndexError, TypeError):
        return set()
