"""Makes variants of the models that exports.py exports, signature by signature. A program of its own, as converters crash.

`python variant_exports.py MODELS FOLDER` writes FOLDER/FORM/NAME for each model below, with the signatures that can be converted
and loaded, and FOLDER/reasons.json, which says for the others why not.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from penstock.engine.base import EngineOptions
from penstock.engine.engines import ONNXRUNTIME, OPENVINO, TENSORFLOW, installed_version, make_engine
from penstock.engine.variant import SignatureEntry, Variant, read_variant, write_variant
from penstock.optimize.child import Child, ChildError
from penstock.optimize.export import Exporter
from penstock.savedmodel.reader import read_saved_model
from penstock.tensors import Signature

#: `stateful` is none of them: what keeps state is never converted.
MODELS = ("arithmetic", "echo", "rows", "tables", "tensorflow_1")
FROZEN = "tensorflow-frozen"
TAGS = ("serve",)
_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"}
_EXPORT_S = 120.0


class Conversions:
    """What lives in the child: one signature of a model is converted, and loaded once."""

    def convert(self, engine: str, version: Path, signature: Signature, folder: Path) -> None:
        exporter = Exporter(version, TAGS, {signature.name: signature})
        if engine == ONNXRUNTIME:
            exporter.to_onnx(folder)
        else:
            exporter.to_openvino(folder, "fp32")
        make_engine(engine).load(folder, EngineOptions(intra_op=1)).close()

    def freeze(self, version: Path, signatures: dict[str, Signature], folder: Path) -> None:
        Exporter(version, TAGS, signatures).freeze(folder)
        make_engine(TENSORFLOW).load(folder, EngineOptions()).close()


class Conversion:
    """All of it: a child that is replaced when it has crashed, and the reasons so far."""

    def __init__(self, models: Path, target: Path) -> None:
        self._models, self._target = models, target
        self._child = self._new_child()
        #: By form, model and signature.
        self.reasons: dict[str, dict[str, dict[str, str]]] = {}

    def freeze(self, name: str) -> None:
        signatures = read_saved_model(self._models / name, TAGS).signatures
        (self._target / FROZEN).mkdir(exist_ok=True)
        try:
            self._child.call("freeze", self._models / name, dict(signatures), self._target / FROZEN / name, timeout_s=_EXPORT_S)
        except ChildError as error:
            self.reasons.setdefault(FROZEN, {})[name] = dict.fromkeys(signatures, str(error))

    def convert(self, engine: str, name: str) -> None:
        folder = self._target / engine / name
        folder.mkdir(parents=True)
        write_variant(folder, Variant(engine, "fp32", list(self._entries(engine, name, folder))))

    def _entries(self, engine: str, name: str, folder: Path) -> Iterator[SignatureEntry]:
        """Those that were converted, with their files in `folder`."""
        reasons = self.reasons.setdefault(engine, {}).setdefault(name, {})
        for signature in read_saved_model(self._models / name, TAGS).signatures.values():
            work = folder / f"work-{signature.name}"
            try:
                self._child.call("convert", engine, self._models / name, signature, work, timeout_s=_EXPORT_S)
            except ChildError as error:
                reasons[signature.name] = str(error)
                shutil.rmtree(work, ignore_errors=True)
                if "its process" in str(error) or "no answer" in str(error):
                    self._child.end()
                    self._child = self._new_child()
                continue
            (entry,) = read_variant(work, engine)[0].signatures
            for file in work.glob(f"{Path(entry.file).stem}.*"):
                file.rename(folder / f"{signature.name}{file.suffix}")
            shutil.rmtree(work)
            yield msgspec.structs.replace(entry, file=f"{signature.name}{Path(entry.file).suffix}")

    def _new_child(self) -> Child:
        return Child(self._target / "conversions.log", Conversions, environment=_QUIET)


def main(models: Path, target: Path) -> None:
    conversion = Conversion(models, target)
    for name in MODELS:
        conversion.freeze(name)
        for engine in (ONNXRUNTIME, OPENVINO):
            if installed_version(engine):
                conversion.convert(engine, name)
    (target / "reasons.json").write_text(json.dumps(conversion.reasons, indent=1))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
