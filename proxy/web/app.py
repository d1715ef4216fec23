"""The one application: read `make_app` from top to bottom and you have read what happens to a request."""

from collections.abc import Sequence
from functools import partial
from secrets import token_bytes
from typing import Any, cast

from aiohttp import web
from aiohttp.typedefs import Middleware

from proxy import clock
from proxy.access import digest, networks
from proxy.config.schema_auth import Admin
from proxy.stores.key_database import KeyDatabase
from proxy.web import pages
from proxy.web.admin import AdminPages
from proxy.web.auth import auth
from proxy.web.cors import cors
from proxy.web.downstream import DownstreamConnection
from proxy.web.errors import errors
from proxy.web.forward import forward
from proxy.web.limits import limits
from proxy.web.request import exchange_of
from proxy.web.route import route
from proxy.web.trace import trace
from proxy.web.translate import translate
from proxy.web.usage import usage


def make_app(
    *, metrics_path: str | None, admin_routes: Sequence[web.AbstractRouteDef] = ()
) -> web.Application:
    """The gateway's application; metrics and administration may have listeners of their own instead."""
    app = web.Application(
        middlewares=_chain(
            trace,  # names the request, pins the runtime, writes the access line
            errors,  # turns what is raised below into an OpenAI error body
            cors,  # answers browsers' preflights
            auth,  # header -> Credential, or 401
            route,  # reads the body once, model -> Route, or 404
            translate,  # a model's adapters rewrite the parsed body
            limits,  # reserves before, settles after the stream
            usage,  # meters a copy, hands the record to the outbox
        )
    )
    router = app.router
    router.add_get("/", pages.index)
    router.add_get("/health", pages.health)
    router.add_get("/ready", pages.ready)
    if metrics_path is not None:
        router.add_get(metrics_path, pages.metrics)
    router.add_routes(admin_routes)
    for prefix in ("", "/v1"):
        router.add_get(prefix + "/models", pages.models)
        router.add_get(prefix + "/models/{model:.+}", pages.model)
    router.add_route("*", "/{path:.*}", cast(Any, forward))
    return app


def _chain(*middlewares: Any) -> list[Middleware]:
    """For aiohttp these are functions of its own `web.Request`; the connections only ever make ours.

    It marks each of them, which what is compiled to C does not let it do.
    """
    return [web.middleware(partial(one)) for one in middlewares]


def make_metrics_app(path: str) -> web.Application:
    """What a listener of its own for metrics serves."""
    app = web.Application(middlewares=_chain(trace, errors))
    app.router.add_get(path, pages.metrics)
    return app


def make_admin_app(routes: Sequence[web.AbstractRouteDef]) -> web.Application:
    """What a listener of its own for administration serves."""
    app = web.Application(middlewares=_chain(trace, errors))
    app.router.add_routes(routes)
    return app


def admin_routes(settings: Admin, database: KeyDatabase) -> list[web.RouteDef]:
    """The administration pages; who may call them is checked by the pages themselves."""
    pages = AdminPages(
        database,
        digest(settings.token.encode()),
        networks(settings.allowed_ips),
        read_only=settings.read_only,
        wall=clock.wall,
        random=token_bytes,
        read_body=lambda request, limit: cast(DownstreamConnection, request.protocol).read_body(limit),
        client_ip=lambda request: exchange_of(request).client_ip,
    )
    return pages.routes()
