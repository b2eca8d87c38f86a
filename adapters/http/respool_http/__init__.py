"""HTTP/1.1 for respool: keep-alive sockets pooled by origin, natively on Trio."""

from __future__ import annotations

from ._adapter import HTTPAdapter as HTTPAdapter
from ._connection import Connection as Connection
from ._connection import RequestContext as RequestContext
from ._errors import HTTPError as HTTPError
from ._errors import InvalidRequest as InvalidRequest
from ._errors import NotReusable as NotReusable
from ._errors import ProtocolError as ProtocolError
from ._errors import ProxyError as ProxyError
from ._errors import ReadTimeout as ReadTimeout
from ._errors import ServerDisconnected as ServerDisconnected
from ._errors import WriteTimeout as WriteTimeout
from ._headers import Headers as Headers
from ._origin import Origin as Origin
from ._origin import Proxy as Proxy
from ._pool import HTTPPool as HTTPPool
from ._pool import RequestOptions as RequestOptions
from ._pool import open_http_pool as open_http_pool
from ._request import Body as Body
from ._request import HeaderInput as HeaderInput
from ._response import Response as Response
from ._response import UpgradedStream as UpgradedStream
