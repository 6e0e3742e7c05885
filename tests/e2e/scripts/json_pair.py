"""Text with one number in each line, in and out, by way of TensorFlow Serving's JSON."""

import json
from typing import Any


def input_handler(data: Any, context: Any) -> Any:
    if context.request_content_type != "text/plain":
        raise ValueError(f"cannot read {context.request_content_type}")
    return json.dumps({"instances": [json.loads(line) for line in data.read().decode().split()]})


def output_handler(response: Any, context: Any) -> Any:
    response.raise_for_status()
    numbers = json.loads(response.content)["predictions"]
    return "\n".join(map(str, numbers)), context.accept_header
