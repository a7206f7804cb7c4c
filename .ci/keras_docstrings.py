"""An extension of Griffe that reads Keras' form of an example: `Example:`, not indented."""

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^Example:\n(.*?)(?=^[A-Z]\w+:$|\Z)", re.MULTILINE | re.DOTALL)


class KerasDocstrings(griffe.Extension):
    """Turns `Example:` into the `Examples:` section that Griffe knows."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrites an object's docstring."""
        if obj.docstring:
            obj.docstring.value = EXAMPLE.sub(_as_section, obj.docstring.value)


def _as_section(match: re.Match) -> str:
    lines = match[1].rstrip().replace("```\n", "```python\n", 1).splitlines()
    return "Examples:\n" + "\n".join(f"    {line}".rstrip() for line in lines) + "\n\n"
