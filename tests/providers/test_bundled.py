"""Providers are data: every file that comes with tollspan is sound."""

from __future__ import annotations

import re
import tomllib
from importlib.resources import files
from itertools import combinations
from typing import TYPE_CHECKING, Any

import pytest

from tollspan.model.errors import SettingsError
from tollspan.prices import snapshot
from tollspan.prices.lookup import prefixes_of
from tollspan.wire.dialects import ROUTES, load
from tollspan.wire.providers import Directory, Provider, bundled, compatible, provider_from

if TYPE_CHECKING:
    from tollspan.prices.row import Row

PROVIDERS = sorted(bundled())
DIRECTORY = Directory(bundled().values())

# The conventions' names (semantic-conventions-genai, gen_ai.provider.name); every other provider has a plain name.
CONVENTIONS = {
    "anthropic": "anthropic",
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "deepseek": "deepseek",
    "groq": "groq",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "openai": "openai",
    "perplexity": "perplexity",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}


@pytest.mark.parametrize("key", PROVIDERS)
def test_file_is_sound(key: str) -> None:
    """A provider has a title, a name, a host in lower case, and speaks only formats that there are."""
    provider = bundled()[key]
    assert provider.title
    assert re.fullmatch(r"[a-z0-9_.]+", provider.name)
    assert provider.hosts
    assert all(host == host.lower() and "/" not in host for host in provider.hosts)
    assert provider.routes
    for route in provider.routes:
        assert load(route.dialect).name == route.dialect


def test_hosts_belong_to_one_provider() -> None:
    """No host is named twice, unless the paths decide whose a request is."""
    seen: dict[tuple[str, str], str] = {}
    for key, provider in bundled().items():
        for host in provider.hosts:
            assert seen.setdefault((host, provider.path_prefix), key) == key


@pytest.mark.parametrize(("key", "name"), sorted(CONVENTIONS.items()))
def test_names_of_the_conventions(key: str, name: str) -> None:
    """Where the conventions have a name for a provider, it is called so."""
    assert bundled()[key].name == name


def _rows_of(label: str) -> dict[str, Row]:
    """Return the rows of a label by the names of their models, without the label's prefix."""
    rows: dict[str, Row] = {}
    for row in snapshot.bundled():
        if row.label == label:
            prefix = next((each for each in prefixes_of(label) if row.key.startswith(f"{each}/")), "")
            rows.setdefault(row.key.removeprefix(f"{prefix}/"), row)
    return rows


def _rates(row: Row) -> tuple[dict[str, int], dict[str, str]]:
    return dict(row.prices), {name: value for name, value in row.traits.items() if name.startswith("x.")}


@pytest.mark.parametrize("key", ["vertex_ai", "bedrock"])
def test_two_rows_of_one_model(key: str) -> None:
    """Where two labels of a cloud list a model at different rates, the row that is named after the cloud is taken."""
    labels = bundled()[key].prices
    rows = {label: _rows_of(label) for label in labels}
    pairs = 0
    for first, second in combinations(labels, 2):
        for name in rows[first].keys() & rows[second].keys():
            if _rates(rows[first][name]) != _rates(rows[second][name]):
                pairs += 1
                match = snapshot.bundled().find(name, labels)
                assert match is not None
                assert match.key.startswith(f"{prefixes_of(first)[0]}/"), name
    assert pairs == {"vertex_ai": 7, "bedrock": 0}[key]


def test_prices_of_a_region_go_first() -> None:
    """A model whose price in a region is listed costs that there, whichever label the row is under."""
    labels = bundled()["bedrock"].prices
    found = snapshot.bundled().find("nvidia.nemotron-super-3-120b", labels, "eu-west-2")
    assert found is not None
    assert found.key == "bedrock/eu-west-2/nvidia.nemotron-super-3-120b"


@pytest.mark.parametrize("key", PROVIDERS)
def test_price_labels_exist(key: str) -> None:
    """Each price label has entries in the snapshot: a mistyped one would leave every call unpriced."""
    snapshot = files("tollspan.prices").joinpath("snapshot.txt").read_text("utf-8")
    for label in bundled()[key].prices:
        assert any(f"\n{prefix}/" in snapshot for prefix in prefixes_of(label)) or f"\t{label}" in snapshot, label


@pytest.mark.parametrize(
    ("host", "port", "path", "provider", "dialect"),
    [
        ("api.openai.com", None, "/v1/chat/completions", "openai", "openai_chat"),
        ("eu.api.openai.com", None, "/v1/responses", "openai", "openai_responses"),
        ("api.openai.com", None, "/v1/responses/compact", "openai", "openai_responses"),
        ("api.openai.com", None, "/v1/images/edits", "openai", "openai_images"),
        ("api.openai.com", None, "/v1/audio/translations", "openai", "openai_transcription"),
        ("api.openai.com", None, "/v1/audio/speech", "openai", "openai_speech"),
        ("api.openai.com", None, "/v1/decisions", "openai", "openai_decisions"),
        ("my.openai.azure.com", None, "//openai/deployments/x/completions", "azure", "openai_completions"),
        ("my.services.ai.azure.com", None, "/models/chat/completions", "azure_ai", "openai_chat"),
        ("my.services.ai.azure.com", None, "/openai/v1/responses", "azure_ai_openai", "openai_responses"),
        ("my.services.ai.azure.com", None, "/anthropic/v1/messages", "azure_ai", "anthropic"),
        ("api.anthropic.com", None, "/v1/messages", "anthropic", "anthropic"),
        ("api.anthropic.com", None, "/v1/complete", "anthropic", "anthropic_complete"),
        ("api.deepseek.com", None, "/anthropic/v1/messages", "deepseek", "anthropic"),
        ("api.deepseek.com", None, "/beta/completions", "deepseek", "openai_completions"),
        ("api.mistral.ai", None, "/v1/fim/completions", "mistral", "openai_completions"),
        ("api.voyageai.com", None, "/v1/multimodalembeddings", "voyage", "openai_embeddings"),
        ("api.voyageai.com", None, "/v1/contextualizedembeddings", "voyage", "openai_embeddings"),
        ("api.minimax.io", None, "/v1/text/chatcompletion_v2", "minimax", "openai_chat"),
        ("acme.snowflakecomputing.com", None, "/api/v2/cortex/inference:embed", "snowflake", "openai_embeddings"),
        ("openrouter.ai", 443, "/api/v1/rerank", "openrouter", "rerank"),
        ("text.pollinations.ai", None, "/openai", "pollinations", "openai_chat"),
        ("api.writer.com", None, "/v1/chat", "writer", "openai_chat"),
        ("chatgpt.com", None, "/backend-api/codex/responses", "chatgpt_codex", "openai_responses"),
        ("adb-1.7.azuredatabricks.net", None, "/serving-endpoints/x/invocations", "databricks", "openai_chat"),
        ("org.snowflakecomputing.com", None, "/api/v2/cortex/v1/chat/completions", "snowflake", "openai_chat"),
        ("api.cloudflare.com", None, "/client/v4/accounts/a/ai/run/@cf/meta/x", "cloudflare", "cloudflare_run"),
        ("gateway.ai.cloudflare.com", None, "/v1/a/g/anthropic/v1/messages", "cloudflare_gateway", "anthropic"),
        ("api.bfl.ai", None, "/v1/flux-2-pro", "black_forest_labs", "black_forest_labs"),
        ("api.deepgram.com", None, "/v1/listen", "deepgram", "deepgram"),
        ("api.replicate.com", None, "/v1/models/a/b/predictions", "replicate", "replicate"),
        ("api.perplexity.ai", None, "/async/chat/completions", "perplexity", "perplexity_async"),
        ("api.perplexity.ai", None, "/v1/async/sonar", "perplexity", "perplexity_async"),
        ("us-south.ml.cloud.ibm.com", None, "/ml/v1/text/chat_stream", "watsonx", "openai_chat"),
        ("api.ai21.com", None, "/studio/v1/chat/completions", "ai21", "openai_chat"),
        ("localhost", 4000, "/chat/completions", "litellm_proxy", "openai_chat"),
    ],
)
def test_who_answers(host: str, port: int | None, path: str, provider: str, dialect: str) -> None:
    """The host and path of a request decide its provider and its format."""
    found = DIRECTORY.find(host, port, path)
    assert found is not None
    assert (found[0].key, found[1].dialect) == (provider, dialect)


@pytest.mark.parametrize(
    ("host", "path"),
    [
        ("api.openai.com", "/v1/models"),
        ("api.openai.com", "/v1/moderations"),
        ("api.openai.com", "/v1/files"),
        ("api.openai.com", "/v1/batches"),
        ("api.openai.com", "/v1/responses/input_tokens"),
        ("api.openai.com", "/v1/responses/resp_1"),
        ("api.openai.com", "/v1/responses/resp_1/cancel"),
        ("api.openai.com", "/v1/chat/completions/chatcmpl-1"),
        ("api.openai.com", "/v1/realtime/client_secrets"),
        ("api.openai.com", "/v1/threads/thread_1/runs"),
        ("api.anthropic.com", "/v1/messages/count_tokens"),
        ("api.anthropic.com", "/v1/messages/batches"),
        ("api.anthropic.com", "/v1/messages/batches/msgbatch_1/cancel"),
        ("api.bfl.ai", "/v1/get_result"),
        ("api.replicate.com", "/v1/predictions/p1/cancel"),
        ("chatgpt.com", "/backend-api/conversations"),
    ],
)
def test_control_calls_are_not_metered(host: str, path: str) -> None:
    """Lists, files, batches, counting, polling and moderation are not inference: they are not billed."""
    assert DIRECTORY.find(host, None, path) is None


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/v1/chat/completions", "openai_chat"),
        ("/chat/completions", "openai_chat"),
        ("/v1/completions", "openai_completions"),
        ("/v1/responses", "openai_responses"),
        ("/openai/responses", "openai_responses"),
        ("/responses", "openai_responses"),
        ("/v1/embeddings", "openai_embeddings"),
        ("/v1/rerank", "rerank"),
        ("/anthropic/v1/messages", "anthropic"),
    ],
)
def test_servers_of_ones_own(path: str, dialect: str) -> None:
    """An unrecognized host is identified by its path, and named after the format; it has no list price."""
    found = DIRECTORY.find("gpu-box.internal", 8000, path)
    assert found is not None
    assert found == (compatible(dialect), found[1])
    assert found[0].name.endswith("_compatible")
    assert found[0].prices == ()


@pytest.mark.parametrize(
    "path", ["/forms/1/responses", "/api/messages", "/v1/complete", "/v1/listen", "/v1/decisions", "/openai", "/"]
)
def test_paths_that_could_be_anybodys(path: str) -> None:
    """A path that other applications have too is taken at its provider's host only."""
    assert DIRECTORY.find("api.example.com", None, path) is None


def test_ones_own_provider_comes_first() -> None:
    """A custom provider at a known host comes before the bundled one."""
    own = provider_from("mine", {"hosts": ["api.openai.com"], "dialects": ["openai_chat"]}, "tollspan.toml")
    found = Directory([own, *bundled().values()]).find("api.openai.com", None, "/v1/chat/completions")
    assert found is not None
    assert found[0] is own


def test_a_gateway_is_known_by_its_sign() -> None:
    """A nameless host whose answer has a gateway's header is that gateway; a provider's host stays the provider's."""
    signed = {"x-litellm-version": "1.63.11"}
    assert DIRECTORY.answering(compatible("openai_chat"), signed).key == "litellm_proxy"
    assert DIRECTORY.answering(compatible("openai_chat"), {}) == compatible("openai_chat")
    assert DIRECTORY.answering(bundled()["openai"], signed) is bundled()["openai"]


@pytest.mark.parametrize(("header", "labels"), [("together", ("together_ai",)), ("somebody-new", ()), (None, ())])
def test_a_router_says_whose_prices_count(header: str | None, labels: tuple[str, ...]) -> None:
    """Hugging Face's router charges what the host that served a call charges, and names it in a header."""
    router = bundled()["huggingface"]
    found = DIRECTORY.answering(router, {} if header is None else {"x-inference-provider": header})
    assert (found.name, found.prices) == ("huggingface", labels)


def test_prices_of_whom_a_router_names_exist() -> None:
    """Each label that a router's header leads to has entries in the snapshot."""
    snapshot = files("tollspan.prices").joinpath("snapshot.txt").read_text("utf-8")
    for provider in bundled().values():
        for label in provider.served_labels.values():
            assert f"\t{label}\t" in snapshot, label


def test_unknown_keys_are_named() -> None:
    """A mistyped key is an error that names the file, the key and what is expected."""
    with pytest.raises(SettingsError, match=r"^tollspan\.toml: unknown key 'host'; .*; did you mean 'hosts'\?$"):
        provider_from("mine", {"host": ["x"]}, "tollspan.toml")
    with pytest.raises(
        SettingsError, match=r"tollspan\.toml: token_headers: unknown key 'tokens'; expected one of .*input"
    ):
        provider_from("mine", {"token_headers": {"tokens": "x"}}, "tollspan.toml")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"hosts": 5}, r"hosts=5 is not valid; expected a list of texts"),
        ({"hosts": "x.example"}, r"hosts='x.example' is not valid; expected a list of texts"),
        ({"hosts": [5]}, r"hosts=\[5\] is not valid; expected a list of texts"),
        ({"stream_usage": "yes"}, r"stream_usage='yes' is not valid; expected true or false"),
        ({"region": "("}, r"region='\(' is not valid; expected a regular expression \(.*unterminated subpattern"),
        ({"paths": {"(": "openai_chat"}}, r"paths\.\(='\(' is not valid; .* \(.*unterminated subpattern"),
        (
            {"cache_header": {"name": "x-cache"}},
            r"cache_header=.* is not valid; expected a table with the texts name and hit",
        ),
        ({"cache_header": {"name": "x", "hit": 5}}, r"expected a table with the texts name and hit"),
        ({"paths": {"/chat": 5}}, r"expected a table of dialects by regular expressions"),
        ({"served_by": {"header": "x"}}, r"expected a table with the text header and the table labels"),
        ({"served_by": {"header": 5, "labels": {}}}, r"expected a table with the text header and the table labels"),
        ({"unseen": {"*": "many"}}, r"expected a table of whole numbers by patterns of models"),
        ({"tools_counted": {"*": True}}, r"expected a table of numbers by patterns of models"),
    ],
)
def test_unusable_values_are_named(table: dict[str, Any], said: str) -> None:
    """An invalid value is one error that names it: the reader of the settings leaves that provider out."""
    with pytest.raises(SettingsError, match=said):
        provider_from("mine", table, "tollspan.toml")


def test_shared_routes_are_the_default() -> None:
    """A provider that names no formats speaks all that are known."""
    assert provider_from("mine", {"hosts": ["x.example"]}, "tollspan.toml").routes == ROUTES
    assert Provider(key="mine", name="mine").routes == ROUTES


def test_files_are_data() -> None:
    """Every file is plain TOML whose own paths are regular expressions."""
    for entry in files("tollspan.wire.providers").iterdir():
        if entry.name.endswith(".toml"):
            for path in tomllib.loads(entry.read_text("utf-8")).get("paths", {}):
                re.compile(path)
