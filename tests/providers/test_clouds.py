"""The address of a request decides provider, region and format; on clouds they are in host and path."""

from __future__ import annotations

import pytest

from tollspan.wire.providers import Directory, bundled, provider_from

DIRECTORY = Directory(bundled().values())
VERTEX = "/v1/projects/p/locations/europe-west4/publishers"


@pytest.mark.parametrize(
    ("host", "path", "key", "dialect", "region"),
    [
        ("generativelanguage.googleapis.com", "/v1beta/models/m:generateContent", "gemini", "gemini", None),
        ("generativelanguage.googleapis.com", "/v1beta/openai/chat/completions", "gemini", "gemini_openai", None),
        ("generativelanguage.googleapis.com", "/v1beta/interactions", "gemini", "gemini_interactions", None),
        (
            "europe-west4-aiplatform.googleapis.com",
            f"{VERTEX}/google/models/m:generateContent",
            "vertex_ai",
            "gemini",
            "europe-west4",
        ),
        (
            "aiplatform.eu.rep.googleapis.com",
            f"{VERTEX}/anthropic/models/m:rawPredict",
            "vertex_ai",
            "anthropic",
            "europe-west4",
        ),
        (
            "aiplatform.googleapis.com",
            f"{VERTEX}/mistralai/models/m:streamRawPredict",
            "vertex_ai",
            "openai_chat",
            "europe-west4",
        ),
        ("aiplatform.googleapis.com", "/v1/publishers/google/models/m:generateContent", "vertex_ai", "gemini", None),
        (
            "aiplatform.googleapis.com",
            "/v1/projects/p/locations/global/endpoints/openapi/chat/completions",
            "vertex_ai",
            "gemini_openai",
            "global",
        ),
        ("bedrock-runtime.us-east-1.amazonaws.com", "/model/m/converse", "bedrock", "bedrock_converse", "us-east-1"),
        (
            "bedrock-runtime-fips.us-gov-west-1.amazonaws.com",
            "/model/m/invoke",
            "bedrock",
            "bedrock_invoke",
            "us-gov-west-1",
        ),
        (
            "vpce-1-2.bedrock-runtime.eu-west-1.vpce.amazonaws.com",
            "/model/m/invoke",
            "bedrock",
            "bedrock_invoke",
            "eu-west-1",
        ),
        (
            "bedrock-runtime.us-west-2.amazonaws.com",
            "/openai/v1/chat/completions",
            "bedrock",
            "openai_chat",
            "us-west-2",
        ),
        ("bedrock-mantle.us-east-1.api.aws", "/v1/responses", "bedrock_mantle", "openai_responses", "us-east-1"),
        ("bedrock-mantle.us-east-1.api.aws", "/anthropic/v1/messages", "bedrock_mantle", "anthropic", "us-east-1"),
        (
            "bedrock-agent-runtime.ap-south-1.amazonaws.com",
            "/retrieveAndGenerate",
            "bedrock_agent",
            "bedrock_agent",
            "ap-south-1",
        ),
        ("aws-external-anthropic.us-west-2.api.aws", "/v1/messages", "anthropic", "anthropic", None),
        ("api.cohere.com", "/v2/rerank", "cohere", "cohere", None),
        ("api.cohere.ai", "/compatibility/v1/chat/completions", "cohere", "openai_chat", None),
        ("api.eu2.bfl.ai", "/v1/flux-2-pro", "black_forest_labs", "black_forest_labs", None),
    ],
)
def test_host_and_path_tell_who_and_where(host: str, path: str, key: str, dialect: str, region: str | None) -> None:
    """Regional hosts, private endpoints and formats of others on a cloud's host are all distinguished."""
    found = DIRECTORY.find(host, None, path)
    assert found is not None
    provider, route = found
    place = provider.region.search(host + path) if provider.region is not None else None
    assert (provider.key, route.dialect, place and place["region"]) == (key, dialect, region)


@pytest.mark.parametrize(
    "host",
    [
        "bedrock-runtime.us-east-1.amazonaws.com.example.org",
        "aiplatform.googleapis.com.evil.example",
        "notaiplatform.googleapis.com",
    ],
)
def test_a_pattern_matches_a_whole_host(host: str) -> None:
    """A host that only begins or ends like a cloud's is somebody else's."""
    assert DIRECTORY.of_host(host, None) == ()


@pytest.mark.parametrize(
    ("host", "port", "path", "name"),
    [
        ("localhost", 11434, "/api/chat", "ollama"),
        ("gpu-box.lan", 11434, "/v1/chat/completions", "ollama"),
        ("localhost", None, "/api/chat", "ollama"),
        ("127.0.0.1", 8080, "/v1/chat/completions", "openai_compatible"),
    ],
)
def test_ollama_is_known_by_its_port_or_on_this_machine(host: str, port: int | None, path: str, name: str) -> None:
    """Ollama's port identifies it on any machine; on another port of this one only its own paths do."""
    found = DIRECTORY.find(host, port, path)
    assert found is not None
    assert found[0].name == name


def test_a_path_prefix_leaves_the_rest_of_a_host_alone() -> None:
    """Two providers may share a host, each under its own part of it; the rest has no provider."""
    one = provider_from("one", {"hosts": ["gate.example"], "path_prefix": "/one/"}, "one.toml")
    two = provider_from("two", {"hosts": ["gate.example"], "path_prefix": "/two/"}, "two.toml")
    directory = Directory([one, two])
    for key in ("one", "two"):
        found = directory.find("gate.example", None, f"/{key}/v1/messages")
        assert found is not None
        assert found[0].key == key
    rest = directory.find("gate.example", None, "/three/v1/messages")
    assert rest is not None
    assert rest[0].key == "anthropic_compatible"
