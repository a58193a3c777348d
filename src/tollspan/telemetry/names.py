"""Names of the GenAI semantic conventions, and our own, as constants; no other module has them as literals.

Read on 2026-11-22 from the released packages (conventions up to 1.41) and, where marked "newest", from the text
merged in September and October 2026. The published `opentelemetry-semantic-conventions` froze its gen_ai constants
without the newer names, so they are kept here. Cost names are those of semantic-conventions-genai PR 443, not adopted
yet.
"""

from __future__ import annotations

from typing import Final

# Operations
FETCH_RESPONSE: Final = "fetch_response"
FORWARD: Final = "forward"  # ours: a request that another client in this process forwards

# Span attributes
OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
OUTPUT_TYPE: Final = "gen_ai.output.type"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_STREAM: Final = "gen_ai.request.stream"
REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
REQUEST_CHOICES: Final = "gen_ai.request.choice.count"
REQUEST_REASONING: Final = "gen_ai.request.reasoning.level"
REQUEST_PREVIOUS: Final = "gen_ai.request.previous_response.id"
RESPONSE_ID: Final = "gen_ai.response.id"
RESPONSE_MODEL: Final = "gen_ai.response.model"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS: Final = "gen_ai.usage.cache_write.input_tokens"
REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
TEXT_INPUT_TOKENS: Final = "gen_ai.usage.text.input_tokens"
TEXT_OUTPUT_TOKENS: Final = "gen_ai.usage.text.output_tokens"
IMAGE_INPUT_TOKENS: Final = "gen_ai.usage.image.input_tokens"
IMAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.image.output_tokens"
AUDIO_INPUT_TOKENS: Final = "gen_ai.usage.audio.input_tokens"
AUDIO_OUTPUT_TOKENS: Final = "gen_ai.usage.audio.output_tokens"
# No standard name separates the lifetimes of cache writes; these are the Anthropic SDK's own.
CACHE_WRITE_5M_TOKENS: Final = "anthropic.usage.cache_creation.ephemeral_5m_input_tokens"
CACHE_WRITE_1H_TOKENS: Final = "anthropic.usage.cache_creation.ephemeral_1h_input_tokens"
COST_AMOUNT: Final = "gen_ai.usage.cost.amount"
COST_CURRENCY: Final = "gen_ai.usage.cost.currency"
COST_SOURCE: Final = "gen_ai.usage.cost.source"
ERROR_TYPE: Final = "error.type"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
HTTP_STATUS: Final = "http.response.status_code"
RESEND_COUNT: Final = "http.request.resend_count"

# Our own span attributes
CALL_ID: Final = "tollspan.call.id"
OPERATION_ID: Final = "tollspan.operation.id"
OUTCOME: Final = "tollspan.outcome"
ATTEMPTS: Final = "tollspan.attempts"  # billed HTTP attempts on the span of another emitter, where there are several
TIME_TO_FIRST_TOKEN_ATTRIBUTE: Final = "tollspan.time_to_first_token"
SERVICE_TIER: Final = "tollspan.service_tier"
PENDING: Final = "tollspan.pending"  # the provider continues in the background; another span has the cost
SETTLES: Final = "tollspan.settles"  # the call whose pending response this span has fetched; this span has its cost
FETCHED_INPUT_TOKENS: Final = "tollspan.usage.input_tokens"  # a fetch has none under the conventions' names
FETCHED_OUTPUT_TOKENS: Final = "tollspan.usage.output_tokens"
BATCH_ID: Final = "tollspan.batch.id"  # of the batch whose results a span has downloaded
BATCH_RESULTS: Final = "tollspan.batch.results"  # how many of them had not been counted before
BATCH_FAILED: Final = "tollspan.batch.failed"  # of these, those that are not charged
BATCH_UNPRICED: Final = "tollspan.batch.unpriced"  # of these, those without a price
USAGE_QUALITY: Final = "tollspan.usage.quality"  # only where usage was not measured
COST_QUALITY: Final = "tollspan.cost.quality"
COST_PRICE_KEY: Final = "tollspan.cost.price_key"
COST_RULE: Final = "tollspan.cost.rule"
COST_TABLE: Final = "tollspan.cost.table_version"
COST_BREAKDOWN: Final = "tollspan.cost.breakdown."  # followed by the kind
COST_COMPUTED: Final = "tollspan.cost.computed"
COST_LOW: Final = "tollspan.cost.low"
COST_HIGH: Final = "tollspan.cost.high"
COST_MISSING: Final = "tollspan.cost.missing"
COST_AVOIDED: Final = "tollspan.cost.avoided"
COST_NOTE: Final = "tollspan.cost.note"
BUDGET: Final = "tollspan.budget.name"
BUDGET_REASON: Final = "tollspan.budget.reason"
BUDGET_UNIT: Final = "tollspan.budget.unit"
BUDGET_PERIOD: Final = "tollspan.budget.period"
BUDGET_COUNTER: Final = "tollspan.budget.counter"
BUDGET_SHARE: Final = "tollspan.budget.share"
BUDGET_REQUESTED: Final = "tollspan.budget.requested"  # by a call that was refused
BUDGET_HOLDERS: Final = "tollspan.budget.holders"  # calls under way that held what was reserved
BUDGET_REMEDY: Final = "tollspan.budget.remedy"
# The event of a warning; spent and limit have the names of the metrics.
BUDGET_THRESHOLD: Final = "tollspan.budget.threshold"
BUDGET_OUTPUT_LIMIT: Final = "tollspan.budget.output_limit"
DOWNGRADED_FROM: Final = "tollspan.budget.downgraded_from"
BUDGET_WAIT: Final = "tollspan.budget.wait"  # seconds before the call, which are no part of its duration
USER_ID: Final = "user.id"
SESSION_ID: Final = "session.id"
CONVERSATION_ID: Final = "gen_ai.conversation.id"
AGENT_NAME: Final = "gen_ai.agent.name"
TOOL_NAME: Final = "gen_ai.tool.name"
RUN_ID: Final = "tollspan.run.id"
STEP: Final = "tollspan.step"
TAG: Final = "tollspan.tag."  # followed by the name
CACHED_BY: Final = "tollspan.cached_by"

# The event of a call (opt-in), beside the span attributes above; collector-config/README.md lists all of them.
# Names that end in `_usd` have exact decimal strings as values.
CALL_EVENT: Final = "tollspan.call"
STARTED_AT: Final = "tollspan.started_at"  # Unix time in nanoseconds
DURATION: Final = "tollspan.duration"  # seconds
BILLABLE: Final = "tollspan.billable"
REGION: Final = "tollspan.region"
GEOGRAPHY: Final = "tollspan.geography"
SPEED: Final = "tollspan.speed"
SEARCH_CONTEXT: Final = "tollspan.search_context"
PRICE_LABELS: Final = "tollspan.cost.price_labels"
PARTS: Final = "tollspan.parts"  # JSON: iterations that were billed separately
USAGE_COUNT: Final = "tollspan.usage.count."  # followed by the name of a count that has no standard name
AMOUNT_USD: Final = "tollspan.cost.amount_usd"
AMOUNT_NANO: Final = "tollspan.cost.amount_nano"  # whole nano-dollars...
AMOUNT_REST: Final = "tollspan.cost.amount_rest"  # ...and atto-dollars on top, from 0 to 999,999,999
BREAKDOWN_USD: Final = "tollspan.cost.breakdown_usd."  # followed by the kind
COMPUTED_USD: Final = "tollspan.cost.computed_usd"
LOW_USD: Final = "tollspan.cost.low_usd"
HIGH_USD: Final = "tollspan.cost.high_usd"
SAVINGS_USD: Final = "tollspan.cost.savings_usd"
AVOIDED_USD: Final = "tollspan.cost.avoided_usd"
REFUSAL: Final = "tollspan.budget.refusal"  # JSON: why a budget refused the call, with exact amounts

# Names under which other tools read a cost (opt-in)
COST_ALIASES: Final = ("gen_ai.usage.cost", "operation.cost", "llm.cost.total")

# Metric attributes
TOKEN_TYPE: Final = "gen_ai.token.type"
TOKEN_MODALITY: Final = "gen_ai.token.modality"
KIND: Final = "tollspan.kind"

# Metrics of the released generation
OPERATION_DURATION: Final = "gen_ai.client.operation.duration"
TOKEN_USAGE: Final = "gen_ai.client.token.usage"
OPERATION_FIRST_CHUNK: Final = "gen_ai.client.operation.time_to_first_chunk"
OPERATION_PER_CHUNK: Final = "gen_ai.client.operation.time_per_output_chunk"
OPERATION_COST: Final = "gen_ai.client.operation.cost"  # proposed, PR 443
# Metrics of the newest generation
INFERENCE_DURATION: Final = "gen_ai.client.inference.duration"
INFERENCE_FIRST_CHUNK: Final = "gen_ai.client.inference.time_to_first_chunk"
INFERENCE_PER_CHUNK: Final = "gen_ai.client.inference.time_per_output_chunk"
INFERENCE_USAGE: Final = "gen_ai.client.inference.usage."  # followed by the kind of tokens
INFERENCE_INPUT: Final = "gen_ai.client.inference.operation.input_tokens"
INFERENCE_OUTPUT: Final = "gen_ai.client.inference.operation.output_tokens"
EMBEDDINGS_DURATION: Final = "gen_ai.client.embeddings.duration"
# Metrics of our own
FIRST_TOKEN: Final = "tollspan.time_to_first_token"
SPEND: Final = "tollspan.spend"
CALLS: Final = "tollspan.calls"
CACHE_SAVINGS: Final = "tollspan.cache.savings"
BUDGET_LIMIT: Final = "tollspan.budget.limit"
BUDGET_SPENT: Final = "tollspan.budget.spent"
BUDGET_RESERVED: Final = "tollspan.budget.reserved"
BUDGET_REMAINING: Final = "tollspan.budget.remaining"
BUDGET_UTILIZATION: Final = "tollspan.budget.utilization"
BUDGET_DENIED: Final = "tollspan.budget.denied"
BUDGET_OVERSHOOT: Final = "tollspan.budget.overshoot"
BUDGET_STORE_ERRORS: Final = "tollspan.budget.store.errors"
BUDGET_WAIT_DURATION: Final = "tollspan.budget.wait.duration"
UNPRICED_CALLS: Final = "tollspan.unpriced.calls"
DISPUTED_CALLS: Final = "tollspan.disputed.calls"
RETRIED_CALLS: Final = "tollspan.retried.calls"
RETRIED_SPEND: Final = "tollspan.retried.spend"
FAILED_SPEND: Final = "tollspan.failed.spend"
TOKENS: Final = "tollspan.tokens"
PRICES_AGE: Final = "tollspan.prices.age"
INTERNAL_ERRORS: Final = "tollspan.internal.errors"

SECONDS_BUCKETS: Final = tuple(0.01 * 2**power for power in range(14))  # 0.01 to 81.92, doubling
TOKEN_BUCKETS: Final = tuple(4**power for power in range(14))  # 1 to 67,108,864
# No convention has bounds for the cost yet: a thousandth of a cent to a thousand dollars.
COST_BUCKETS: Final = (*(float(f"{step}e{power}") for power in range(-5, 3) for step in (1, 2, 5)), 1000.0)

# Context keys
INFERENCE_CONTEXT: Final = "opentelemetry.genai.client.inference.context"
EMBEDDING_CONTEXT: Final = "opentelemetry.genai.client.embedding.context"


def is_ours(name: str) -> bool:
    """Return whether tollspan alone writes a span attribute: ours, and the cost under the proposed names."""
    return name.startswith(("tollspan.", "gen_ai.usage.cost"))
