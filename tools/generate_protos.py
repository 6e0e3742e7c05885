"""Compiles the .proto files of penstock.savedmodel into the descriptor set that the package loads.

Run it after a change to one of them: `python tools/generate_protos.py [TARGET]` (needs grpcio-tools). What it writes is
checked in, because a descriptor set, unlike generated Python code, loads with every version of protobuf.
"""

from __future__ import annotations

import sys
from pathlib import Path

from grpc_tools import protoc  # type: ignore[import-untyped]

SOURCE_ROOT = Path(__file__).resolve().parents[1] / "src"
PACKAGE = SOURCE_ROOT / "penstock" / "savedmodel"


def compile_protos(target: Path) -> None:
    """Writes the FileDescriptorSet of all our .proto files to `target`."""
    files = [str(path) for path in sorted(PACKAGE.glob("*.proto"))]
    status = protoc.main(["protoc", f"--proto_path={SOURCE_ROOT}", f"--descriptor_set_out={target}", *files])
    if status != 0:
        sys.exit(f"protoc failed with status {status}")


if __name__ == "__main__":
    compile_protos(Path(sys.argv[1]) if len(sys.argv) > 1 else PACKAGE / "descriptors.binpb")
