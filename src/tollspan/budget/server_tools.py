"""Tools that run at the provider: what they may be charged, and whether a request limits how often they run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tollspan.budget.request_parts import Unbounded
from tollspan.wire.dialects.fields import mapping, text
from tollspan.wire.dialects.openai_containers import container_size

if TYPE_CHECKING:
    from collections.abc import Mapping

TOOL_USES: Final = 10
"""Uses of a server-side tool assumed if the request sets no limit."""
TOOL_INPUT: Final = 25_000
"""Input tokens assumed per use of a server-side tool: what it reads is billed as input."""

_TOOLS: Final = (
    ("web_search_preview", "web_search_previews"),
    ("web_search", "web_searches"),
    ("google_search", "web_searches"),
    ("googleSearch", "web_searches"),
    ("googleMaps", "maps_groundings"),
    ("google_maps", "maps_groundings"),
    ("code_interpreter", "code_sessions"),
    ("shell", "code_sessions"),
    ("file_search", "file_searches"),
    ("web_fetch", None),
    ("url_context", None),
    ("urlContext", None),
    ("mcp", None),
    ("x_search", None),
    ("code_execution", None),
    ("codeExecution", None),
    ("image_generation", None),
)
"""Words in the type of a server-side tool, and the unit that it is charged by."""
_LOCAL: Final = frozenset({"local_shell"})
"""Types of tools that run at the application, whose words say otherwise."""
_CAPPED_BY: Final = (
    ("code_execution", None),
    ("codeExecution", None),
    ("image_generation", None),  # its images are billed at the price of their own model
    ("google", None),
    ("url", None),
    ("_20", "max_uses"),
)
"""Words in the type of a tool, and what limits its cost: Anthropic's are dated; nothing limits Google's."""


class ToolUse(NamedTuple):
    """What a request's server-side tools may do: units by name, uses in total, and the first tool without a limit."""

    units: Mapping[str, int]
    uses: int
    unlimited: Unbounded | None


NO_TOOLS: Final = ToolUse({}, 0, None)


def server_tools(body: Mapping[str, Any]) -> ToolUse:
    """Return what the server-side tools of a request may do at most."""
    units: dict[str, int] = {}
    total, unlimited = 0, None
    tools = body.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        known = _known(tool)
        if known is None:
            continue
        name, unit = known
        limit = tool.get("max_uses", body.get("max_tool_calls"))
        capped_by = next((by for word, by in _CAPPED_BY if word in name), "max_tool_calls")
        is_counted = type(limit) is int and limit >= 0
        uses = limit if is_counted else TOOL_USES
        if capped_by is None or not is_counted:
            unlimited = unlimited or _unlimited(name, capped_by)
        total += uses
        if unit is not None:
            units[unit] = units.get(unit, 0) + uses * (container_size(tool) if unit == "code_sessions" else 1)
    if "web_search_options" in body:
        units["web_searches"], total = units.get("web_searches", 0) + 1, total + 1
    return ToolUse(units, total, unlimited)


def _known(tool: object) -> tuple[str, str | None] | None:
    """Return the name of a server-side tool, and the unit that it is charged by; None for a tool of the application."""
    if not isinstance(tool, dict):
        return None
    name = str(tool.get("type") or " ".join(tool))
    if name in _LOCAL or (name == "shell" and text(mapping(tool, "environment"), "type") in {None, "local"}):
        return None
    return next(((name, unit) for word, unit in _TOOLS if word in name), None)


def _unlimited(name: str, capped_by: str | None) -> Unbounded:
    what = f"the tool {name[:40]}, which runs at the provider"
    return Unbounded(what, "Remove the tool" if capped_by is None else f"Set {capped_by}")
