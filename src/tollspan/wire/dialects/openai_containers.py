"""The containers that OpenAI's tools run in: code interpreter and hosted shell are billed by container, not by call.

The fee is proportional to the memory of a container, so a session counts once for each GB. A container that the request
names was opened, and paid for, before. https://platform.openai.com/docs/pricing#built-in-tools
"""

from __future__ import annotations

from typing import Any, Final

from tollspan.wire.dialects.fields import mapping, objects, text

_HOLDERS: Final = {"code_interpreter": "container", "shell": "environment"}
"""Keys under which tools have their container, by the type of the tool."""
_MEMORY: Final = {"4g": 4, "16g": 16, "64g": 64}
"""GB of memory of containers that have more than one."""


def container_sessions(body: dict[str, Any], items: list[dict[str, Any]]) -> int:
    """Return the sessions of containers that a response has opened, each counted by its GB of memory.

    Args:
        body: the response, which repeats the tools of the request.
        items: its output.
    """
    tools = [tool for tool in objects(body, "tools") if text(tool, "type") in _HOLDERS]
    named = {name for tool in tools if (name := _named(tool)) is not None}
    hosted = any(text(mapping(tool, "environment"), "type") == "container_auto" for tool in tools)
    used = {text(item, "container_id") for item in items if item.get("type") == "code_interpreter_call"}
    for item in items:
        place = mapping(item, "environment")
        if item.get("type") == "shell_call" and (text(place, "type") != "local" if place else hosted):
            used.add(text(place, "container_id"))
    return len(used - named) * max(map(container_size, tools), default=1)


def container_size(tool: dict[str, Any]) -> int:
    """Return the GB of memory of the container that a tool opens."""
    holder = mapping(tool, _HOLDERS.get(text(tool, "type") or "", ""))
    return _MEMORY.get(text(holder, "memory_limit") or "", 1)


def _named(tool: dict[str, Any]) -> str | None:
    """Return the id of the container that a tool names, if it names one."""
    holder = _HOLDERS[tool["type"]]
    return text(tool, holder) or text(mapping(tool, holder), "container_id")
