"""Logging: one line an event, as text or as JSON, on standard error.

The request path logs nothing when all is well (metrics count it); what goes wrong inside is logged with its request id.
"""

from __future__ import annotations

import datetime
import logging
import sys

import orjson


def get_logger(name: str) -> logging.Logger:
    return logging.getLogger(f"penstock.{name}")


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = f"penstock: {'' if record.levelno <= logging.INFO else record.levelname.lower() + ': '}{record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, object] = {
            "time": datetime.datetime.fromtimestamp(record.created, datetime.timezone.utc).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(event).decode()


def configure(log_format: str, level: str = "info") -> None:
    """Sends the log of this process to standard error, as `text` or `json`. To be called once, in each process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if log_format == "json" else _TextFormatter())
    logger = logging.getLogger("penstock")
    logger.handlers[:] = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False
