"""Other spellings of the same thing, turned into the schema's own.

The Go LLMProxy's files keep loading: its keys are moved to where the schema has
them, its switches for things that we deliberately don't do are refused with a
sentence that says what to write instead, unless they are switched off anyway. Nodes
keep their lines and paths when they move, so messages name what the user wrote.
"""

from collections.abc import Callable
from dataclasses import dataclass

from proxy.config.document import Node, Report
from proxy.config.problems import Problem

Note = Callable[[str], None]

_DRIVERS = {"postgresql": "postgres", "pg": "postgres", "mariadb": "mysql", "sqlite3": "sqlite"}
_KEY_STATUS = {0: "active", 1: "disabled", 2: "quota_exceeded", 3: "expired"}
_SCRIPTED = (
    ("discovery",),
    ("auth",),
    ("logging", "request"),
    ("logging", "access"),
    ("rate_limit",),
    ("routing",),
    ("health_check",),
    ("usage",),
)
_NO_SCRIPT = (
    "scripts are not run; key checks can be Python (auth.pipeline, type: python), "
    "the rest is configured: take this key out"
)
_NO_HOOKS = (
    "hooks are not run; check keys with auth.pipeline (type: webhook or python) and follow requests with "
    "usage.reporters, logging.access and metrics: take this section out"
)
_NO_LUA = "Lua is not run; write type: python with callable: module:function, or type: webhook with url"
_NO_LOG_FILE = (
    "the log is not written to files; write output: stderr (systemd's journal keeps and rotates it), "
    "or redirect it: take `file` out"
)
_NO_REQUEST_LOG = (
    "requests are not logged with headers and bodies; write usage.reporters with type: database "
    "for a table with one record a request: take this section out"
)
_NO_BODIES = "bodies are never stored or sent on: take this key out"
_NO_ROTATION = "files are not rotated here; let logrotate move the file and send SIGHUP: take this key out"
_POOLS_NOT_URLS = (
    "fallbacks name pools, not URLs; write pools: {spare: {backends: [{url: …}]}} "
    "and routing.fallback: [{models: […], pools: [spare]}]"
)
_NO_MAPPING = "write models: [{id: …, upstream_model: …}], one entry for each name"
_LABEL_VALUES = "labels need values; write custom_labels: {name: value}"
_TWO_DEFAULTS = "backends are the pool `default`; write them either here or in pools.default, not both"


@dataclass(frozen=True, slots=True)
class Adapter:
    """One document being brought into the schema's form, in place."""

    root: Node
    report: Report
    note: Note

    def adapt(self) -> None:
        self._server()
        self._logs()
        self._scripts()
        self._auth()
        self._routing()
        self._usage()
        self._names()
        for entry in self._list("discovery", "sources"):
            self._hoist(entry)

    def _server(self) -> None:
        listen = self.root.mapping.pop("listen", None)
        if listen is not None:
            server = self._section("server")
            server.mapping.setdefault("listen", listen)
        hooks = self.root.mapping.pop("hooks", None)
        if hooks is not None and not is_off(hooks):
            self._refuse(hooks, _NO_HOOKS)

    def _logs(self) -> None:
        log = self._find("log")
        file = log.mapping.pop("file", None) if log else None
        if log and file and _is(log, "output", "file", "both"):
            self._refuse(file, _NO_LOG_FILE)
            log.mapping.pop("output")
        if log and _is(log, "level", "warn"):
            log.mapping["level"].value = "warning"
        logging = self._find("logging")
        if logging is None:
            return
        enabled = logging.mapping.pop("enabled", None)
        if enabled is not None and enabled.value is False:
            logging.mapping["access"] = Node({"enabled": enabled}, enabled.line, enabled.path)
        self._access_log(logging.mapping.get("access"))
        request = logging.mapping.pop("request", None)
        if request is None or is_off(request):
            return
        include_body = request.mapping.get("include_body")
        self._refuse(request, _NO_REQUEST_LOG)
        if include_body is not None and include_body.value is not False:
            self._refuse(include_body, _NO_BODIES)

    def _access_log(self, access: Node | None) -> None:
        if access is None:
            return
        if _is(access, "format", "combined"):
            access.mapping["format"].value = "text"
        file = access.mapping.get("file")
        for key in ("rotate", "max_size", "max_age", "compress") if file else ():
            rotation = file.mapping.pop(key, None) if file else None
            if rotation is not None and _is(access, "output", "file"):
                self._refuse(rotation, _NO_ROTATION)

    def _scripts(self) -> None:
        sections = [self._find(*path) for path in _SCRIPTED]
        entries = [*self._list("auth", "pipeline"), *self._list("usage", "reporters")]
        sources = self._list("discovery", "sources")
        for section in [*sections, *entries, *sources]:
            script = section.mapping.pop("script", None) if section else None
            if script is not None and not is_off(script):
                self._refuse(script, _NO_SCRIPT)

    def _auth(self) -> None:
        kept = []
        for source in self._list("auth", "pipeline"):
            self._hoist(source)
            if not _is(source, "type", "lua", "script"):
                kept.append(source)
            elif not is_off(source):
                self._refuse(source, _NO_LUA)
        auth = self._find("auth")
        if auth is not None and isinstance(auth.mapping.get("pipeline", auth).value, list):
            auth.mapping["pipeline"].value = kept
        for source in kept:
            for key in _list_of(source, "keys"):
                adapt_key(key)
        active = self._find("auth", "status_codes", "active")
        if active is not None:
            active.mapping.setdefault("allow", Node(True, active.line, active.path, "true"))

    def _routing(self) -> None:
        routing = self._find("routing")
        if routing is None:
            return
        mapping = routing.mapping.pop("model_mapping", None)
        if mapping is not None and mapping.value:
            self._refuse(mapping, _NO_MAPPING)
        fallback = routing.mapping.get("fallback")
        for rule in list(fallback.items) if fallback else []:
            if fallback and ("primary" in rule.mapping or "fallback" in rule.mapping):
                self._refuse(rule, _POOLS_NOT_URLS)
                fallback.items.remove(rule)

    def _usage(self) -> None:
        self._usage_hook()
        for reporter in self._list("usage", "reporters"):
            self._hoist(reporter)
            for key in ("include_request_body", "include_body"):
                include = reporter.mapping.pop(key, None)
                if include is not None and not is_off(include):
                    self._refuse(include, _NO_BODIES)

    def _usage_hook(self) -> None:
        """`usage_hook` is what one webhook reporter was called before."""
        hook = self.root.mapping.pop("usage_hook", None)
        if hook is None or is_off(hook):
            return
        usage = self._section("usage")
        reporters = usage.mapping.setdefault("reporters", Node([], hook.line, hook.path))
        for key, value in (("type", "webhook"), ("name", "usage_hook")):
            hook.mapping.setdefault(key, Node(value, hook.line, hook.path, value))
        reporters.items.append(hook)

    def _names(self) -> None:
        for database in self._list("storage", "databases"):
            driver = database.mapping.get("driver")
            if driver is not None and isinstance(driver.value, str):
                driver.value = _DRIVERS.get(driver.value, driver.value)
        metrics = self._find("metrics")
        labels = metrics.mapping.get("custom_labels") if metrics else None
        if labels is not None and isinstance(labels.value, list):
            self._labels(labels)

    def _labels(self, labels: Node) -> None:
        pairs = {}
        for item in labels.items:
            name, value = item.mapping.get("name"), item.mapping.get("value")
            if name is None or value is None:
                self._refuse(item, _LABEL_VALUES)
            else:
                pairs[str(name.value)] = value
        labels.value = pairs

    # --- finding and moving ---------------------------------------------------

    def _hoist(self, entry: Node) -> None:
        """Options below an entry's type (`webhook: {url: …}`) count as its own."""
        kind = entry.mapping.get("type")
        options = entry.mapping.get(str(kind.value)) if kind else None
        if options is not None and isinstance(options.value, dict):
            entry.mapping.pop(str(kind.value) if kind else "")
            entry.value = options.mapping | entry.mapping

    def _find(self, *path: str) -> Node | None:
        node: Node | None = self.root
        for key in path:
            node = node.mapping.get(key) if node else None
        return node if node and isinstance(node.value, dict) else None

    def _section(self, name: str) -> Node:
        section = self.root.mapping.get(name)
        if section is None or section.value is None:
            section = self.root.mapping[name] = Node({}, self.root.line, name)
        return section

    def _list(self, *path: str) -> list[Node]:
        section = self._find(*path[:-1])
        return _list_of(section, path[-1]) if section else []

    def _refuse(self, node: Node, sentence: str) -> None:
        self.report(Problem(node.line, node.path, "", sentence))


def adapt_key(key: Node) -> None:
    """Statuses of keys may be numbers, as the Go LLMProxy stores them."""
    status = key.mapping.get("status")
    if status is not None and isinstance(status.value, int) and not isinstance(status.value, bool):
        status.value = _KEY_STATUS.get(status.value, status.value)


def inherit(root: Node, report: Report) -> None:
    """Give every pool and backend what it leaves unsaid: pool over routing, backend over pool."""
    routing = root.mapping.get("routing")
    _short_timeouts(routing)
    _default_pool(root, report)
    _pools_of_sources(root)
    pools = root.mapping.get("pools")
    for pool in pools.mapping.values() if pools else ():
        if pool.value is None and not pool.is_broken:
            pool.value = {}
        _inherit_pool(root, routing, pool)
    discovery = root.mapping.get("discovery")
    for source in _list_of(discovery, "sources") if discovery else ():
        name = source.mapping.get("pool")
        pool_of_source = pools.mapping.get(str(name.value) if name else "default") if pools else None
        _inherit_backends(source, pool_of_source or routing)


def _pools_of_sources(root: Node) -> None:
    """A pool that only a source of discovery names is a pool all the same."""
    discovery = root.mapping.get("discovery")
    if discovery is None or is_off(discovery):
        return
    for source in _list_of(discovery, "sources"):
        name = source.mapping.get("pool")
        pools = root.mapping.setdefault("pools", Node({}, source.line, "pools"))
        if pools.value is None:
            pools.value = {}
        key = str(name.value) if name else "default"
        pools.mapping.setdefault(key, Node({}, source.line, f"pools.{key}"))


def _default_pool(root: Node, report: Report) -> None:
    """`backends` at the top are the pool called default."""
    backends = root.mapping.pop("backends", None)
    if backends is None or backends.value is None:
        return
    pools = root.mapping.setdefault("pools", Node({}, backends.line, "pools"))
    if pools.value is None:
        pools.value = {}
    if "default" in pools.mapping:
        report(Problem(backends.line, backends.path, "", _TWO_DEFAULTS))
    elif isinstance(pools.value, dict):
        pools.value["default"] = Node({"backends": backends}, backends.line, "pools.default")


_FROM_ROUTING = ("load_balance", "timeouts", "retry", "breaker", "queue", "affinity", "hedge")


def _inherit_pool(root: Node, routing: Node | None, pool: Node) -> None:
    if not isinstance(pool.value, dict):
        return
    for key in _FROM_ROUTING:
        _inherit(pool, key, routing)
    _inherit(pool, "health_check", root)
    _inherit_backends(pool, pool)


def _inherit_backends(holder: Node, parent: Node | None) -> None:
    for backend in _list_of(holder, "backends"):
        _short_timeouts(backend)
        _inherit(backend, "timeouts", parent)


def _inherit(node: Node, key: str, parent: Node | None) -> None:
    base = parent.mapping.get(key) if parent else None
    own = node.mapping.get(key)
    if base is None or not isinstance(node.value, dict):
        return
    if own is None or own.value is None:
        node.mapping[key] = base
    elif isinstance(base.value, dict) and isinstance(own.value, dict):
        node.mapping[key] = Node(base.value | own.value, own.line, own.path)


def _short_timeouts(node: Node | None) -> None:
    """`connect_timeout` and `timeout` are short for entries of `timeouts`, which win."""
    if node is None or not isinstance(node.value, dict):
        return
    connect, silence = node.mapping.get("connect_timeout"), node.mapping.get("timeout")
    short = {"connect": connect, "first_byte": silence, "idle": silence}
    said = {key: value for key, value in short.items() if value is not None and value.value is not None}
    if said:
        first = next(iter(said.values()))
        timeouts = node.mapping.setdefault("timeouts", Node({}, first.line, first.path))
        if isinstance(timeouts.value, dict | None):
            timeouts.value = said | timeouts.mapping


def is_off(node: Node) -> bool:
    """Empty, false, or a mapping that is not enabled."""
    if isinstance(node.value, dict):
        enabled = node.mapping.get("enabled")
        return not node.mapping or (enabled is not None and enabled.value is False)
    return not node.value


def _is(node: Node, key: str, *values: str) -> bool:
    entry = node.mapping.get(key)
    return entry is not None and entry.value in values


def _list_of(node: Node, key: str) -> list[Node]:
    entry = node.mapping.get(key)
    return entry.items if entry else []
