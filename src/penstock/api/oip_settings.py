"""Trace and log settings of the Open Inference Protocol's extensions: they can be read, and are what they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.errors import Unimplemented

TRACE_SETTINGS: dict[str, Any] = {"trace_level": ["OFF"], "trace_rate": "0", "trace_count": "0", "log_frequency": "0"}
LOG_SETTINGS: dict[str, Any] = {
    "log_file": "",
    "log_info": True,
    "log_warning": True,
    "log_error": True,
    "log_verbose_level": 0,
    "log_format": "default",
}


def fixed_settings(settings: Mapping[str, Any], wished: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings, where nothing is wished that they are not. Raises Unimplemented."""
    for name, value in wished.items():
        if name not in settings or (value is not None and value != settings[name]):
            raise Unimplemented(f"The setting {name[:80]} cannot be changed while the server runs")
    return settings
