"""Convert LiteLLM's price file (JSON) to the text of a snapshot.

The file (`model_prices_and_context_window.json`) has one object per model. Its price keys are spelled
`<what>[_above_<n>k_tokens][_<tier>]`; `_FIELDS` maps them to ours. Numbers are read from their decimal text and
never pass through a float. Keys that a call cannot use (commitments, storage, image sizes) are left out.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from tollspan.model.errors import PriceTableError
from tollspan.prices.fields import CONTEXT_SIZES, TIERS, UNIT_FIELDS, yocto
from tollspan.prices.table import MAGIC

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Fields = dict[str, str]
"""The fields of a snapshot row: name to decimal string."""

Rows = dict[str, tuple[str, Fields]]
"""The rows of a table before it is written: key to provider label and fields."""

_FIELDS: Final = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cache_read",
    "cache_creation_input_token_cost": "cache_write",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
    "cache_creation_input_token_cost_above_12hr": "cache_write_12h",
    "output_cost_per_reasoning_token": "reasoning",
    "input_cost_per_audio_token": "input_audio",
    "input_cost_per_image_token": "input_image",
    "input_cost_per_video_token": "input_video",
    "output_cost_per_audio_token": "output_audio",
    "output_cost_per_image_token": "output_image",
    "output_cost_per_video_token": "output_video",
    "cache_read_input_audio_token_cost": "cache_read_audio",
    "cache_read_input_image_token_cost": "cache_read_image",
    "citation_cost_per_token": "citation_tokens",
    "input_cost_per_second": "input_seconds",
    "output_cost_per_second": "output_seconds",
    "input_cost_per_character": "input_characters",
    "output_cost_per_character": "output_characters",
    "input_cost_per_image": "input_images",
    "output_cost_per_image": "output_images",
    "output_cost_per_pixel": "output_pixels",
    "input_cost_per_query": "queries",
    "input_cost_per_request": "requests",
    "ocr_cost_per_page": "pages",
    "annotation_cost_per_page": "annotated_pages",
    "google_maps_grounding_cost_per_query": "maps_groundings",
    "code_interpreter_cost_per_session": "code_sessions",
}

# Other spellings, used if the first one is absent.
_SECOND_SPELLINGS: Final = {
    "input_cost_per_token_cache_hit": "cache_read",
    "input_cost_per_audio_per_second": "input_seconds",
    "input_cost_per_video_per_second": "input_seconds",
    "output_cost_per_video_per_second": "output_seconds",
    "input_cost_per_pixel": "output_pixels",  # image models list their output pixels as input
}

_KEY: Final = re.compile(rf"^(.+?)(?:_above_(\d+)k_tokens)?(?:_({'|'.join(TIERS)}))?$")
_GOOGLE_LABELS: Final = frozenset({"gemini", "vertex_ai", "vertex_ai-language-models"})
_ZONES: Final = {"UTC": 0, "Asia/Shanghai": 480}
_WINDOW: Final = re.compile(r"[1-7]+:\d+-\d+(,\d+-\d+)*")
_ARTEFACT_DIGITS: Final = 16
_MEANT_DIGITS: Final = 12


def read_json(text: bytes) -> dict[str, dict[str, object]]:
    """Return the entries of the file that name a provider, with numbers as Decimal (NaN is rejected later).

    Raises:
        PriceTableError: The text is not a JSON object.
    """
    try:
        parsed = json.loads(text, parse_float=Decimal, parse_constant=Decimal)
    except (ValueError, RecursionError) as error:
        raise PriceTableError(f"the price file is not JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise PriceTableError(f"the price file is a JSON {type(parsed).__name__}, not an object of models")
    return {
        key: entry
        for key, entry in parsed.items()
        if isinstance(entry, dict) and isinstance(entry.get("litellm_provider"), str) and key != "sample_spec"
    }


def fields_of(entry: Mapping[str, object]) -> Fields:
    """Return the fields of one entry of the file.

    Raises:
        PriceTableError: A price is not a number, negative or implausible.
    """
    found: Fields = {}
    for key, value in entry.items():
        if (name := _field(key, _FIELDS)) is not None:
            _put(found, name, value)
    for key, value in entry.items():
        if (name := _field(key, _SECOND_SPELLINGS)) is not None and found.get(name, "0") == "0":
            _put(found, name, value)
    if entry.get("cost_per_second") is not None:
        return {}  # reserved capacity: billed by the hour, not by call
    _put_tiers(found, entry.get("tiered_pricing"))
    _put_search(found, entry)
    _put_off_peak(found, entry.get("off_peak_pricing"))
    _put_multipliers(found, entry)
    _put_traits(found, entry)
    return found


def _field(key: str, names: Mapping[str, str]) -> str | None:
    """Return our name of a key of the file, or None: `..._above_272k_tokens_flex` to `...>272k/flex`."""
    match = _KEY.match(key)
    name = names.get(match[1]) if match else None
    if match is None or name is None:
        return None
    return name + (f">{match[2]}k" if match[2] else "") + (f"/{match[3]}" if match[3] else "")


def _put(fields: Fields, name: str, value: object) -> None:
    """Add a price; null is absent."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, str, Decimal)):
        raise PriceTableError(f"price {name} is a {type(value).__name__}, not a number")
    fields[name] = number(str(value))


def number(text: str) -> str:
    """Return a price as its shortest decimal string, without binary artefacts (0.30000000000000004 is 0.3)."""
    yocto(text)
    exact = Decimal(text)
    if len(exact.as_tuple().digits) >= _ARTEFACT_DIGITS:
        meant = Decimal(f"{exact:.{_MEANT_DIGITS - 1}e}")
        # A double has 15 significant digits: further ones are an artefact, not part of the price.
        if abs(meant - exact) <= abs(exact) * Decimal("1e-15"):
            exact = meant
    if not exact:
        return "0"
    exact = exact.normalize()
    mantissa = "".join(str(digit) for digit in exact.as_tuple().digits)
    return min(f"{exact:f}", f"{mantissa}e{exact.as_tuple().exponent}", key=len)


def _put_tiers(fields: Fields, tiers: object) -> None:
    """Add ranges of input size as a base price and thresholds: `range_start < tokens` is `>`."""
    if not isinstance(tiers, list):
        return
    for tier in tiers:
        bounds = tier.get("range") if isinstance(tier, dict) else None
        if not isinstance(bounds, list) or not bounds:
            continue
        start = int(Decimal(str(bounds[0])))
        if start < 0:
            raise PriceTableError(f"a range of input sizes starts at {start}")
        place = f">{start // 1000}k" if start else ""
        for key, value in tier.items():
            if (name := _FIELDS.get(key)) is not None:
                _put(fields, name + place, value)


def _put_search(fields: Fields, entry: Mapping[str, object]) -> None:
    """Add the price of a web search, by the size of its context if that matters."""
    costs = entry.get("search_context_cost_per_query")
    if not isinstance(costs, dict):
        return
    sizes = {size: costs.get(f"search_context_size_{size}") for size in CONTEXT_SIZES}
    sizes = {size: value for size, value in sizes.items() if value is not None}
    if len(set(sizes.values())) == 1:
        _put(fields, "web_searches", next(iter(sizes.values())))
    else:
        for size, value in sizes.items():
            _put(fields, f"web_searches.{size}", value)
    if entry["litellm_provider"] in _GOOGLE_LABELS and entry.get("web_search_billing_unit") != "per_query":
        fields["search_by"] = "prompt"


def _put_off_peak(fields: Fields, block: object) -> None:
    """Add off-peak prices and their windows, in minutes of the UTC day."""
    if not isinstance(block, dict):
        return
    windows = []
    for window in block.get("windows", []):
        spans = window["hours_utc"] if isinstance(window["hours_utc"], list) else [window["hours_utc"]]
        days = "".join(str(int(day)) for day in window.get("weekdays", range(1, 8)))
        windows.append(f"{days}:{','.join(_span(span) for span in spans)}")
        if not _WINDOW.fullmatch(windows[-1]):
            raise PriceTableError(f"off-peak window {window} is invalid")
    if not windows:
        return
    for key, value in block.items():
        if (name := _FIELDS.get(key)) is not None:
            _put(fields, f"{name}@off", value)
    fields["off_peak"] = ";".join(windows)
    if zone := _ZONES.get(block.get("weekday_timezone", "UTC"), 0):
        fields["off_peak_zone"] = str(zone)


def _span(hours: str) -> str:
    """Return `600-1440` for `10:00-00:00`."""
    first, last = (int(time[:2]) * 60 + int(time[3:5]) for time in hours.split("-"))
    return f"{first}-{last or 1440}"


def _put_multipliers(fields: Fields, entry: Mapping[str, object]) -> None:
    """Add multipliers of token prices: geography, speed, data residency, regional endpoints."""
    specific = entry.get("provider_specific_entry")
    if isinstance(specific, dict):
        for word in ("us", "fast"):
            _put(fields, f"x.{word}", specific.get(word))
    for region in ("eu", "us"):
        _put(fields, f"x.region.{region}", entry.get(f"regional_processing_uplift_multiplier_{region}"))
    _put(fields, "x.regional", entry.get("regional_endpoint_uplift_multiplier"))


def _put_traits(fields: Fields, entry: Mapping[str, object]) -> None:
    """Add facts other than prices."""
    mode = entry.get("mode")
    if isinstance(mode, str) and mode != "chat" and re.fullmatch(r"\w+", mode):
        fields["mode"] = mode
    for trait in ("max_input", "max_output"):
        longest = entry.get(f"{trait}_tokens")
        if isinstance(longest, int) and not isinstance(longest, bool) and longest > 0:
            fields[trait] = str(longest)


def snapshot(rows: Rows, header: Mapping[str, object]) -> bytes:
    """Return rows as the text of a snapshot.

    The header gets the digest of the rows, and the version its first twelve hex digits.
    """
    body = "".join(f"{line}\n" for line in _lines(rows)).encode()
    digest = sha256(body).hexdigest()
    head = {**header, "rows": len(rows), "sha256": digest}
    head["version"] = f"{header['version']}@{digest[:12]}"
    return MAGIC + b"\n" + json.dumps(head).encode() + b"\n" + body


def digest_of(text: bytes) -> str:
    """Return the digest of a snapshot's rows, to be compared with the one in its header."""
    return sha256(text.split(b"\n", 2)[-1]).hexdigest()


def _lines(rows: Rows) -> Iterator[str]:
    """Yield the lines of a snapshot, sorted by the bytes of their keys; repeated rows refer to the first."""
    first: dict[str, str] = {}
    for key in sorted(rows, key=lambda key: key.encode() + b"\t"):
        label, fields = rows[key]
        text = " ".join(f"{name}={value}" for name, value in sorted(fields.items(), key=_order))
        if len(text) > len(first.setdefault(text, key)) + 1 and first[text] != key:
            text = f"={first[text]}"
        yield f"{key}\t{label}\t{text}"


_ORDER: Final = {name: place for place, name in enumerate((*_FIELDS.values(), *UNIT_FIELDS))}


def _order(field: tuple[str, str]) -> tuple[int, str]:
    """Return a sort key: input and output first, then the order of the vocabulary."""
    name = re.split("[>/@.]", field[0])[0]
    return _ORDER.get(name, len(_ORDER)), field[0]


def rows_of(entries: Mapping[str, Mapping[str, object]]) -> tuple[Rows, list[str]]:
    """Return the rows of all entries, and a line for each entry that was left out."""
    rows: Rows = {}
    refused = []
    for key, entry in entries.items():
        label = str(entry["litellm_provider"])
        try:
            _check_name(key, label)
            rows[key] = (label, fields_of(entry))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            refused.append(f"{key}: {str(error) or type(error).__name__}")
    return rows, refused


def _check_name(*names: str) -> None:
    """Raise PriceTableError for names that would break a line."""
    if any(not name or len(name) > 256 or re.search(r"[\t\n\r]", name) for name in names):  # noqa: PLR2004
        raise PriceTableError("its name or provider is empty, too long or has a line break")
