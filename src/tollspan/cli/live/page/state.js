// The document that the server sends at /state, and at /events whenever it changes. Only types: nothing runs here, and
// the page does not load this file. tests/javascript/test_state.py checks what the server sends against it.

/**
 * Sent instead of the state if the ledger cannot be read.
 * @typedef {object} Problem
 * @property {string} problem what happened, and what to do
 */

/**
 * @typedef {object} State
 * @property {Board} board
 * @property {History} history
 * @property {Percentiles} first_token seconds, over the whole range
 * @property {string[]} sessions the latest first
 * @property {string} range
 * @property {string | null} session the session that the page is limited to
 * @property {string} ledger the path of the file
 */

/**
 * @typedef {object} Board
 * @property {string} at ISO 8601
 * @property {string} scope
 * @property {boolean} waiting whether there is no ledger yet
 * @property {number} read the share of the range's calls that has been read, 0 to 1
 * @property {Figures} total
 * @property {number} calls_per_minute
 * @property {string} usd_per_hour
 * @property {ModelFigures[]} models the most expensive first
 * @property {Record<string, TierFigures[]>} tiers by the name of the tag
 * @property {Budget[]} budgets
 * @property {string | null} budgets_unknown why the budgets cannot be read
 * @property {RefusedCalls[]} refused the most often refused first
 * @property {Call[]} calls the latest first
 */

/**
 * Sums over calls. Amounts are decimal strings in US dollars, so that they stay exact.
 * @typedef {object} Figures
 * @property {number} calls
 * @property {number} failed
 * @property {number} pending
 * @property {number} denied
 * @property {number} unpriced
 * @property {number} uncertain
 * @property {number} broken
 * @property {number} retries
 * @property {number} input
 * @property {number} output
 * @property {number} cache_read
 * @property {number} cache_write
 * @property {number} reasoning
 * @property {string} cost_usd
 * @property {string} savings_usd
 * @property {string} avoided_usd
 * @property {string} broken_usd
 * @property {string} retry_usd
 */

/** @typedef {Figures & { provider: string, model: string }} ModelFigures */
/** @typedef {Figures & { value: string }} TierFigures */

/**
 * One counter of a budget. Amounts are decimal strings in the budget's unit.
 * @typedef {object} Budget
 * @property {string} budget
 * @property {string} counter percent-encoded
 * @property {string} unit "usd", "tokens", "calls" or "identical"
 * @property {number | null} utilization null if there is no limit
 * @property {string | null} limit
 * @property {string} spent
 * @property {string} uncertain
 * @property {string} reserved
 * @property {string | null} remaining
 */

/**
 * @typedef {object} Call
 * @property {number} number of the row in the ledger
 * @property {string} at ISO 8601
 * @property {string} provider
 * @property {string | null} model
 * @property {string} operation
 * @property {string} outcome "ok", "error", "aborted" or "denied"
 * @property {string | null} error
 * @property {boolean} billable
 * @property {boolean} pending
 * @property {number | null} input
 * @property {number | null} output
 * @property {number | null} cache_read
 * @property {string | null} cost_usd null if there is no price
 * @property {string} quality
 * @property {number | null} first_token_seconds
 * @property {number | null} seconds null if the call was never sent
 * @property {Refusal | null} refusal why a budget refused the call
 */

/**
 * Calls that one budget refused for one reason.
 * @typedef {object} RefusedCalls
 * @property {number} calls
 * @property {string} text which budget, how many, why, and what to do
 */

/**
 * Why a budget refused a call. Amounts are decimal strings in the unit.
 * @typedef {object} Refusal
 * @property {string} budget empty if no budget was checked
 * @property {string} reason
 * @property {string | null} counter
 * @property {string | null} unit "usd", "tokens", "calls" or "identical"
 * @property {string | null} requested
 * @property {string | null} left
 * @property {string | null} limit
 * @property {string | null} held by calls under way
 * @property {number | null} holders
 * @property {number | null} waited seconds
 * @property {string | null} remedy
 */

/**
 * The charts' values, one for each step of the range; null if nothing was measured in a step.
 * @typedef {object} History
 * @property {number} start Unix seconds
 * @property {number} step seconds
 * @property {number} steps
 * @property {ModelSpend[]} spend
 * @property {number[]} calls
 * @property {number[]} fresh input tokens that no cache served
 * @property {number[]} cached
 * @property {number[]} output
 * @property {(number | null)[]} hits the share of input tokens that a cache served
 * @property {PercentileSeries} ttft seconds to the first token
 */

/**
 * @typedef {object} ModelSpend
 * @property {string} provider
 * @property {string} model
 * @property {number[]} usd
 */

/**
 * @typedef {object} Percentiles
 * @property {number | null} p50
 * @property {number | null} p95
 */

/**
 * @typedef {object} PercentileSeries
 * @property {(number | null)[]} p50
 * @property {(number | null)[]} p95
 */

export {};
