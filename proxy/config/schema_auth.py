"""Who may come in: the pipeline of key sources, and what a key carries."""

from typing import Annotated, Literal

from msgspec import Meta, field

from proxy.config.types import (
    Count,
    Duration,
    DurationOrZero,
    Section,
    Timestamp,
    at_start,
    confidential,
    reads,
    says,
    writes,
)

Status = Literal["active", "disabled", "expired", "quota_exceeded"]
Verdict = Literal["active", "disabled", "expired", "quota_exceeded", "not_found"]


class KeyLimits(Section, frozen=True, kw_only=True):
    """Limits of one key; what is not said here comes from rate_limit.per_key, and 0 lifts a limit."""

    requests_per_second: Annotated[
        Annotated[float, Meta(ge=0)] | None, says("Requests per second, averaged.")
    ] = None
    requests_per_minute: Annotated[
        Annotated[float, Meta(ge=0)] | None, says("Requests per minute, averaged.")
    ] = None
    burst_size: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        says("Requests that may come at once after a pause; default two seconds' worth."),
    ] = None
    tokens_per_minute: Annotated[
        Annotated[float, Meta(ge=0)] | None,
        says("Prompt and completion tokens per minute; a request that needed more delays the next one."),
    ] = None
    max_concurrent: Annotated[
        Annotated[int, Meta(ge=0)] | None, says("Requests running at the same time, streams to their end.")
    ] = None


class Key(Section, frozen=True, kw_only=True):
    """One client key, in the configuration or in a key file."""

    key: Annotated[
        str | None,
        confidential("The key in plain text; better give `sha256` (`llmproxy keys hash` prints it)."),
    ] = None
    sha256: Annotated[
        str | None, confidential("SHA-256 of the key as 64 hex digits, so that the file holds no usable key.")
    ] = None
    next_sha256: Annotated[
        str | None,
        confidential("SHA-256 of a second key that is valid too, for changing keys without a gap."),
    ] = None
    name: Annotated[str, says("How logs, metrics and usage records call this key.")] = ""
    user_id: Annotated[str, says("Whom the usage is booked on; several keys may share it.")] = ""
    status: Annotated[Status, says("Only active keys are let in; see auth.status_codes.")] = "active"
    starts_at: Annotated[Timestamp | None, says("The key is not valid before this time.")] = None
    expires_at: Annotated[Timestamp | None, says("The key is expired from this time on.")] = None
    allowed_models: Annotated[
        tuple[str, ...], says("Models this key may use, `*` as wildcard; empty means all.")
    ] = ()
    allowed_ips: Annotated[
        tuple[str, ...], says("Addresses or networks it may come from; empty means all.")
    ] = ()
    denied_ips: Annotated[
        tuple[str, ...], says("Addresses or networks it may not come from; wins over allowed_ips.")
    ] = ()
    limits: Annotated[KeyLimits | None, says("Limits of this key alone.")] = None
    labels: Annotated[dict[str, str], says("Words of your own that usage records repeat.")] = field(
        default_factory=dict
    )
    total_quota: Annotated[
        Annotated[int, Meta(ge=0)], says("How much the key may use in a period; 0 means no quota.")
    ] = 0
    used_quota: Annotated[
        Annotated[int, Meta(ge=0)], says("How much it had used when it was entered here.")
    ] = 0
    quota_unit: Annotated[Literal["tokens", "requests"], says("What the quota counts.")] = "tokens"
    quota_reset_period: Annotated[
        Literal["never", "daily", "weekly", "monthly"],
        says("When used_quota goes back to 0, at midnight UTC."),
    ] = "never"
    last_reset_at: Annotated[Timestamp | None, says("When used_quota was last set to 0.")] = None
    balance: Annotated[float | None, says("Credit left; at 0 or below the key counts as quota_exceeded.")] = (
        None
    )
    created_at: Annotated[Timestamp | None, says("When the key was made; for your records.")] = None
    updated_at: Annotated[Timestamp | None, says("When the key was last changed; for your records.")] = None


class KeyFileContent(Section, frozen=True, kw_only=True):
    """What a key file holds."""

    keys: Annotated[tuple[Key, ...], says("The keys.")] = ()


class KeySourceBase(Section, frozen=True, kw_only=True, tag_field="type"):
    """What every key source has."""

    name: Annotated[str, says("How logs and metrics call this source; default its type.")] = ""
    enabled: Annotated[bool, says("Switches this source on.")] = True


class StaticKeys(KeySourceBase, frozen=True, kw_only=True, tag="static"):
    """Keys written in the configuration itself."""

    keys: Annotated[tuple[Key, ...], says("The keys.")] = ()


class KeyFile(KeySourceBase, frozen=True, kw_only=True, tag="file"):
    """Keys in a YAML or JSON file of their own, read again at every reload."""

    path: Annotated[str, reads("The key file; nobody else may read it (mode 0600).")] = "keys.yaml"


class BuiltinKeys(KeySourceBase, frozen=True, kw_only=True, tag="builtin"):
    """Keys in the SQLite database that `llmproxy keys` and the admin API write."""

    path: Annotated[str | None, writes("The database file; default admin.db_path.")] = None


class RedisKeys(KeySourceBase, frozen=True, kw_only=True, tag="redis"):
    """Keys in Redis, each a hash or a JSON text."""

    storage: Annotated[str, says("Which of storage.caches to ask.")] = "default"
    key_pattern: Annotated[
        str, says("Where a key's record lies; {api_key} is the key, {sha256} its digest in hex.")
    ] = "llmproxy:key:{api_key}"
    timeout: Annotated[Duration, says("How long an answer may take.")] = 2.0


class DatabaseKeys(KeySourceBase, frozen=True, kw_only=True, tag="database"):
    """Keys in a table of PostgreSQL, MySQL or SQLite."""

    storage: Annotated[str, says("Which of storage.databases to ask.")] = "default"
    table: Annotated[str, says("The table that holds the keys.")] = "api_keys"
    key_column: Annotated[str, says("The column that holds the key or its digest.")] = "api_key"
    key_format: Annotated[
        Literal["plain", "sha256"], says("Whether key_column holds keys or their SHA-256 in hex.")
    ] = "plain"
    fields: Annotated[tuple[str, ...], says("The columns to read; empty means all.")] = ()
    timeout: Annotated[Duration, says("How long an answer may take.")] = 2.0


class WebhookKeys(KeySourceBase, frozen=True, kw_only=True, tag="webhook"):
    """Keys that a service of yours knows; it is asked by HTTP."""

    url: Annotated[str, says("Where to ask; gets a JSON object with api_key and timestamp.")]
    method: Annotated[Literal["POST", "PUT"], says("The method to ask with.")] = "POST"
    timeout: Annotated[Duration, says("How long an answer may take.")] = 5.0
    headers: Annotated[dict[str, str], confidential("Headers to send along.")] = field(default_factory=dict)


class PythonKeys(KeySourceBase, frozen=True, kw_only=True, tag="python"):
    """Keys that a Python function of yours knows; our answer to Lua scripts."""

    callable: Annotated[str, says("The function, as `module:function`.")]
    timeout: Annotated[Duration, says("How long an answer may take.")] = 1.0


KeySource = StaticKeys | KeyFile | BuiltinKeys | RedisKeys | DatabaseKeys | WebhookKeys | PythonKeys


class StatusCode(Section, frozen=True, kw_only=True):
    """What a client is told in one case."""

    allow: Annotated[bool, says("Let the request through all the same.")] = False
    http_code: Annotated[Annotated[int, Meta(ge=400, le=599)] | None, says("The status of the refusal.")] = (
        None
    )
    message: Annotated[str | None, says("The text of the refusal; default a sentence of ours.")] = None


class StatusCodes(Section, frozen=True, kw_only=True):
    """What a client is told, case by case."""

    active: Annotated[StatusCode, says("The key is good.")] = StatusCode(allow=True)
    disabled: Annotated[StatusCode, says("The key is switched off or not valid yet.")] = StatusCode(
        http_code=403
    )
    expired: Annotated[StatusCode, says("The key's time is over.")] = StatusCode(http_code=403)
    quota_exceeded: Annotated[StatusCode, says("The key has used up its quota.")] = StatusCode(http_code=429)
    not_found: Annotated[StatusCode, says("No source knows the key.")] = StatusCode(http_code=401)


class KeyCache(Section, frozen=True, kw_only=True):
    """What is remembered of the answers of redis, database, webhook and python sources."""

    ttl: Annotated[DurationOrZero, says("How long a known key is not asked for again; 0: not at all.")] = 30.0
    negative_ttl: Annotated[DurationOrZero, says("The same for an unknown key.")] = 5.0
    max_entries: Annotated[Count, says("How many keys are remembered; the oldest goes first.")] = 10_000
    grace: Annotated[
        DurationOrZero, says("How long a remembered key is still good while its source is down; then 503.")
    ] = 0.0


class Auth(Section, frozen=True, kw_only=True):
    """Who may use the gateway."""

    enabled: Annotated[bool, says("Ask for a key; on when the section is written.")] = True
    mode: Annotated[
        Literal["first_match", "all"],
        says("The first source that knows the key decides, or all that know it must agree."),
    ] = "first_match"
    header_names: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")], ...],
        says("Headers that may carry the key, first one wins; Authorization needs `Bearer`, others are raw."),
    ] = ("Authorization", "X-API-Key")
    skip_paths: Annotated[tuple[str, ...], says("Paths that need no key, with everything below them.")] = ()
    status_codes: Annotated[StatusCodes, says("What refused clients are told.")] = StatusCodes()
    pipeline: Annotated[
        tuple[KeySource, ...], says("Where keys are looked up, in this order; empty knows no key.")
    ] = ()
    timeout: Annotated[Duration, says("How long the whole pipeline may take.")] = 10.0
    cache: Annotated[KeyCache, says("What is remembered of slow sources' answers.")] = KeyCache()


class Admin(Section, frozen=True, kw_only=True):
    """The administration API below /admin/."""

    enabled: Annotated[bool, says("Serve it; on when the section is written.")] = True
    token: Annotated[str, confidential("What callers must send as X-Admin-Token; required.")] = ""
    listen: Annotated[
        str, at_start("An address of its own, written as in server.listen; empty means the main one.")
    ] = ""
    db_path: Annotated[str, writes("The SQLite file with the keys made here.")] = "data/keys.db"
    allowed_ips: Annotated[
        tuple[str, ...], says("Addresses or networks that may call it; empty means all.")
    ] = ()
    read_only: Annotated[bool, says("Refuse every call that would change something.")] = False
    audit_log: Annotated[
        str, writes("File to which every change is appended; empty writes it to the log.")
    ] = ""
