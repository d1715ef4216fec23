"""What Redis does in one step, so that no process sees half of it.

Each debit leaves a marker for a while: one that is tried again, because its
answer was lost, is not counted twice.
"""

# How long a debit may be tried again. Tries are at most ten seconds apart.
MARKER_SECONDS = 600

# KEYS: record, marker. ARGV: amount, period's start in Unix seconds (empty: never), the same as text, and
# the next period's start, likewise (see access/quota.py for why a time behind that is none). Times that are
# text are compared by day, which is exact for those in UTC.
ADD_TO_HASH = f"""
local kind = redis.call('TYPE', KEYS[1])['ok']
if kind == 'none' then return {{'gone'}} end
if kind == 'string' then return {{'text', redis.call('GET', KEYS[1])}} end
if redis.call('SET', KEYS[2], '1', 'NX', 'EX', {MARKER_SECONDS}) then
  local since = redis.call('HGET', KEYS[1], 'last_reset_at')
  local is_due = false
  if ARGV[2] ~= '' then
    if not since or since == '' then
      is_due = true
    elseif tonumber(since) then
      is_due = tonumber(since) < tonumber(ARGV[2]) or tonumber(since) > tonumber(ARGV[4])
    else
      local day = string.sub(since, 1, 10)
      is_due = day < string.sub(ARGV[3], 1, 10) or day > string.sub(ARGV[5], 1, 10)
    end
  end
  if is_due then
    local start = since and tonumber(since) and ARGV[2] or ARGV[3]
    redis.call('HSET', KEYS[1], 'used_quota', ARGV[1], 'last_reset_at', start)
  else
    redis.call('HINCRBY', KEYS[1], 'used_quota', ARGV[1])
  end
end
local found = redis.call('HMGET', KEYS[1], 'used_quota', 'last_reset_at')
return {{'done', found[1] or '0', found[2] or ''}}
"""

# KEYS: record, marker. ARGV: the text that was read, the text to put in its place. Numbers would lose
# digits and empty lists their kind if Redis itself took the JSON apart.
REPLACE_TEXT = f"""
if redis.call('EXISTS', KEYS[2]) == 1 then return {{'done'}} end
local found = redis.call('GET', KEYS[1])
if not found then return {{'gone'}} end
if found ~= ARGV[1] then return {{'text', found}} end
redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
redis.call('SET', KEYS[2], '1', 'EX', {MARKER_SECONDS})
return {{'done'}}
"""
