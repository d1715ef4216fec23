"""Everything a client can see go wrong, as one tree of exceptions.

A `ProxyError` carries what the answer needs: status, OpenAI's `type`, `code`
and `param`, extra response headers. One middleware turns it into a body. The
message never repeats input or a key, and a 4xx message holds no number that
OpenCode would take for a 429 or 5xx and retry (it matches digit runs).
"""

from collections.abc import Mapping


class ProxyError(Exception):
    """An answer of our own: `status`, and OpenAI's error object."""

    status = 500
    type = "server_error"
    code: str | None = "internal_error"

    def __init__(
        self, message: str, *, param: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.headers: Mapping[str, str] = headers or {}


class BadRequest(ProxyError):
    """What came cannot be read, or could be read in two ways."""

    status = 400
    type = "invalid_request_error"
    code = None


class Unauthorized(ProxyError):
    """No key, or one that nobody knows."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"


class Forbidden(ProxyError):
    """A known key that may not be used now or from here."""

    status = 403
    type = "invalid_request_error"
    code = "key_not_allowed"


class ModelNotFound(ProxyError):
    """Unknown model, or one this key may not use: the two look the same on purpose."""

    status = 404
    type = "invalid_request_error"
    code = "model_not_found"

    def __init__(self) -> None:
        super().__init__("The model does not exist or you do not have access to it.", param="model")


class NotFound(ProxyError):
    status = 404
    type = "invalid_request_error"
    code = "unknown_url"


class MethodNotAllowed(ProxyError):
    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"


class RequestTimeout(ProxyError):
    """The client fell silent inside a head or a body."""

    status = 408
    type = "invalid_request_error"
    code = "request_timeout"


class BodyTooLarge(ProxyError):
    status = 413
    type = "invalid_request_error"
    code = "request_too_large"


class TargetTooLong(ProxyError):
    status = 414
    type = "invalid_request_error"
    code = "uri_too_long"


class ExpectationFailed(ProxyError):
    status = 417
    type = "invalid_request_error"
    code = "expectation_failed"


class HeadTooLarge(ProxyError):
    status = 431
    type = "invalid_request_error"
    code = "headers_too_large"


class LimitExceeded(ProxyError):
    """A limiter refused; `headers` carry Retry-After and the limit's state."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class QuotaExceeded(ProxyError):
    """The key has spent what it had; waiting does not help, so clients are told not to retry."""

    status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"


class Overloaded(ProxyError):
    """No backend, a full queue, draining, or a store that is down: come back later."""

    status = 503
    type = "service_unavailable_error"
    code = "server_is_overloaded"


class UnsupportedVersion(ProxyError):
    status = 505
    type = "invalid_request_error"
    code = "http_version_not_supported"


class UpstreamFailed(ProxyError):
    """The upstream could not be reached, or what it sent is not an answer."""

    status = 502
    type = "server_error"
    code = "upstream_error"


class UpstreamTimeout(ProxyError):
    """The upstream accepted the request and stayed silent."""

    status = 504
    type = "server_error"
    code = "upstream_timeout"
