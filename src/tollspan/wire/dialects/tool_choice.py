"""Whether a request demands the call of a tool, in the words of each format: `calls_a_tool(body)`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tollspan.wire.dialects.fields import mapping

if TYPE_CHECKING:
    from collections.abc import Mapping

_FREE: Final = frozenset({"auto", "none", "validated", ""})
"""Choices that leave a model free to respond with text."""


def calls_a_tool(body: Mapping[str, Any]) -> bool:
    """Return whether a response without the call of a tool would not be what the request asks for.

    OpenAI (chat and responses), Mistral and Cohere: `tool_choice` is a word, or names a function. Anthropic: its `type`
    is any or tool. Gemini: `toolConfig.functionCallingConfig.mode` is ANY. Bedrock: `toolConfig.toolChoice` has any or
    tool.
    """
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        # OpenAI's list of allowed tools has a mode of its own.
        choice = mapping(choice, "allowed_tools").get("mode") or choice.get("mode") or choice.get("type") or "function"
    config = body.get("toolConfig") or body.get("tool_config")
    if isinstance(config, dict):
        calling = mapping(config, "functionCallingConfig") or mapping(config, "function_calling_config")
        choice = calling.get("mode") or next(iter(mapping(config, "toolChoice")), None) or choice
    return isinstance(choice, str) and choice.lower() not in _FREE
