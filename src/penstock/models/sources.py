"""Sources: what should be served, as folders, a config file or a store say it now.

Guarantees: `poll` never raises and waits for nothing but the file system; what goes wrong with one model leaves the others alone
and keeps what was last known of that model; a problem is told once, and again only after it was gone. Assumes one thread, which
polls about once a second.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from penstock.errors import UsageError
from penstock.models.config_file import ConfiguredModel, parse_config_file
from penstock.models.desired import Desired
from penstock.savedmodel.archive import SUFFIXES
from penstock.savedmodel.layout import select_versions, versions_in

_NO_TRANSITION = "Cannot transition to requested config. It is only legal to transition from one ModelConfigList to another."


@dataclass(frozen=True, slots=True)
class Polled:
    """All that a source wants now, and the problems that are new."""

    desired: list[Desired]
    problems: list[str]


class Source(Protocol):
    """Says what should be served, whole each time."""

    def poll(self) -> Polled: ...


class _News:
    """Tells problems once."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def of(self, problems: Iterable[str]) -> list[str]:
        """Those of the present `problems` that were not present the last time."""
        present = list(dict.fromkeys(problems))
        new = [problem for problem in present if problem not in self._known]
        self._known = set(present)
        return new


class FolderSource:
    """The versions in a model's folder that a policy such as "latest" or "1,3" chooses; the folder may be one version itself.

    Versions that vanish are not wanted any more; while the folder cannot be listed, those last seen still are.
    """

    def __init__(
        self,
        model: str,
        base_path: Path,
        policy: str = "latest",
        labels: Mapping[str, int] | None = None,
        root: Path | None = None,
    ) -> None:
        """`root` is where the model's files begin, if above its folder. Raises UsageError for a policy that is none."""
        self._model = model
        self._root = root
        self._found: dict[int, Path] = {}
        self._news = _News()
        self.change(base_path, policy, labels or {})

    def change(self, base_path: Path, policy: str, labels: Mapping[str, int]) -> None:
        """From now on it is this folder, policy and labels. What was found counts until the folder can be listed.

        Raises UsageError for a policy that is none.
        """
        select_versions((), policy)
        self._base_path, self._policy, self._labels = base_path, policy, dict(labels)

    def poll(self) -> Polled:
        problem = self._look()
        chosen = {version: self._found[version] for version in select_versions(self._found, self._policy)}
        if problem is None and not chosen:
            problem = self._why_none()
        desired = Desired(self._model, chosen, self._labels, self._root or self._base_path)
        return Polled([desired], self._news.of([] if problem is None else [problem]))

    def _look(self) -> str | None:
        """Updates what is found, or says why not."""
        try:
            self._found = versions_in(self._base_path)
        except (OSError, UsageError) as error:
            return f"model {self._model}: {_reason(self._base_path, error)}"
        return None

    def _why_none(self) -> str:
        if not self._found:
            return f"model {self._model}: {self._base_path} has no version now; expected a folder like 1/saved_model.pb in it"
        there = ", ".join(map(str, self._found))
        return f"model {self._model}: {self._base_path} has no version that {self._policy} asks for; there are: {there}"


class ConfiguredSource:
    """The models of a ModelServerConfig, each looked at as a FolderSource does."""

    def __init__(self) -> None:
        self._models: list[ConfiguredModel] = []
        self._sources: dict[str, FolderSource] = {}
        self._news = _News()

    def change(self, models: list[ConfiguredModel]) -> None:
        """From now on it is these models. Those that stay keep their FolderSource, and with it what it last saw."""
        before = self._sources
        self._models, self._sources = models, {}
        for model in models:
            source = before.get(model.name)
            if source is None:
                source = FolderSource(model.name, model.base_path, model.policy, model.labels)
            else:
                source.change(model.base_path, model.policy, model.labels)
            self._sources[model.name] = source

    def poll(self) -> Polled:
        polled = [source.poll() for source in self._sources.values()]
        own = self._news.of(self._problems())
        return Polled([one for each in polled for one in each.desired], own + [text for each in polled for text in each.problems])

    def _problems(self) -> list[str]:
        return [f"model {model.name}: logging_config has no effect" for model in self._models if model.has_logging]


class ConfigFileSource(ConfiguredSource):
    """The models of TensorFlow Serving's config file.

    With `is_polled` the file is read again when it is another: a mistake in it then keeps the models of the last good one.
    """

    def __init__(self, path: Path, is_polled: bool = True) -> None:
        """Raises UsageError for a file that cannot be read or is wrong: there is no last good one yet."""
        super().__init__()
        self._path = path
        self._is_polled = is_polled
        self._identity: tuple[int, int, int] | None = None
        self._has_list = False
        self._problem: str | None = None
        self._read_if_new()
        if self._problem is not None:
            raise UsageError(self._problem)

    def poll(self) -> Polled:
        if self._is_polled:
            self._read_if_new()
        return super().poll()

    def _problems(self) -> list[str]:
        return [*([] if self._problem is None else [self._problem]), *super()._problems()]

    def _read_if_new(self) -> None:
        try:
            status = os.stat(self._path)
            identity = (status.st_mtime_ns, status.st_size, status.st_ino)
            if identity == self._identity:
                return
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            self._identity, self._problem = None, _reason(self._path, error)
            return
        self._identity, self._problem = identity, None
        try:
            self._take(parse_config_file(text))
        except UsageError as error:
            self._problem = f"{self._path}: {error}"

    def _take(self, models: list[ConfiguredModel] | None) -> None:
        """Raises UsageError for a file that has lost its list, such as one that is just being written."""
        if models is None and self._has_list:
            raise UsageError(_NO_TRANSITION)
        self._has_list = True
        self.change(models or [])


class StoreSource:
    """A folder of models that are loaded when they are first asked for: model folders and archives, each named as its model.

    `policy` chooses the versions of folders; those of an archive are not known before it is unpacked.
    An archive counts when it was the same in two polls (at the first poll: at once), so that one that is being copied neither
    shows up half nor takes the place of what is served. Names that begin with a dot are passed over, and so are folders without
    a version to serve.
    """

    def __init__(self, path: Path, policy: str = "latest") -> None:
        """Raises UsageError for a policy that is none."""
        select_versions((), policy)
        self._path, self._policy = path, policy
        self._known: dict[str, Desired] = {}
        self._growing: dict[str, Desired] | None = None
        self._news = _News()

    def poll(self) -> Polled:
        problems: list[str] = []
        try:
            with os.scandir(self._path) as entries:
                children = sorted((entry for entry in entries if not entry.name.startswith(".")), key=_folders_first)
        except OSError as error:
            problems.append(f"model store {_reason(self._path, error)}")
        else:
            self._known = self._look(children, problems)
        return Polled(list(self._known.values()), self._news.of(problems))

    def _look(self, children: Sequence[os.DirEntry[str]], problems: list[str]) -> dict[str, Desired]:
        found: dict[str, Desired] = {}
        archives: dict[str, Desired] = {}
        for child in children:
            name = _model_name(child)
            if name is None:
                continue
            try:
                one = _in_store(name, child, self._policy)
            except (OSError, UsageError) as error:
                problems.append(f"model {name}: {_reason(Path(child.path), error)}")
                one = self._known.get(name)
            if one is None:
                continue
            if name in found or name in archives:
                problems.append(f"model {name}: {child.path} is passed over, another of that name comes first")
            elif one.archive is None:
                found[name] = one
            else:
                archives[name] = one
        for name, one in archives.items():
            is_settled = self._growing is None or self._growing.get(name) == one
            settled = one if is_settled else self._known.get(name)
            if settled is not None:
                found[name] = settled
        self._growing = archives
        return found


class CombinedSource:
    """Several sources as one; where two have a model of the same name, the first wins."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources: tuple[Source, ...] = tuple(sources)
        self._news = _News()

    def reload(self, models: list[ConfiguredModel]) -> None:
        """From now on it is these models, and those of a store. A config file is read again when it is another."""
        configured = next((one for one in self._sources if isinstance(one, ConfiguredSource)), None) or ConfiguredSource()
        configured.change(models)
        self._sources = (configured, *[one for one in self._sources if isinstance(one, StoreSource)])

    def poll(self) -> Polled:
        desired: dict[str, Desired] = {}
        problems: list[str] = []
        doubles: list[str] = []
        for source in self._sources:
            polled = source.poll()
            problems += polled.problems
            for one in polled.desired:
                first = desired.setdefault(one.model, one)
                if first is not one:
                    doubles.append(f"model {one.model} is there twice: {_place(first)} is served, {_place(one)} is not")
        return Polled(list(desired.values()), problems + self._news.of(doubles))


def _folders_first(entry: os.DirEntry[str]) -> tuple[bool, str]:
    return not _is_folder(entry), entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _model_name(entry: os.DirEntry[str]) -> str | None:
    """The model that an entry of a store stands for; None where it is neither a folder nor an archive."""
    if _is_folder(entry):
        return entry.name
    lower = entry.name.lower()
    return next((entry.name[: -len(suffix)] for suffix in SUFFIXES if lower.endswith(suffix)), None)


def _in_store(name: str, entry: os.DirEntry[str], policy: str) -> Desired | None:
    """Raises OSError and UsageError as `versions_in` does."""
    path = Path(entry.path)
    if _is_folder(entry):
        versions = versions_in(path)
        chosen = {version: versions[version] for version in select_versions(versions, policy)}
        return Desired(name, chosen, folder=path, is_pinned=False, on_demand=True) if chosen else None
    status = os.stat(path)
    fingerprint = f"{status.st_mtime_ns:x}-{status.st_size:x}"
    return Desired(name, {}, is_pinned=False, on_demand=True, archive=path, fingerprint=fingerprint)


def _place(desired: Desired) -> str:
    return str(desired.archive or desired.folder)


def _reason(path: Path, error: OSError | UsageError | UnicodeDecodeError) -> str:
    if isinstance(error, OSError):
        return f"{path}: {error.strerror or error}"
    if isinstance(error, UnicodeDecodeError):
        return f"{path}: not text in UTF-8 (byte {error.start})"
    return str(error)
