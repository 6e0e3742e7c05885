"""Compiles the .proto files of the package into the descriptor sets that it loads.

Run it after a change to one of them: `python tools/generate_protos.py [FOLDER]` (needs grpcio-tools). What it writes is checked
in, because a descriptor set, unlike generated Python code, loads with every version of protobuf.
"""

from __future__ import annotations

import sys
from pathlib import Path

from grpc_tools import protoc  # type: ignore[import-untyped]

SOURCE_ROOT = Path(__file__).resolve().parents[1] / "src"
#: What is read of files, in packages of our own names; and what clients speak, in the packages that they know.
SAVEDMODEL = SOURCE_ROOT / "penstock" / "savedmodel"
APIS = SOURCE_ROOT / "penstock" / "codec" / "protos"
DESCRIPTORS = "descriptors.binpb"


def compile_protos(folder: Path, target: Path) -> None:
    """Writes the FileDescriptorSet of all .proto files of `folder` to `target`."""
    root = SOURCE_ROOT if folder == SAVEDMODEL else folder
    files = [str(path) for path in sorted(folder.rglob("*.proto"))]
    status = protoc.main(["protoc", f"--proto_path={root}", f"--descriptor_set_out={target}", "--include_imports", *files])
    if status != 0:
        sys.exit(f"protoc failed with status {status}")


if __name__ == "__main__":
    for package in (SAVEDMODEL, APIS):
        compile_protos(package, Path(sys.argv[1]) / f"{package.name}.binpb" if sys.argv[1:] else package / DESCRIPTORS)
