-- Counters of budgets in Redis 7 or Valkey. Every operation is one call of this script, so it is atomic.
--
-- KEYS[1] is the namespace's prefix, with its hash tag: all keys of a namespace are in one slot of a cluster.
-- ARGV[1] is the operation and ARGV[2] its arguments as JSON; the result is JSON too.
--
-- Lua's numbers are exact only up to 2^53, and amounts (atto-dollars) can be larger. They are sent and stored as decimal
-- text, and added up in two halves of base 10^15, each of which a double holds exactly.

local base = 1000000000000000
local prefix = KEYS[1]
local args = cjson.decode(ARGV[2])

local function number(text)
  if not text or text == '' then return {0, 0} end
  if #text <= 15 then return {0, tonumber(text)} end
  return {tonumber(string.sub(text, 1, -16)), tonumber(string.sub(text, -15))}
end

local function text(amount)
  if amount[1] == 0 then return string.format('%.0f', amount[2]) end
  return string.format('%.0f%015.0f', amount[1], amount[2])
end

local function add(one, other)
  local high, low = one[1] + other[1], one[2] + other[2]
  if low >= base then return {high + 1, low - base} end
  return {high, low}
end

local function subtract(one, other)
  local high, low = one[1] - other[1], one[2] - other[2]
  if low < 0 then high, low = high - 1, low + base end
  if high < 0 then return {0, 0} end
  return {high, low}
end

local function more(one, other)
  if one[1] ~= other[1] then return one[1] > other[1] end
  return one[2] > other[2]
end

local function less(one, other)
  if more(one, other) then return other end
  return one
end

local function counter_key(key) return prefix .. 'counter:' .. key end
local function lease_key(attempt) return prefix .. 'lease:' .. attempt end

-- Fields of a counter: `s:SLOT` is spent, `u:SLOT` uncertain, and `r:SLOT:END` is reserved by leases that expire before
-- END. So what is reserved is known to be over at its END, even if the record of the lease is lost.
local lease_span = 300
local function spent_field(slot) return 's:' .. slot end
local function uncertain_field(slot) return 'u:' .. slot end
local function reserved_field(slot, expiry)
  return string.format('r:%s:%.0f', slot, math.ceil(expiry / lease_span) * lease_span)
end

-- Change the amount in a field by `change` (add or subtract), and return the old one.
local function move(key, field, amount, change)
  local old = number(redis.call('HGET', counter_key(key), field))
  local new = text(change(old, amount))
  if new == '0' and string.sub(field, 1, 1) == 'r' then
    redis.call('HDEL', counter_key(key), field)
  else
    redis.call('HSET', counter_key(key), field, new)
  end
  return old
end

local function charge_uncertain(key, slot, amount)
  move(key, spent_field(slot), amount, add)
  move(key, uncertain_field(slot), amount, add)
end

local function resets(key) return redis.call('HGET', counter_key(key), 'resets') or '0' end
local function exists(key) return redis.call('EXISTS', counter_key(key)) == 1 end

local server_time = tonumber(redis.call('TIME')[1])

local function touch(key, name, kept_until)
  redis.call('HSET', counter_key(key), 'name', name)
  if kept_until ~= cjson.null and kept_until then
    -- A client whose clock is late must not delete what others count.
    redis.call('EXPIREAT', counter_key(key), math.max(math.ceil(kept_until), server_time + 3600))
    redis.call('ZADD', prefix .. 'counters', kept_until, key)
  else
    redis.call('ZADD', prefix .. 'counters', 'inf', key)
  end
end

-- Charge the leases that have expired: what is reserved is spent, because the call may have been made.
local every_lease_is_charged = false
local function charge_expired(now)
  local expired = redis.call('ZRANGEBYSCORE', prefix .. 'leases', '-inf', now, 'LIMIT', 0, 1000)
  every_lease_is_charged = #expired < 1000
  for _, attempt in ipairs(expired) do
    local leased = redis.call('GET', lease_key(attempt))
    if leased then
      local lease = cjson.decode(leased)
      for _, entry in ipairs(lease.lines) do
        local key, slot, amount = entry[1], entry[2], number(entry[3])
        if exists(key) then
          move(key, reserved_field(slot, lease['until']), amount, subtract)
          charge_uncertain(key, slot, amount)
        end
        entry[4] = resets(key)
      end
      lease.ended = true
      redis.call('SET', lease_key(attempt), cjson.encode(lease), 'EX', args.remembered)
    end
    redis.call('ZREM', prefix .. 'leases', attempt)
  end
end

-- Return the fields of a counter. What is still reserved by leases that have all expired is spent: their records are lost.
local function fields_of(key)
  local fields = redis.call('HGETALL', counter_key(key))
  local lost = false
  for i = 1, #fields, 2 do
    local slot, ending = string.match(fields[i], '^r:(%-?%d+):(%d+)$')
    if slot and every_lease_is_charged and tonumber(ending) <= args.now then
      redis.call('HDEL', counter_key(key), fields[i])
      charge_uncertain(key, slot, number(fields[i + 1]))
      lost = true
    end
  end
  return lost and redis.call('HGETALL', counter_key(key)) or fields
end

-- Return spent and reserved of a counter. Slots before `first` have left the window: of them only reserved counts.
local function amounts_of(key, first)
  local spent, reserved, stale = {0, 0}, {0, 0}, {}
  local fields = fields_of(key)
  for i = 1, #fields, 2 do
    local kind, slot = string.match(fields[i], '^([sur]):(%-?%d+)')
    if kind then
      local old = tonumber(slot) < first
      if kind == 'r' then
        reserved = add(reserved, number(fields[i + 1]))
      elseif kind == 's' and not old then
        spent = add(spent, number(fields[i + 1]))
      elseif old then
        stale[#stale + 1] = fields[i]
      end
    end
  end
  if #stale > 0 then redis.call('HDEL', counter_key(key), unpack(stale)) end
  return spent, reserved
end

local function limit_of(name, limit)
  return redis.call('HGET', prefix .. 'limits', name) or limit
end

local function state(spent, reserved, limit)
  return {text(spent), text(reserved), (limit ~= cjson.null and limit) or ''}
end

-- Tell the processes in which calls wait which counters have changed (redis_watch.py).
local function publish(keys)
  if #keys > 0 then redis.pcall('PUBLISH', prefix .. 'changed', cjson.encode(keys)) end  -- a user may not be allowed to
end

local operations = {}

function operations.reserve()
  charge_expired(args.now)
  local counters, refused = {}, nil
  for i, update in ipairs(args.updates) do
    local key, name, amount, mode = update[1], update[2], number(update[3]), update[5]
    local limit = limit_of(name, update[4])
    local spent, reserved = amounts_of(key, update[7])
    local has = limit ~= cjson.null and limit ~= ''
    if has and more(add(add(spent, reserved), amount), number(limit)) then
      local left, least = subtract(number(limit), add(spent, reserved)), number(update[9])
      local whole = not more(least, {0, 0})
      if mode == 1 then  -- SOFT
      elseif more(left, {0, 0}) and (mode == 2 or (not whole and not more(least, left))
          or (mode == 3 and not more(reserved, {0, 0}))) then  -- as `reservable` in stores/__init__.py
        amount = left
      else
        refused = refused or i
      end
    end
    counters[i] = {spent, reserved, limit, amount}
  end
  local again = redis.call('EXISTS', lease_key(args.attempt)) == 1
  if again then refused = nil end
  local states, amounts, leased = {}, {}, {}
  for i, update in ipairs(args.updates) do
    local spent, reserved, limit, amount = unpack(counters[i])
    amounts[i] = text(amount)
    if not refused and not again then
      touch(update[1], update[2], update[8])
      move(update[1], reserved_field(update[6], args['until']), amount, add)
      leased[i] = {update[1], update[6], text(amount)}
      reserved = add(reserved, amount)
    end
    states[i] = state(spent, reserved, limit)
  end
  if not refused and not again then
    redis.call('SET', lease_key(args.attempt), cjson.encode({ended = false, lines = leased, ['until'] = args['until']}),
      'EX', math.max(math.ceil(args['until'] - args.now), 0) + args.remembered)
    redis.call('ZADD', prefix .. 'leases', args['until'], args.attempt)
  end
  return {refused = refused or 0, states = states, amounts = amounts}
end

-- Take back what a lease has reserved. What is no longer reserved has been charged by its end.
local function take_back(key, slot, amount, expiry)
  local old = move(key, reserved_field(slot, expiry), amount, subtract)
  local charged = less(subtract(amount, old), number(redis.call('HGET', counter_key(key), uncertain_field(slot))))
  if more(charged, {0, 0}) then
    move(key, spent_field(slot), charged, subtract)
    move(key, uncertain_field(slot), charged, subtract)
  end
end

-- Take back what a lease has reserved or, if it has expired, was charged, unless that was reset since.
local function release(key, entry, amount, lease)
  local slot = entry[2]
  if not exists(key) then return end
  if not lease.ended then
    take_back(key, slot, amount, lease['until'])
  elseif entry[4] == resets(key) and redis.call('HEXISTS', counter_key(key), spent_field(slot)) == 1 then
    move(key, spent_field(slot), amount, subtract)
    move(key, uncertain_field(slot), amount, subtract)
  end
end

-- Charge one counter, and return its state.
local function charged(key, slot, charge)
  if exists(key) then
    move(key, spent_field(slot), number(charge[3]), add)
    move(key, uncertain_field(slot), number(charge[4]), add)
  end
  local spent, reserved = amounts_of(key, -math.huge)
  return state(spent, reserved, limit_of(redis.call('HGET', counter_key(key), 'name') or '', ''))
end

-- Have counters that were lost, and neither forgotten nor over, begin again.
local function begin_again(lease)
  for _, entry in ipairs(lease.lines) do
    local kept_until = redis.call('ZSCORE', prefix .. 'counters', entry[1])
    if kept_until and (kept_until == 'inf' or tonumber(kept_until) > args.now) and not exists(entry[1]) then
      touch(entry[1], entry[4], entry[5])
    end
  end
end

function operations.settle()
  charge_expired(args.now)
  local known = args.lease ~= cjson.null and args.lease
  if known then begin_again(known) end
  local leased = redis.call('GET', lease_key(args.attempt))
  local lease = leased and cjson.decode(leased) or known  -- the server's record may be lost, by eviction for example
  if not lease then return {missing = true} end
  redis.call('DEL', lease_key(args.attempt))
  redis.call('ZREM', prefix .. 'leases', args.attempt)
  local states, changed = {}, {}
  for i, entry in ipairs(lease.lines) do
    release(entry[1], entry, number(entry[3]), lease)
    changed[i] = entry[1]
  end
  for i, charge in ipairs(args.charges) do
    states[i] = charged(charge[1], charge[2], charge)
  end
  publish(changed)
  return {states = states}
end

-- Charge a part of an attempt, and release a part of its reservation: the rest of the lease stays.
function operations.settle_part()
  charge_expired(args.now)
  local leased = redis.call('GET', lease_key(args.attempt))
  if not leased then return {missing = true} end
  local lease, states, changed = cjson.decode(leased), {}, {}
  lease.parts = lease.parts or {}
  for _, part in ipairs(lease.parts) do
    if part == args.part then return {states = states} end
  end
  table.insert(lease.parts, args.part)
  if #lease.parts > 100 then table.remove(lease.parts, 1) end
  for i, charge in ipairs(args.charges) do
    local key, slot = charge[1], charge[2]
    for _, entry in ipairs(lease.lines) do
      if entry[1] == key then
        local left, part = number(entry[3]), number(charge[5])
        if more(part, left) then part = left end
        entry[3] = text(subtract(left, part))
        release(key, entry, part, lease)
      end
    end
    states[i] = charged(key, slot, charge)
    changed[i] = key
  end
  redis.call('SET', lease_key(args.attempt), cjson.encode(lease), 'KEEPTTL')
  publish(changed)
  return {states = states}
end

local function notes_key() return prefix .. 'notes:' .. args.kind end
local function notes_until_key() return prefix .. 'notes_until:' .. args.kind end

function operations.note()
  local old = redis.call('ZRANGEBYSCORE', notes_until_key(), '-inf', '(' .. args.now, 'LIMIT', 0, 1000)
  for _, name in ipairs(old) do
    redis.call('HDEL', notes_key(), name)
    redis.call('ZREM', notes_until_key(), name)
  end
  redis.call('HSET', notes_key(), args.name, args.text)
  redis.call('ZADD', notes_until_key(), args['until'], args.name)
  return {}
end

function operations.noted()
  local until_ = redis.call('ZSCORE', notes_until_key(), args.name)
  if not until_ or tonumber(until_) < args.now then return {} end
  return {text = redis.call('HGET', notes_key(), args.name)}
end

function operations.notes()
  local rows = {}
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', notes_until_key(), args.now, '+inf')) do
    rows[#rows + 1] = {name, redis.call('HGET', notes_key(), name)}
  end
  return {notes = rows}
end

function operations.charge()
  charge_expired(args.now)
  local states, changed = {}, {}
  for i, update in ipairs(args.updates) do
    changed[i] = update[1]
    touch(update[1], update[2], update[8])
    move(update[1], spent_field(update[6]), number(update[3]), add)
    local spent, reserved = amounts_of(update[1], update[7])
    states[i] = state(spent, reserved, limit_of(update[2], update[4]))
  end
  publish(changed)
  return {states = states}
end

function operations.states()
  charge_expired(args.now)
  local states = {}
  for i, update in ipairs(args.updates) do
    local spent, reserved = amounts_of(update[1], update[7])
    states[i] = state(spent, reserved, limit_of(update[2], update[4]))
  end
  return {states = states}
end

function operations.counters()
  charge_expired(args.now)
  redis.call('ZREMRANGEBYSCORE', prefix .. 'counters', '-inf', '(' .. args.now)
  local rows = {}
  for _, key in ipairs(redis.call('ZRANGE', prefix .. 'counters', 0, -1)) do
    local sums, name = {s = {0, 0}, u = {0, 0}, r = {0, 0}}, nil
    local fields = fields_of(key)
    for i = 1, #fields, 2 do
      local kind = string.match(fields[i], '^([sur]):')
      if kind then sums[kind] = add(sums[kind], number(fields[i + 1])) end
      if fields[i] == 'name' then name = fields[i + 1] end
    end
    if name then rows[#rows + 1] = {key, name, text(sums.s), text(sums.u), text(sums.r)} end
  end
  return {counters = rows}
end

function operations.reset()
  for _, key in ipairs(args.keys) do
    if exists(key) then
      for _, field in ipairs(redis.call('HKEYS', counter_key(key))) do
        if string.match(field, '^[su]:') then redis.call('HSET', counter_key(key), field, '0') end
      end
      redis.call('HINCRBY', counter_key(key), 'resets', 1)
    end
    redis.call('DEL', prefix .. 'marks:' .. key)
  end
  publish(args.keys)
  return {}
end

function operations.forget()
  for _, key in ipairs(args.keys) do
    redis.call('DEL', counter_key(key), prefix .. 'marks:' .. key)
    redis.call('ZREM', prefix .. 'counters', key)
  end
  return {}
end

-- A mark is set until a time, or forever; it can be set again after that time, and for longer at any time.
function operations.mark()
  local at = prefix .. 'marks:' .. args.key
  local old = redis.call('HGET', at, args.mark)
  local forever = args['until'] == cjson.null
  local first = not old or (old ~= 'inf' and tonumber(old) <= args.now)
  if first or forever or (old ~= 'inf' and tonumber(old) < args['until']) then
    redis.call('HSET', at, args.mark, forever and 'inf' or string.format('%.3f', args['until']))
  end
  local left = redis.call('TTL', counter_key(args.key))
  if left > 0 then redis.call('EXPIRE', at, left) end
  return {first = first}
end

-- Add sums of what was learned of calls to those that are kept, as `merged` in budget/habits.py does; they are numbers
-- that need not be exact. `habits:1` is version 1 of their names; they are kept for 90 days.
function operations.learn()
  local at, known = prefix .. 'habits:1', {}
  for key, news in pairs(args.news) do
    local old = redis.call('HGET', at, key)
    local sums = old and cjson.decode(old) or {}
    local faded = math.pow(args.decay, news.calls or 0)
    for name, amount in pairs(sums) do
      if name ~= 'calls' then sums[name] = amount * faded end
    end
    for name, amount in pairs(news) do
      sums[name] = (sums[name] or 0) + amount
    end
    for name, amount in pairs(sums) do
      if amount <= 0.000001 then sums[name] = nil end
    end
    redis.call('HSET', at, key, cjson.encode(sums))
    known[key] = sums
  end
  local excess = redis.call('HLEN', at) - args.most
  if excess > 0 then redis.call('HDEL', at, unpack(redis.call('HRANDFIELD', at, excess))) end
  redis.call('EXPIRE', at, 7776000)
  return {known = known}
end

function operations.unmark()
  redis.call('HDEL', prefix .. 'marks:' .. args.key, args.mark)
  return {}
end

local result = operations[ARGV[1]]()
result.time = server_time
return cjson.encode(result)
