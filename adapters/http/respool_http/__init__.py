"""HTTP/1.1 for respool: keep-alive sockets pooled by origin, natively on Trio."""

from __future__ import annotations

from ._adapter import HTTPAdapter
from ._connection import Connection, RequestContext
from ._errors import (
    HTTPError,
    InvalidRequest,
    NotReusable,
    ProtocolError,
    ProxyError,
    ReadTimeout,
    ServerDisconnected,
    WriteTimeout,
)
from ._headers import Headers
from ._origin import Origin, Proxy
from ._pool import HTTPPool, RequestOptions, open_http_pool
from ._request import Body, HeaderInput
from ._response import Response, UpgradedStream

__all__ = [
    "Body",
    "Connection",
    "HTTPAdapter",
    "HTTPError",
    "HTTPPool",
    "HeaderInput",
    "Headers",
    "InvalidRequest",
    "NotReusable",
    "Origin",
    "ProtocolError",
    "Proxy",
    "ProxyError",
    "ReadTimeout",
    "RequestContext",
    "RequestOptions",
    "Response",
    "ServerDisconnected",
    "UpgradedStream",
    "WriteTimeout",
    "open_http_pool",
]
