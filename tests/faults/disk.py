"""A small file system that can be filled."""

from __future__ import annotations

import subprocess
from pathlib import Path


class Disk:
    """`size_mb` of memory mounted on `folder` (root, in a mount namespace of its own)."""

    def __init__(self, folder: Path, size_mb: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mb}m,mode=777", "tmpfs", str(folder)], check=True)
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Takes every byte that is left."""
        with self._ballast.open("wb", buffering=0) as file:
            for size in (2**20, 2**12, 1):
                try:
                    while file.write(b"\0" * size):
                        pass
                except OSError:
                    continue

    def heal(self) -> None:
        self._ballast.unlink(missing_ok=True)

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=False)
