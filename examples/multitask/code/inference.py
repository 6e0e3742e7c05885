"""A web page in; its topic, whether it is spam, and its quality out, as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from features import features

TOPICS = ("arts", "business", "games", "health", "home", "news", "science", "shopping", "sports", "travel")


def input_handler(data: Any, context: Any) -> dict[str, np.ndarray[Any, Any]]:
    """The page, whatever its bytes are, as the network's two inputs."""
    return features(data.read())


def output_handler(response: Any, context: Any) -> tuple[str, str]:
    """`{"topic": {"name": "arts", "probability": 0.2}, "is_spam": 0.5, "quality": 0.1}`."""
    return answer(response.arrays), "application/json"


def answer(outputs: Mapping[str, np.ndarray[Any, Any]]) -> str:
    """The three outputs for one page as JSON."""
    topics = outputs["topic"][0]
    best = int(topics.argmax())
    return json.dumps(
        {
            "topic": {"name": TOPICS[best], "probability": round(float(topics[best]), 4)},
            "is_spam": round(float(outputs["is_spam"][0, 0]), 4),
            "quality": round(float(outputs["quality"][0, 0]), 4),
        }
    )
