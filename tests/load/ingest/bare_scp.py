"""The bare loop beside Osler's door: a pynetdicom listener that writes each instance to a file, and nothing more."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path

from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage


def main(port: int, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)

    def store(event: evt.Event) -> int:
        (folder / f"{uuid.uuid4().hex}.dcm").write_bytes(event.encoded_dataset())
        return 0x0000

    scp = AE("BARE")
    scp.maximum_pdu_size = 131072
    scp.add_supported_context(CTImageStorage)
    scp.start_server(("127.0.0.1", port), block=True, evt_handlers=[(evt.EVT_C_STORE, store)])


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
