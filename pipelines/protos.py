"""Generates the committed gRPC stubs from protos/, or checks that they are up to date.

python -m pipelines.protos            # write protos/gen
python -m pipelines.protos --check    # exit 1 and name the files that differ
"""

from __future__ import annotations

import argparse
import filecmp
import shutil
import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[1]
PROTOS = ROOT / "protos"
GEN = PROTOS / "gen"


def generate(out: Path) -> None:
    """Writes Python stubs (`_pb2.py`, `.pyi`, `_pb2_grpc.py`) for every .proto file under `out`."""
    sources = sorted(p for p in PROTOS.rglob("*.proto") if GEN not in p.parents)
    include = Path(grpc_tools.__file__).parent / "_proto"
    arguments = ["protoc", f"-I{PROTOS}", f"-I{include}", f"--python_out={out}", f"--pyi_out={out}"]
    if protoc.main([*arguments, *map(str, sources)]) != 0:
        raise SystemExit("protoc failed; its message above names the file and line")
    services = [s for s in sources if "service " in s.read_text(encoding="utf-8") and "osler" in s.parts]
    if protoc.main(["protoc", f"-I{PROTOS}", f"-I{include}", f"--grpc_python_out={out}", *map(str, services)]) != 0:
        raise SystemExit("protoc failed; its message above names the file and line")
    for folder in {p.parent for p in out.rglob("*.py")}:
        while folder != out:
            (folder / "__init__.py").touch()
            folder = folder.parent
    for package in (out / "osler", out / "buf"):
        (package / "py.typed").touch()


def differences(fresh: Path) -> list[str]:
    """Relative paths of stubs that are missing, stale or left over in protos/gen."""
    wanted = {p.relative_to(fresh) for p in fresh.rglob("*") if p.is_file()}
    present = {p.relative_to(GEN) for p in GEN.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    changed = {p for p in wanted & present if not filecmp.cmp(fresh / p, GEN / p, shallow=False)}
    return sorted(map(str, (wanted ^ present) | changed))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the committed stubs instead of writing them")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        generate(fresh)
        if options.check:
            stale = differences(fresh)
            if stale:
                print("stubs differ from the .proto files; run `python -m pipelines.protos`:", *stale, sep="\n  ")
            return 1 if stale else 0
        shutil.rmtree(GEN, ignore_errors=True)
        shutil.copytree(fresh, GEN)
    return 0


if __name__ == "__main__":
    sys.exit(main())
