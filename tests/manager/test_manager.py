"""The manager, with processes that do what the test says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from penstock.errors import AlreadyExists, FailedPrecondition, NotFound, PenstockError, ResourceExhausted, Unavailable
from penstock.models.budget import Budget
from penstock.models.desired import Desired
from penstock.models.manager import Manager, ManagerOptions
from penstock.models.version import Version
from penstock.serving.routes import State

_MB = 1 << 20


class Processes:
    """A Loader that remembers what it was told, and goes on when the test lets it."""

    def __init__(self) -> None:
        self.loading: list[Version] = []
        self.unloading: list[Version] = []
        self.replacing: list[tuple[Version, Path, Callable[[PenstockError | None], None]]] = []
        self.preparing: list[tuple[str, Path]] = []
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.labels: dict[str, dict[str, int]] = {}
        self.told: list[tuple[str, State]] = []
        self.clock = 0.0

    def load(self, version: Version) -> None:
        self.loading.append(version)

    def unload(self, version: Version) -> None:
        self.unloading.append(version)

    def replace(self, version: Version, path: Path, done: Callable[[PenstockError | None], None]) -> None:
        self.replacing.append((version, path, done))

    def prepare(self, model: str, archive: Path) -> None:
        self.preparing.append((model, archive))

    def changed(self, version: Version) -> None:
        self.told.append((version.title, version.state))

    def labelled(self, model: str, labels: dict[str, int]) -> None:
        self.labels[model] = labels

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        self.timers.append((delay_s, action))

    def now(self) -> float:
        self.clock += 1
        return self.clock


class World:
    """A manager over such processes. `titles` are the versions by state."""

    def __init__(self, limit_mb: int = 100_000, options: ManagerOptions | None = None) -> None:
        self.processes = Processes()
        self.budget = Budget(limit_mb * _MB)
        self.manager = Manager(self.processes, self.budget, options or ManagerOptions())
        self.answers: list[PenstockError | None] = []

    def want(self, *desired: Desired) -> None:
        self.manager.want(desired)

    def let_load(self, error: PenstockError | None = None) -> None:
        loading, self.processes.loading = self.processes.loading, []
        for version in loading:
            if error is None:
                self.manager.loaded(version)
            else:
                self.manager.failed(version, error)

    def let_unload(self) -> None:
        unloading, self.processes.unloading = self.processes.unloading, []
        for version in unloading:
            self.manager.unloaded(version)

    def titles(self, state: State) -> list[str]:
        return sorted(version.title for version in self.manager.versions.values() if version.state is state)

    def answer(self, error: PenstockError | None) -> None:
        self.answers.append(error)


def model(name: str, *versions: int, folder: str = "/models") -> Desired:
    return Desired(name, {version: Path(f"{folder}/{name}/{version}") for version in versions})


def stored(name: str, **others: object) -> Desired:
    return Desired(name, {1: Path(f"/store/{name}/1")}, is_pinned=False, on_demand=True, **others)  # type: ignore[arg-type]


BROKEN = FailedPrecondition("it is broken")


def test_what_is_wanted_is_loaded_and_answers() -> None:
    world = World()
    world.want(model("a", 1), model("b", 1, 2))
    assert world.titles(State.LOADING) == ["a/1", "b/1", "b/2"]
    world.let_load()
    assert world.titles(State.AVAILABLE) == ["a/1", "b/1", "b/2"]


def test_an_old_version_goes_only_when_the_new_one_answers() -> None:
    world = World()
    world.want(model("a", 1))
    world.let_load()
    world.want(model("a", 2))
    assert (world.titles(State.AVAILABLE), world.titles(State.LOADING)) == (["a/1"], ["a/2"])
    world.let_load()
    assert (world.titles(State.AVAILABLE), world.titles(State.UNLOADING)) == (["a/2"], ["a/1"])
    world.let_unload()
    assert [version.title for version in world.manager.versions.values()] == ["a/2"]
    assert world.processes.told[-1] == ("a/1", State.END)


def test_to_save_memory_the_old_version_goes_first() -> None:
    world = World(options=ManagerOptions(saves_memory=True))
    world.want(model("a", 1))
    world.let_load()
    world.want(model("a", 2))
    assert (world.titles(State.UNLOADING), world.titles(State.LOADING)) == (["a/1"], [])
    world.let_unload()
    assert world.titles(State.LOADING) == ["a/2"]


def test_a_load_that_fails_keeps_the_last_good_version() -> None:
    world = World()
    world.want(model("a", 1))
    world.let_load()
    world.want(model("a", 2))
    world.let_load(BROKEN)
    assert (world.titles(State.AVAILABLE), world.titles(State.END)) == (["a/1"], ["a/2"])
    assert world.manager.versions["a", 2].error is BROKEN


def test_a_failed_load_is_tried_again_with_growing_delays_and_then_given_up() -> None:
    world = World(options=ManagerOptions(max_retries=3))
    world.want(model("a", 1))
    delays = []
    for _ in range(3):
        world.let_load(BROKEN)
        delay, retry = world.processes.timers.pop()
        delays.append(delay)
        retry()
        assert world.titles(State.LOADING) == ["a/1"]
    world.let_load(BROKEN)
    assert not world.processes.timers
    assert delays == sorted(delays)
    assert len(set(delays)) == 3
    assert world.titles(State.END) == ["a/1"]


def test_a_retry_that_works_replaces_the_old_version() -> None:
    world = World()
    world.want(model("a", 1))
    world.let_load()
    world.want(model("a", 2))
    world.let_load(BROKEN)
    world.processes.timers.pop()[1]()
    world.let_load()
    assert (world.titles(State.AVAILABLE), world.titles(State.UNLOADING)) == (["a/2"], ["a/1"])


def test_a_version_that_is_wanted_no_more_is_not_tried_again() -> None:
    world = World()
    world.want(model("a", 1), model("b", 1))
    world.let_load(BROKEN)
    timers = world.processes.timers
    world.want(model("b", 1))
    for _, retry in timers[:]:
        retry()
    assert [version.title for version in world.processes.loading] == ["b/1"]
    assert ("a", 1) not in world.manager.versions


def test_a_model_that_is_wanted_no_more_is_unloaded_whole() -> None:
    world = World()
    world.want(model("a", 1, 2), model("b", 1))
    world.let_load()
    world.want(model("b", 1))
    assert world.titles(State.UNLOADING) == ["a/1", "a/2"]
    world.let_unload()
    assert world.titles(State.AVAILABLE) == ["b/1"]
    assert len(world.manager.versions) == 1


def test_a_version_that_is_taken_back_while_it_loads_is_ended() -> None:
    world = World()
    world.want(model("a", 1))
    world.want()
    assert world.titles(State.UNLOADING) == ["a/1"]
    world.let_load()
    assert world.titles(State.UNLOADING) == ["a/1"]
    world.let_unload()
    assert not world.manager.versions


def test_labels_are_told_when_they_change() -> None:
    world = World()
    world.want(Desired("a", {1: Path("/a/1")}, {"stable": 1}))
    assert world.processes.labels == {"a": {"stable": 1}}
    world.want(Desired("a", {1: Path("/a/1")}, {}))
    assert world.processes.labels == {"a": {}}


def test_a_load_by_name_is_answered_when_the_model_answers() -> None:
    world = World()
    world.manager.load(model("a", 1), world.answer)
    assert not world.answers
    world.let_load()
    assert world.answers == [None]
    world.manager.load(model("a", 1), world.answer)
    assert isinstance(world.answers[-1], AlreadyExists)


def test_a_load_by_name_that_fails_says_why_and_leaves_nothing() -> None:
    world = World()
    world.manager.load(model("a", 1), world.answer)
    world.let_load(BROKEN)
    assert world.answers == [BROKEN]
    assert not world.manager.versions
    assert not world.processes.timers
    world.manager.load(model("a", 1), world.answer)
    world.let_load()
    assert world.answers == [BROKEN, None]


def test_an_unload_is_answered_when_the_processes_have_ended() -> None:
    world = World()
    world.manager.load(model("a", 1), world.answer)
    world.let_load()
    world.manager.unload("a", world.answer)
    assert world.answers == [None]
    world.let_unload()
    assert world.answers == [None, None]
    assert world.budget.used_bytes == 0
    world.manager.unload("a", world.answer)
    assert isinstance(world.answers[-1], NotFound)


def test_loads_of_several_models_run_side_by_side() -> None:
    world = World()
    for name in "abc":
        world.manager.load(model(name, 1), world.answer)
    assert len(world.processes.loading) == 3


def test_a_stored_model_is_loaded_when_it_is_called_for() -> None:
    world = World()
    world.want(stored("a"), stored("b"))
    assert not world.processes.loading
    world.manager.call_for("a", world.answer)
    world.manager.call_for("a", world.answer)
    assert [version.title for version in world.processes.loading] == ["a/1"]
    world.let_load()
    assert world.answers == [None, None]
    world.manager.call_for("a", world.answer)
    assert world.answers == [None, None, None]
    world.manager.call_for("missing", world.answer)
    assert isinstance(world.answers[-1], NotFound)


def test_a_stored_model_that_fails_may_be_called_for_again() -> None:
    world = World()
    world.want(stored("a"))
    world.manager.call_for("a", world.answer)
    world.let_load(BROKEN)
    assert world.answers == [BROKEN]
    world.manager.call_for("a", world.answer)
    world.let_load()
    assert world.answers == [BROKEN, None]


def test_an_archive_is_unpacked_before_it_is_loaded() -> None:
    world = World()
    archive = Path("/store/a.tar.gz")
    world.want(Desired("a", {}, is_pinned=False, on_demand=True, archive=archive, fingerprint="1"))
    world.manager.call_for("a", world.answer)
    assert world.processes.preparing == [("a", archive)]
    world.want(Desired("a", {}, is_pinned=False, on_demand=True, archive=archive, fingerprint="1"))
    world.manager.prepared("a", archive, {3: Path("/cache/x/3")}, Path("/cache/x"))
    world.let_load()
    assert world.titles(State.AVAILABLE) == ["a/3"]
    world.want(Desired("a", {}, is_pinned=False, on_demand=True, archive=archive, fingerprint="1"))
    assert world.titles(State.AVAILABLE) == ["a/3"]


def test_an_archive_that_cannot_be_unpacked_is_the_answer() -> None:
    world = World()
    archive = Path("/store/a.tar.gz")
    world.want(Desired("a", {}, is_pinned=False, on_demand=True, archive=archive, fingerprint="1"))
    world.manager.call_for("a", world.answer)
    world.manager.unprepared("a", BROKEN)
    assert world.answers == [BROKEN]


def test_an_archive_that_was_replaced_is_unpacked_again() -> None:
    world = World()
    archive = Path("/store/a.tar.gz")
    world.want(Desired("a", {}, is_pinned=False, on_demand=True, archive=archive, fingerprint="1"))
    world.manager.call_for("a", world.answer)
    world.manager.prepared("a", archive, {1: Path("/cache/x/1")}, Path("/cache/x"))
    world.let_load()
    world.want(Desired("a", {}, is_pinned=False, on_demand=True, archive=archive, fingerprint="2"))
    world.let_unload()
    world.manager.call_for("a", world.answer)
    assert len(world.processes.preparing) == 2


def test_an_archive_that_is_replaced_while_it_is_unpacked_is_unpacked_once_more() -> None:
    """Of one model, one archive at a time; what the first one held is never loaded."""
    world = World()
    archive = Path("/store/a.tar.gz")
    world.want(Desired("a", {}, is_pinned=False, on_demand=True, archive=archive, fingerprint="1"))
    world.manager.call_for("a", world.answer)
    world.want(Desired("a", {}, is_pinned=False, on_demand=True, archive=archive, fingerprint="2"))
    assert len(world.processes.preparing) == 1
    world.manager.prepared("a", archive, {1: Path("/cache/x/1")}, Path("/cache/x"))
    assert len(world.processes.preparing) == 2
    assert not world.processes.loading
    world.manager.prepared("a", archive, {2: Path("/cache/y/2")}, Path("/cache/y"))
    world.let_load()
    assert world.titles(State.AVAILABLE) == ["a/2"]
    assert world.manager.versions["a", 2].root == Path("/cache/y")
    assert world.answers == [None]


def test_a_model_that_is_unloaded_while_its_archive_is_unpacked_is_not_loaded() -> None:
    world = World()
    archive = Path("/models/a.tar.gz")
    world.manager.load(Desired("a", {}, on_demand=True, archive=archive, fingerprint="1"), world.answer)
    world.manager.unload("a", world.answer)
    world.manager.prepared("a", archive, {1: Path("/cache/x/1")}, Path("/cache/x"))
    assert not world.manager.versions
    assert [type(answer) for answer in world.answers] == [Unavailable, type(None)]
    world.manager.load(Desired("a", {}, on_demand=True, archive=archive, fingerprint="1"), world.answer)
    assert len(world.processes.preparing) == 2


def test_a_model_that_a_source_wants_is_not_unloaded() -> None:
    """Unless it is one of a store, which comes back when it is called for."""
    world = World()
    world.want(model("a", 1), stored("b"))
    world.manager.call_for("b", world.answer)
    world.let_load()
    for name in ("a", "b"):
        world.manager.unload(name, world.answer)
    assert isinstance(world.answers[-1], FailedPrecondition)
    assert (world.titles(State.AVAILABLE), world.titles(State.UNLOADING)) == (["a/1"], ["b/1"])
    world.let_unload()
    assert world.answers[-1] is None


def fill(world: World, *names: str) -> None:
    """Loads stored models that turn out to use 40 MB each."""
    world.want(*[stored(name) for name in "abcd"])
    for name in names:
        world.manager.call_for(name, world.answer)
        world.let_load()
        world.budget.measured(f"{name}/1", 40 * _MB)


def test_the_least_recently_used_model_makes_room() -> None:
    world = World(limit_mb=99)
    fill(world, "a", "b")
    world.manager.used({"a": world.processes.now()})
    world.manager.call_for("c", world.answer)
    assert world.titles(State.UNLOADING) == ["b/1"]
    assert not world.processes.loading
    world.let_unload()
    world.let_load()
    assert world.titles(State.AVAILABLE) == ["a/1", "c/1"]
    assert world.answers[-1] is None


def test_an_evicted_model_comes_back_when_it_is_called_for() -> None:
    world = World(limit_mb=99)
    fill(world, "a", "b")
    world.manager.call_for("c", world.answer)
    world.let_unload()
    world.let_load()
    world.budget.measured("c/1", 40 * _MB)
    world.manager.call_for("a", world.answer)
    world.let_unload()
    world.let_load()
    assert "a/1" in world.titles(State.AVAILABLE)


def test_pinned_models_are_never_evicted_and_what_cannot_fit_is_refused_at_once() -> None:
    world = World(limit_mb=99)
    world.want(model("pinned", 1), stored("a"))
    world.let_load()
    world.budget.measured("pinned/1", 95 * _MB)
    world.manager.call_for("a", world.answer)
    assert isinstance(world.answers[-1], ResourceExhausted)
    assert world.titles(State.AVAILABLE) == ["pinned/1"]


@pytest.mark.parametrize("rounds", [50])
def test_nothing_is_left_of_many_loads(rounds: int) -> None:
    world = World(limit_mb=1000)
    for number in range(rounds):
        world.manager.load(model(f"m{number}", 1), world.answer)
        world.let_load()
        world.manager.unload(f"m{number}", world.answer)
        world.let_unload()
    assert not world.manager.versions
    assert world.budget.used_bytes == 0
    assert world.answers == [None] * 2 * rounds


def test_another_folder_of_the_same_version_takes_over_when_it_answers() -> None:
    world = World()
    world.want(model("a", 1))
    world.let_load()
    world.want(model("a", 1, folder="/others"))
    ((version, path, done),) = world.processes.replacing
    assert path == Path("/others/a/1")
    assert world.titles(State.AVAILABLE) == ["a/1"]
    assert not world.processes.unloading
    version.path = path
    done(None)
    world.want(model("a", 1, folder="/others"))
    assert len(world.processes.replacing) == 1


def test_one_that_cannot_be_loaded_is_tried_again_beside_the_one_that_is_served() -> None:
    world = World()
    world.want(model("a", 1))
    world.let_load()
    world.want(model("a", 1, folder="/others"))
    world.processes.replacing.pop()[2](BROKEN)
    assert world.titles(State.AVAILABLE) == ["a/1"]
    ((delay_s, again),) = world.processes.timers
    assert delay_s == 1.0
    again()
    assert [path for _, path, _ in world.processes.replacing] == [Path("/others/a/1")]


def test_a_label_moves_when_the_version_that_it_moves_to_answers() -> None:
    world = World()
    world.want(replace(model("a", 1), labels={"stable": 1}))
    world.let_load()
    world.want(replace(model("a", 2), labels={"stable": 2}))
    assert world.processes.labels == {"a": {"stable": 1}}
    world.let_load()
    assert world.processes.labels == {"a": {"stable": 2}}
    assert world.titles(State.UNLOADING) == ["a/1"]
    world.let_unload()
    world.want(replace(model("a", 3), labels={"stable": 3}))
    world.let_load(BROKEN)
    assert world.processes.labels == {"a": {"stable": 2}}
    world.want()
    assert world.processes.labels == {"a": {}}


def test_a_bad_version_of_a_stored_model_leaves_the_good_one_served() -> None:
    world = World()
    world.want(stored("a"))
    world.manager.call_for("a", world.answer)
    world.let_load()
    world.want(replace(stored("a"), versions={2: Path("/store/a/2")}))
    world.let_load(BROKEN)
    assert world.titles(State.AVAILABLE) == ["a/1"]
    assert not world.processes.unloading
    world.manager.call_for("a", world.answer)
    assert world.answers == [None, None]
    assert [delay_s for delay_s, _ in world.processes.timers] == [1.0], "it may have been mended by then"


def test_whether_a_model_is_on_its_way_is_known() -> None:
    world = World()
    world.want(model("a", 1))
    assert world.manager.is_starting("a")
    world.let_load()
    assert not world.manager.is_starting("a")
    assert not world.manager.is_starting("b")
