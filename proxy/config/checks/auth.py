"""Key sources and keys, the admin API, and the limits that go with keys."""

import re
from collections.abc import Iterable, Sequence

from proxy.config.adapt import Note
from proxy.config.checks.place import Place
from proxy.config.schema import Config
from proxy.config.schema_auth import (
    Admin,
    Auth,
    DatabaseKeys,
    Key,
    KeyFile,
    KeySource,
    PythonKeys,
    RedisKeys,
    StaticKeys,
    WebhookKeys,
)
from proxy.config.schema_limits import Limits, RateLimit
from proxy.config.values import (
    bad_callable,
    bad_header,
    bad_identifier,
    bad_key,
    bad_listen,
    bad_network,
    bad_sha256,
    bad_url,
)

# 128 bits in hex are 32 characters; below 16 a token can be tried out.
_SHORT_TOKEN = 16
# OpenCode takes these in a refusal's text for a reason to try again.
_RETRY_WORDS = re.compile(r"429|50[0234]|524|rate limit|server error|overloaded", re.IGNORECASE)
_SHARED = "with several workers {what} must be shared: write rate_limit.storage: redis and storage.caches"


def check(config: Config, place: Place, note: Note) -> None:
    _auth(config, place / "auth", note)
    _admin(config.admin, place / "admin", note)
    if config.rate_limit.enabled:
        _rate_limit(config, place / "rate_limit", note)


def _auth(config: Config, place: Place, note: Note) -> None:
    auth = config.auth
    pipeline = place / "pipeline"
    pipeline.distinct([source.name for source in auth.pipeline], "name")
    for index, source in enumerate(auth.pipeline):
        _source(source, config, pipeline / index, note)
        if not isinstance(source, StaticKeys | KeyFile) and _counts_apart(config):
            note(
                f"{(pipeline / index).written()}: limits that its keys carry are counted by each worker "
                "apart; rate_limit.storage: redis shares them"
            )
    if auth.enabled and pipeline.is_empty([source for source in auth.pipeline if source.enabled]):
        pipeline.refuse("auth is on and no source knows any key: add one, or write enabled: false")
    if (place / "header_names").is_empty(auth.header_names):
        (place / "header_names").refuse("must name at least one header")
    for index, path in enumerate(auth.skip_paths):
        if not path.startswith("/"):
            (place / "skip_paths" / index).refuse("must begin with /")
    _status_codes(auth, place / "status_codes", note)


def _status_codes(auth: Auth, place: Place, note: Note) -> None:
    for name in ("disabled", "expired", "quota_exceeded", "not_found"):
        code = getattr(auth.status_codes, name)
        is_final = code.http_code is not None and code.http_code < 500 and code.http_code != 429
        if is_final and code.message and _RETRY_WORDS.search(code.message):
            note(
                f"{(place / name / 'message').written()}: some clients read this text as a reason to try "
                "again (they look for 429, 5xx numbers, `rate limit`, `overloaded`)"
            )


def _source(source: KeySource, config: Config, place: Place, note: Note) -> None:
    match source:
        case StaticKeys():
            check_keys(source.keys, place / "keys", note)
            _shared_keys(source.keys, config, place / "keys")
        case RedisKeys():
            (place / "storage").known(source.storage, config.storage.redis_names(), "storage.caches")
            if "{api_key}" not in source.key_pattern and "{sha256}" not in source.key_pattern:
                (place / "key_pattern").refuse("must hold {api_key} or {sha256}")
        case DatabaseKeys():
            (place / "storage").known(source.storage, config.storage.database_names(), "storage.databases")
            for key, name in (("table", source.table), ("key_column", source.key_column)):
                (place / key).judge(name, bad_identifier)
            for index, name in enumerate(source.fields):
                (place / "fields" / index).judge(name, bad_identifier)
        case WebhookKeys():
            (place / "url").judge(source.url, bad_url)
            (place / "headers").headers(source.headers, bad_header)
        case PythonKeys():
            (place / "callable").judge(source.callable, bad_callable)


def check_keys(keys: Sequence[Key], place: Place, note: Note) -> None:
    """Keys in the configuration or in a key file; none of their material is ever shown."""
    seen: set[str] = set()
    for index, key in enumerate(keys):
        _key(key, place / index, note)
        for material in (key.key, key.sha256 and key.sha256.lower()):
            if material and material in seen:
                (place / index).refuse("this key stands in an earlier entry already")
            seen.add(material or "")


def _key(key: Key, place: Place, note: Note) -> None:
    is_plain, is_digest = ((place / name).node() is not None for name in ("key", "sha256"))
    if is_plain == is_digest:
        place.refuse("write either key or sha256")
    if key.key is not None:
        (place / "key").refuse(bad_key(key.key))
        node = (place / "key").node()
        if node is not None and not node.is_expanded:
            note(f"{node.path}: a key in plain text; write sha256 (`llmproxy keys hash`)")
    for name, digest in (("sha256", key.sha256), ("next_sha256", key.next_sha256)):
        if digest is not None:
            (place / name).refuse(bad_sha256(digest))
    for name, networks in (("allowed_ips", key.allowed_ips), ("denied_ips", key.denied_ips)):
        for index, network in enumerate(networks):
            (place / name / index).judge(network, bad_network)
    if key.starts_at is not None and key.expires_at is not None and key.starts_at >= key.expires_at:
        (place / "expires_at").refuse("must be later than starts_at")


def _shared_keys(keys: Iterable[Key], config: Config, place: Place) -> None:
    """A quota counted in each of several processes is not the quota that was given."""
    if config.server.workers == 1:
        return
    for index, key in enumerate(keys):
        if key.total_quota or key.balance is not None:
            (place / index).refuse(
                "a quota needs a store that several workers share: keep this key in a source of type "
                "builtin, redis or database"
            )
        if key.limits is not None and _counts_apart(config):
            (place / index / "limits").refuse(_SHARED.format(what="limits"))


def _counts_apart(config: Config) -> bool:
    return config.server.workers > 1 and config.rate_limit.storage == "memory"


def _admin(admin: Admin, place: Place, note: Note) -> None:
    if admin.listen:
        (place / "listen").judge(admin.listen, bad_listen)
    for index, network in enumerate(admin.allowed_ips):
        (place / "allowed_ips" / index).judge(network, bad_network)
    if not admin.enabled:
        return
    token = (place / "token").node()
    if not admin.token and not (token and token.is_broken):
        (place / "token").refuse("is missing; `${ADMIN_TOKEN}` or `${file:…}` keeps it out of this file")
    elif 0 < len(admin.token) < _SHORT_TOKEN:
        note(f"{(place / 'token').written()}: shorter than {_SHORT_TOKEN} characters, easy to guess")


def _rate_limit(config: Config, place: Place, note: Note) -> None:
    limit = config.rate_limit
    if limit.storage == "redis":
        (place / "redis").known(limit.redis, config.storage.redis_names(), "storage.caches")
    elif config.server.workers > 1:
        (place / "storage").refuse(_SHARED.format(what="limits"))
    if not any(each.enabled for each in _rules(limit)) and not config.auth.pipeline:
        note("rate_limit: on, but none of global, per_key, per_user, per_model, per_ip is written")


def _rules(limit: RateLimit) -> tuple[Limits, ...]:
    return limit.global_, limit.per_key, limit.per_user, limit.per_model, limit.per_ip
