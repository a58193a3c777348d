-- Counters of budgets in Redis 7 or Valkey: every operation is one call of this script, and so happens at once.
--
-- KEYS[1] is the namespace's prefix, with its hash tag: all keys of a namespace lie in one slot of a cluster.
-- ARGV[1] is the operation and ARGV[2] its arguments as JSON; the answer is JSON too.
--
-- Lua's numbers are exact only up to 2^53, and amounts (atto-dollars) are not. They come and are kept as decimal text, and
-- are added up in two halves of base 10^15, each of which a double holds exactly.

local base = 1000000000000000
local prefix = KEYS[1]
local ask = cjson.decode(ARGV[2])

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

local function counter_key(key) return prefix .. 'counter:' .. key end
local function lease_key(attempt) return prefix .. 'lease:' .. attempt end

-- Move amounts of one slot: field is s (spent), u (uncertain) or r (reserved).
local function move(key, field, slot, amount, change)
  local at, name = counter_key(key), field .. ':' .. slot
  local old = redis.call('HGET', at, name)
  redis.call('HSET', at, name, text(change(number(old), amount)))
end

local function resets(key) return redis.call('HGET', counter_key(key), 'resets') or '0' end
local function exists(key) return redis.call('EXISTS', counter_key(key)) == 1 end

-- Charge the leases that have ended: what is reserved is spent, for the call may have been made.
local function end_leases(now)
  local ended = redis.call('ZRANGEBYSCORE', prefix .. 'leases', '-inf', now, 'LIMIT', 0, 1000)
  for _, attempt in ipairs(ended) do
    local kept = redis.call('GET', lease_key(attempt))
    if kept then
      local lease = cjson.decode(kept)
      for _, line in ipairs(lease.lines) do
        local key, slot, amount = line[1], line[2], number(line[3])
        if exists(key) then
          move(key, 'r', slot, amount, subtract)
          move(key, 's', slot, amount, add)
          move(key, 'u', slot, amount, add)
        end
        line[4] = resets(key)
      end
      lease.ended = true
      redis.call('SET', lease_key(attempt), cjson.encode(lease), 'EX', ask.remembered)
    end
    redis.call('ZREM', prefix .. 'leases', attempt)
  end
end

-- Give spent and reserved of a counter; slots before `first` have rolled out, and only what they have reserved counts.
local function level(key, first)
  local spent, reserved, stale = {0, 0}, {0, 0}, {}
  local fields = redis.call('HGETALL', counter_key(key))
  for i = 1, #fields, 2 do
    local kind, slot = string.match(fields[i], '^([sur]):(%-?%d+)$')
    if kind then
      local old = tonumber(slot) < first
      if kind == 'r' then
        reserved = add(reserved, number(fields[i + 1]))
        if old and fields[i + 1] == '0' then stale[#stale + 1] = fields[i] end
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

local function own_limit(name, limit)
  return redis.call('HGET', prefix .. 'limits', name) or limit
end

local function touch(key, name, kept_until)
  redis.call('HSET', counter_key(key), 'name', name)
  if kept_until ~= cjson.null and kept_until then
    redis.call('EXPIREAT', counter_key(key), math.ceil(kept_until))
    redis.call('ZADD', prefix .. 'counters', kept_until, key)
  else
    redis.call('ZADD', prefix .. 'counters', 'inf', key)
  end
end

local function shown(spent, reserved, limit)
  return {text(spent), text(reserved), (limit ~= cjson.null and limit) or ''}
end

local operations = {}

function operations.reserve()
  end_leases(ask.now)
  local found, refused = {}, nil
  for i, line in ipairs(ask.lines) do
    local key, name, amount, mode = line[1], line[2], number(line[3]), line[5]
    local limit = own_limit(name, line[4])
    local spent, reserved = level(key, line[7])
    local has = limit ~= cjson.null and limit ~= ''
    if has and more(add(add(spent, reserved), amount), number(limit)) then
      local left = subtract(number(limit), add(spent, reserved))
      if mode == 2 and more(left, {0, 0}) then
        amount = left
      elseif mode ~= 1 then
        refused = refused or i
      end
    end
    found[i] = {spent, reserved, limit, amount}
  end
  local again = redis.call('EXISTS', lease_key(ask.attempt)) == 1
  if again then refused = nil end
  local levels, amounts, kept = {}, {}, {}
  for i, line in ipairs(ask.lines) do
    local spent, reserved, limit, amount = unpack(found[i])
    amounts[i] = text(amount)
    if not refused and not again then
      touch(line[1], line[2], line[8])
      move(line[1], 'r', line[6], amount, add)
      kept[i] = {line[1], line[6], text(amount)}
      reserved = add(reserved, amount)
    end
    levels[i] = shown(spent, reserved, limit)
  end
  if not refused and not again then
    redis.call('SET', lease_key(ask.attempt), cjson.encode({ended = false, lines = kept}))
    redis.call('ZADD', prefix .. 'leases', ask['until'], ask.attempt)
  end
  return {refused = refused or 0, levels = levels, amounts = amounts}
end

function operations.settle()
  end_leases(ask.now)
  local kept = redis.call('GET', lease_key(ask.attempt))
  if not kept then return {missing = true} end
  redis.call('DEL', lease_key(ask.attempt))
  redis.call('ZREM', prefix .. 'leases', ask.attempt)
  local lease = cjson.decode(kept)
  for _, line in ipairs(lease.lines) do
    local key, slot, amount = line[1], line[2], number(line[3])
    if exists(key) then
      if not lease.ended then
        move(key, 'r', slot, amount, subtract)
      elseif line[4] == resets(key) and redis.call('HEXISTS', counter_key(key), 's:' .. slot) == 1 then
        move(key, 's', slot, amount, subtract)
        move(key, 'u', slot, amount, subtract)
      end
    end
  end
  local levels = {}
  for i, charge in ipairs(ask.charges) do
    local key, slot = charge[1], charge[2]
    if exists(key) then
      move(key, 's', slot, number(charge[3]), add)
      move(key, 'u', slot, number(charge[4]), add)
    end
    local spent, reserved = level(key, -math.huge)
    levels[i] = shown(spent, reserved, own_limit(redis.call('HGET', counter_key(key), 'name') or '', ''))
  end
  return {levels = levels}
end

function operations.charge()
  end_leases(ask.now)
  local levels = {}
  for i, line in ipairs(ask.lines) do
    touch(line[1], line[2], line[8])
    move(line[1], 's', line[6], number(line[3]), add)
    local spent, reserved = level(line[1], line[7])
    levels[i] = shown(spent, reserved, own_limit(line[2], line[4]))
  end
  return {levels = levels}
end

function operations.levels()
  end_leases(ask.now)
  local levels = {}
  for i, line in ipairs(ask.lines) do
    local spent, reserved = level(line[1], line[7])
    levels[i] = shown(spent, reserved, own_limit(line[2], line[4]))
  end
  return {levels = levels}
end

function operations.counters()
  end_leases(ask.now)
  redis.call('ZREMRANGEBYSCORE', prefix .. 'counters', '-inf', '(' .. ask.now)
  local found = {}
  for _, key in ipairs(redis.call('ZRANGE', prefix .. 'counters', 0, -1)) do
    local sums, name = {s = {0, 0}, u = {0, 0}, r = {0, 0}}, nil
    local fields = redis.call('HGETALL', counter_key(key))
    for i = 1, #fields, 2 do
      local kind = string.match(fields[i], '^([sur]):')
      if kind then sums[kind] = add(sums[kind], number(fields[i + 1])) end
      if fields[i] == 'name' then name = fields[i + 1] end
    end
    if name then found[#found + 1] = {key, name, text(sums.s), text(sums.u), text(sums.r)} end
  end
  return {counters = found}
end

function operations.reset()
  for _, key in ipairs(ask.keys) do
    if exists(key) then
      for _, field in ipairs(redis.call('HKEYS', counter_key(key))) do
        if string.match(field, '^[su]:') then redis.call('HSET', counter_key(key), field, '0') end
      end
      redis.call('HINCRBY', counter_key(key), 'resets', 1)
    end
    redis.call('DEL', prefix .. 'marks:' .. key)
  end
  return {}
end

function operations.forget()
  for _, key in ipairs(ask.keys) do
    redis.call('DEL', counter_key(key), prefix .. 'marks:' .. key)
    redis.call('ZREM', prefix .. 'counters', key)
  end
  return {}
end

function operations.mark()
  local at = prefix .. 'marks:' .. ask.key
  local first = redis.call('SADD', at, ask.mark) == 1
  local left = redis.call('TTL', counter_key(ask.key))
  if left > 0 then redis.call('EXPIRE', at, left) end
  return {first = first}
end

return cjson.encode(operations[ARGV[1]]())
