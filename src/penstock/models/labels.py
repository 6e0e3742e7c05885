"""Labels of versions, as clients are to see them: one that moves does so when the version that it moves to answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping


class Labels:
    """What was published of each model; `tell` is called with a model's labels when they are others."""

    def __init__(self, tell: Callable[[str, dict[str, int]], None]) -> None:
        self._tell = tell
        self._published: dict[str, dict[str, int]] = {}

    def __contains__(self, model: str) -> bool:
        return model in self._published

    def publish(self, model: str, wanted: Mapping[str, int], answers: Callable[[int], bool]) -> None:
        """Brings a model's labels as near to those that are `wanted` as the versions that answer allow."""
        before = self._published.get(model, {})
        labels: dict[str, int] = {}
        for label, number in wanted.items():
            old = before.get(label, number)
            labels[label] = old if answers(old) and not answers(number) else number
        if labels == before:
            return
        if labels:
            self._published[model] = labels
        else:
            del self._published[model]
        self._tell(model, labels)
