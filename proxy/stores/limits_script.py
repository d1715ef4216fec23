"""The Redis script that decides on a batch of requests, and its wire format.

One call is atomic, so a request is let through by all its limiters or by none,
whichever process asks. The arithmetic is that of `limiters.bucket`; the time is
Redis' own, so the hosts' clocks do not matter. Levels live in one hash per
account, which expires when all its buckets would be full again. Slots are
leases in a sorted set by expiry, so those of a crashed process lapse.

All keys share one hash tag, which a Redis cluster keeps on one node.
"""

from typing import Any

from msgspec.msgpack import Decoder, Encoder

from proxy.limiters.bucket import EPSILON

RESERVE, SETTLE, RELEASE, RENEW = range(4)

# KEYS[1]: prefix with the hash tag. ARGV: operations, lease in seconds, epsilon.
# Operations:
#   {RESERVE, lease, tokens, {{account, plan}...}}  plan: as in limiters.spec.Plan.shape
#   {SETTLE, correction, {{account, bucket}...}}    bucket: as in Rate.shape
#   {RELEASE, lease, {account...}}
#   {RENEW, {{lease, {account...}}...}}
# The answer holds, for each RESERVE: admitted, {{open slots, level...}...}
SCRIPT = """
local RESERVE, SETTLE, RELEASE, RENEW = 0, 1, 2, 3
local prefix = KEYS[1]
local lease_seconds = tonumber(ARGV[2])
local epsilon = tonumber(ARGV[3])
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local longest_ttl = 10 ^ 14 -- milliseconds; Redis refuses what does not fit into 64 bits
local expiry = string.format('%.6f', now + lease_seconds)

local accounts = {}
local slots = {}

local function account_of(name)
  local account = accounts[name]
  if account then return account end
  account = {buckets = {}, changed = {}}
  local stored = redis.call('HGETALL', prefix .. name)
  for i = 1, #stored, 2 do
    local level, updated, full_at = struct.unpack('<ddd', stored[i + 1])
    account.buckets[stored[i]] = {level = level, updated = updated, full_at = full_at}
  end
  accounts[name] = account
  return account
end

local function bucket_of(account, shape)
  local field, rate, burst = shape[1], shape[2], shape[3]
  local bucket = account.buckets[field]
  if not bucket then
    bucket = {level = burst, updated = now, full_at = now}
    account.buckets[field] = bucket
  end
  if now > bucket.updated then
    bucket.level = bucket.level + (now - bucket.updated) * rate
  end
  bucket.updated = now
  bucket.level = math.min(bucket.level, burst)
  return bucket
end

local function charge(account, shape, cost)
  local bucket = bucket_of(account, shape)
  bucket.level = math.min(bucket.level - cost, shape[3])
  bucket.full_at = now + (shape[3] - bucket.level) / shape[2]
  account.changed[shape[1]] = bucket
  return bucket.level
end

local function has_enough(account, shape, cost)
  return math.min(cost, shape[3]) - bucket_of(account, shape).level <= epsilon
end

local function open_slots(name)
  local open = slots[name]
  if not open then
    local key = prefix .. name .. ':slots'
    redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.6f', now))
    open = redis.call('ZCARD', key)
    slots[name] = open
  end
  return open
end

local function lease(name, member)
  local key = prefix .. name .. ':slots'
  redis.call('ZADD', key, expiry, member)
  redis.call('EXPIRE', key, math.ceil(lease_seconds) + 1)
end

local function admits(tokens, limiters)
  for _, each in ipairs(limiters) do
    local name, max_concurrent = each[1], each[2][1]
    if max_concurrent > 0 and open_slots(name) >= max_concurrent then return false end
    local account = account_of(name)
    for _, shape in ipairs(each[2][2]) do
      if not has_enough(account, shape, 1) then return false end
    end
    for _, shape in ipairs(each[2][3]) do
      if not has_enough(account, shape, tokens) then return false end
    end
  end
  return true
end

local function reserve(member, tokens, limiters)
  local admitted = admits(tokens, limiters)
  local readings = {}
  for i, each in ipairs(limiters) do
    local name, max_concurrent = each[1], each[2][1]
    local reading = {0}
    if max_concurrent > 0 then
      reading[1] = open_slots(name)
      if admitted then
        lease(name, member)
        reading[1] = reading[1] + 1
        slots[name] = reading[1]
      end
    end
    local account = account_of(name)
    for _, shape in ipairs(each[2][2]) do
      reading[#reading + 1] = admitted and charge(account, shape, 1) or bucket_of(account, shape).level
    end
    for _, shape in ipairs(each[2][3]) do
      reading[#reading + 1] = admitted and charge(account, shape, tokens) or bucket_of(account, shape).level
    end
    readings[i] = reading
  end
  return {admitted, readings}
end

local answers = {}
for _, op in ipairs(cmsgpack.unpack(ARGV[1])) do
  local kind = op[1]
  if kind == RESERVE then
    answers[#answers + 1] = reserve(op[2], op[3], op[4])
  elseif kind == SETTLE then
    for _, each in ipairs(op[3]) do
      charge(account_of(each[1]), each[2], op[2])
    end
  elseif kind == RELEASE then
    for _, name in ipairs(op[3]) do
      if redis.call('ZREM', prefix .. name .. ':slots', op[2]) == 1 and slots[name] then
        slots[name] = slots[name] - 1
      end
    end
  elseif kind == RENEW then
    for _, each in ipairs(op[2]) do
      for _, name in ipairs(each[2]) do
        lease(name, each[1])
        slots[name] = nil
      end
    end
  end
end

for name, account in pairs(accounts) do
  local stored, full_at = {}, now
  for field, bucket in pairs(account.changed) do
    stored[#stored + 1] = field
    stored[#stored + 1] = struct.pack('<ddd', bucket.level, bucket.updated, bucket.full_at)
  end
  if #stored > 0 then
    for _, bucket in pairs(account.buckets) do
      full_at = math.max(full_at, bucket.full_at)
    end
    redis.call('HSET', prefix .. name, unpack(stored))
    local ttl = math.min(math.ceil((full_at - now) * 1000) + 1000, longest_ttl)
    redis.call('PEXPIRE', prefix .. name, string.format('%d', ttl))
  end
end
return cmsgpack.pack(answers)
"""

# What one RESERVE is answered: admitted, and for each account its open slots and levels.
Answer = tuple[bool, list[list[float]]]

_encoder = Encoder()
_decoder = Decoder(list[Answer])


def arguments(operations: list[Any], lease: float) -> list[bytes | float]:
    """The script's ARGV for these operations."""
    return [_encoder.encode(operations), lease, EPSILON]


def answers(packed: bytes) -> list[Answer]:
    return _decoder.decode(packed)
