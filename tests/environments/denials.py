"""What every SDK makes of a refused call, in each way that all its majors have: plain and streamed, sync and async.

    python denials.py SDK URL

Each way returns the text of a response. As a program it needs that SDK, its HTTP library and tollspan, and nothing
else; it prints the outcome of each policy, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import tollspan
from tollspan.setup.instrument import current

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SAID: Final[Any] = [{"role": "user", "content": "Tell me what you are."}]
POLICIES: Final = ("block", "reply", "raise")
MESSAGE: Final = "Nothing is left of {name}."
NAME: Final = "nothing"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What an application received of a refused call.

    `text` is that of an answer, or None; of an error, `packages` are those of its class and what that is made of,
    `status` the HTTP status that it shows, and `said` what it says.
    """

    text: str | None = None
    packages: tuple[str, ...] = ()
    name: str | None = None
    status: int | None = None
    said: str = ""


def _chats(made: Any, asynchronous: Any, model: str) -> Mapping[str, Callable[[], str]]:
    """Return the ways of an SDK whose chat is that of OpenAI's."""
    arguments: Any = {"model": model, "messages": SAID, "max_tokens": 50}

    def plain() -> str:
        with made() as client:
            return str(client.chat.completions.create(**arguments).choices[0].message.content)

    def streamed() -> str:
        with made() as client:
            chunks = list(client.chat.completions.create(**arguments, stream=True))
            return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)

    async def later() -> str:
        async with asynchronous() as client:
            answer = await client.chat.completions.create(**arguments)
            return str(answer.choices[0].message.content)

    async def streamed_later() -> str:
        async with asynchronous() as client:
            stream = await client.chat.completions.create(**arguments, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

    return {
        "plain": plain,
        "streamed": streamed,
        "async": lambda: asyncio.run(later()),
        "async streamed": lambda: asyncio.run(streamed_later()),
    }


def openai(url: str) -> Mapping[str, Callable[[], str]]:
    """Chat."""
    import openai as sdk

    where: Any = {"base_url": f"{url}/openai/v1", "api_key": "any"}
    return _chats(lambda: sdk.OpenAI(**where), lambda: sdk.AsyncOpenAI(**where), "gpt-4o-mini")


def groq(url: str) -> Mapping[str, Callable[[], str]]:
    """Chat."""
    import groq as sdk

    where: Any = {"base_url": f"{url}/groq", "api_key": "any"}
    return _chats(lambda: sdk.Groq(**where), lambda: sdk.AsyncGroq(**where), "openai/gpt-oss-120b")


def anthropic(url: str) -> Mapping[str, Callable[[], str]]:
    """Make messages."""
    import anthropic as sdk

    where: Any = {"base_url": f"{url}/anthropic", "api_key": "any"}
    arguments: Any = {"model": "claude-haiku-4-5", "max_tokens": 50, "messages": SAID}

    def plain() -> str:
        with sdk.Anthropic(**where) as client:
            return str(client.messages.create(**arguments).content[0].text)

    def streamed() -> str:
        with sdk.Anthropic(**where) as client, client.messages.stream(**arguments) as stream:
            return str(stream.get_final_text())

    async def later() -> str:
        async with sdk.AsyncAnthropic(**where) as client:
            answer: Any = await client.messages.create(**arguments)
            return str(answer.content[0].text)

    async def streamed_later() -> str:
        async with sdk.AsyncAnthropic(**where) as client, client.messages.stream(**arguments) as stream:
            return str(await stream.get_final_text())

    return {
        "plain": plain,
        "streamed": streamed,
        "async": lambda: asyncio.run(later()),
        "async streamed": lambda: asyncio.run(streamed_later()),
    }


def mistralai(url: str) -> Mapping[str, Callable[[], str]]:
    """Chat."""
    try:
        from mistralai.client import Mistral
    except ImportError:
        from mistralai import Mistral  # type: ignore[attr-defined, no-redef, unused-ignore]

    arguments: Any = {"model": "mistral-small-latest", "messages": SAID}

    def plain() -> str:
        with Mistral(api_key="any", server_url=f"{url}/mistral") as client:
            answer: Any = client.chat.complete(**arguments)
            return str(answer.choices[0].message.content)

    def streamed() -> str:
        with Mistral(api_key="any", server_url=f"{url}/mistral") as client:
            events: Any = list(client.chat.stream(**arguments))
            return "".join(event.data.choices[0].delta.content or "" for event in events)

    async def later() -> str:
        async with Mistral(api_key="any", server_url=f"{url}/mistral") as client:
            answer: Any = await client.chat.complete_async(**arguments)
            return str(answer.choices[0].message.content)

    return {"plain": plain, "streamed": streamed, "async": lambda: asyncio.run(later())}


def cohere(url: str) -> Mapping[str, Callable[[], str]]:
    """Chat by version 2."""
    import cohere as sdk

    where: Any = {"api_key": "any", "base_url": f"{url}/cohere"}
    arguments: Any = {"model": "command-a-03-2025", "messages": SAID}

    def plain() -> str:
        answer: Any = sdk.ClientV2(**where).chat(**arguments)
        return str(answer.message.content[0].text)

    def streamed() -> str:
        events: Any = list(sdk.ClientV2(**where).chat_stream(**arguments))
        return "".join(event.delta.message.content.text for event in events if event.type == "content-delta")

    async def later() -> str:
        answer: Any = await sdk.AsyncClientV2(**where).chat(**arguments)
        return str(answer.message.content[0].text)

    return {"plain": plain, "streamed": streamed, "async": lambda: asyncio.run(later())}


def genai(url: str) -> Mapping[str, Callable[[], str]]:
    """Generate content."""
    from google import genai as sdk
    from google.genai.types import HttpOptions

    client = sdk.Client(api_key="any", http_options=HttpOptions(base_url=f"{url}/gemini"))
    arguments: Any = {"model": "gemini-2.5-flash", "contents": "What are you?"}

    def plain() -> str:
        return str(client.models.generate_content(**arguments).text)

    def streamed() -> str:
        return "".join(chunk.text or "" for chunk in client.models.generate_content_stream(**arguments))

    async def later() -> str:
        return str((await client.aio.models.generate_content(**arguments)).text)

    return {"plain": plain, "streamed": streamed, "async": lambda: asyncio.run(later())}


def ollama(url: str) -> Mapping[str, Callable[[], str]]:
    """Chat."""
    sdk: Any = import_module("ollama")  # in its own environment only
    arguments: Any = {"model": "llama3.2", "messages": SAID}

    def plain() -> str:
        return str(sdk.Client(host=f"{url}/ollama").chat(**arguments)["message"]["content"])

    def streamed() -> str:
        parts: Any = list(sdk.Client(host=f"{url}/ollama").chat(**arguments, stream=True))
        return "".join(part["message"]["content"] for part in parts)

    async def later() -> str:
        answer: Any = await sdk.AsyncClient(host=f"{url}/ollama").chat(**arguments)
        return str(answer["message"]["content"])

    return {"plain": plain, "streamed": streamed, "async": lambda: asyncio.run(later())}


WAYS: Final[Mapping[str, Callable[[str], Mapping[str, Callable[[], str]]]]] = {
    "openai": openai,
    "groq": groq,
    "anthropic": anthropic,
    "mistralai": mistralai,
    "cohere": cohere,
    "genai": genai,
    "ollama": ollama,
}
PACKAGES: Final = {"genai": "google.genai"}
"""The package of an SDK, where it has another name."""
CLOSED: Final = {
    "block": Outcome(status=402, said=MESSAGE.format(name=NAME)),
    "reply": Outcome(text=MESSAGE.format(name=NAME)),
    "raise": Outcome(packages=("tollspan",), name="BudgetExceeded", said=MESSAGE.format(name=NAME)),
}
"""What a policy has to come to."""


def budget(policy: str) -> dict[str, str]:
    """Return the table of a budget that refuses every call."""
    return {"name": NAME, "limit": "0 calls", "on_exceed": policy, "message": MESSAGE}


def outcome_of(way: Callable[[], str]) -> Outcome:
    """Return what an application receives."""
    try:
        return Outcome(text=way())
    except BaseException as error:  # noqa: BLE001 - a BudgetExceeded is no Exception
        status = getattr(error, "status_code", None) or getattr(error, "code", None)
        modules = dict.fromkeys(kind.__module__ for kind in type(error).__mro__)
        return Outcome(
            packages=tuple(modules),
            name=type(error).__name__,
            status=status if isinstance(status, int) else None,
            said=str(error),
        )


def problem(sdk: str, policy: str, found: Outcome) -> str | None:
    """Return what is not as a policy has it; None = all is."""
    expected = CLOSED[policy]
    package = PACKAGES.get(sdk, sdk) if policy == "block" else "tollspan"
    if found.text != expected.text:
        return f"the answer is {found.text!r}"
    if policy == "reply":
        return None
    if expected.said not in found.said:
        return f"it says {found.said!r}"
    if not any(module == package or module.startswith(f"{package}.") for module in found.packages):
        return f"{found.name} of {found.packages} is no error of {package}"
    return None if found.status == expected.status else f"its status is {found.status}"


def main() -> None:
    """Make every policy refuse each way, and print what came of it."""
    sdk, url = sys.argv[1:]
    found: dict[str, Any] = {}
    for policy in POLICIES:
        tollspan.instrument(budget=[budget(policy)])
        found[policy] = {name: asdict(outcome_of(way)) for name, way in WAYS[sdk](url).items()}
        recorder = current()
        assert recorder is not None
        assert recorder.guard is not None
        found[policy]["refused"] = sum(recorder.guard.observed.denied.values())
        tollspan.uninstrument()
    print(json.dumps(found))  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
