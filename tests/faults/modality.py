"""A scanner with a queue: it sends until every instance was accepted, and sends some of them twice."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from io import BytesIO

import pydicom
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage

from tests.fixtures.dicom_files import ROOT, ct

_SUCCESS, _OUT_OF_RESOURCES = 0x0000, 0xA700


@dataclass
class Study:
    """One study to send; `accepted`: SOP instance UIDs that the archive has said it holds."""

    uid: str
    patient_id: str
    instances: dict[str, bytes]
    accepted: set[str] = field(default_factory=set)
    statuses: list[int] = field(default_factory=list)


def make_study(label: str, number: int, patient: str, chance: random.Random) -> Study:
    """Two or three slices; every second study tells how many there are."""
    uid = f"{ROOT}.{label}.{number}"
    count = chance.randint(2, 3)
    extra = {"NumberOfStudyRelatedInstances": count} if number % 2 else {}
    names = [f"{uid}.1.{slice_}" for slice_ in range(1, count + 1)]
    contents = [
        ct(n, study=uid, series=f"{uid}.1", PatientID=patient, PatientName=None, AccessionNumber="", **extra)
        for n in range(1, count + 1)
    ]
    return Study(uid, patient, dict(zip(names, contents, strict=True)))


class Modality(threading.Thread):
    """Sends studies one after the other, each until it is accepted whole, with a pause in between."""

    def __init__(self, port: int, studies: list[Study], pause_s: float, seed: str) -> None:
        super().__init__(name="modality", daemon=True)
        self._port, self._studies, self._pause_s = port, studies, pause_s
        self._chance = random.Random(seed)
        self._ae = AE("SCANNER")
        self._ae.add_requested_context(CTImageStorage)
        self._ae.acse_timeout = self._ae.dimse_timeout = self._ae.network_timeout = 15
        self._ae.connection_timeout = 5
        self.stopping = False

    def run(self) -> None:
        for study in self._studies:
            while not self.stopping and len(study.accepted) < len(study.instances):
                self._send(study)
                time.sleep(0.05)
            time.sleep(self._pause_s)

    def _send(self, study: Study) -> None:
        association = self._ae.associate("127.0.0.1", self._port)
        if not association.is_established:
            time.sleep(0.2)
            return
        try:
            for uid, content in study.instances.items():
                if uid in study.accepted and self._chance.random() < 0.7:
                    continue
                status = association.send_c_store(pydicom.dcmread(BytesIO(content))).get("Status")
                if status is None:
                    return
                study.statuses.append(status)
                if status == _SUCCESS:
                    study.accepted.add(uid)
                elif status != _OUT_OF_RESOURCES:
                    raise AssertionError(f"a good instance was refused with status {status:04X}")
        except (RuntimeError, ValueError):
            return  # the association went away
        finally:
            if association.is_established:
                association.release()
