"""The one client of every engine server: bytes over HTTP, with one policy of trying again.

What the bytes mean is known to `engines.protocol`.
"""

import asyncio
import errno
import io
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import ClassVar

import aiohttp
from yarl import URL

from vendomini.engines.words import (
    BLANK,
    Complaint,
    beginning,
    complaint_in,
    complaint_of,
    error_status,
    in_words,
)
from vendomini.errors import EngineError

CONNECT_S = 30.0
"""A host that does not even take a connection for so long is not there."""

GET_S = 30.0
"""Most seconds for a question that costs the server nothing."""

KEEP_ALIVE_S = 4.0
"""Less than the 5 s after which uvicorn, vLLM's server, closes a connection that rests."""

FRESH_TRIES = 4
"""How often a request is sent when connections break before any answer, without waiting."""

BUSY = frozenset({502, 503, 504, *range(520, 525), 529})
"""What a server that loads or is overloaded, or what stands before it, answers meanwhile."""

ONE_KEY_ONLY = "the worker makes this key up at each start: something else listens there"


class ServerGone(EngineError):
    """The server cannot be reached, or broke the connection off."""


class NoSuchHost(ServerGone):
    """Nobody knows the host: waiting would not help."""


class NoAnswer(EngineError):
    """The server took the request and did not answer it in time."""


class ServerFailed(EngineError):
    """The server answered that it has failed (5xx): it may be dying, or loading."""

    is_the_servers: ClassVar[bool] = True

    def __init__(self, message: str, *, status: int, complaint: Complaint, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.complaint = complaint


class Refused(EngineError):
    """The server understood and said no (4xx): asking again would change nothing."""

    def __init__(
        self,
        complaint: Complaint,
        *,
        status: int,
        hint: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        self.message = in_words(complaint)
        super().__init__(f"the server refuses ({status}): {self.message}", hint=hint)
        self.status = status
        self.complaint = complaint
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How often a remote server is asked the same again, and how long is waited between.

    Waits double from `first_s` to `most_s` seconds, each shortened by chance to between half
    and all of it, so that many workers do not come back at once. A server's own `Retry-After`
    is waited for, up to `most_asked_s`.
    """

    tries: int = 8
    tries_after_500: int = 2
    """A 500 may be a passing fault, but is mostly what this very request does to the server."""
    first_s: float = 0.5
    most_s: float = 20.0
    most_asked_s: float = 60.0

    def tries_after(self, status: int | None) -> int:
        """How often to try in all when the last answer had this status; None: no answer."""
        if status is None or status == 429 or status in BUSY:
            return self.tries
        return self.tries_after_500 if status == 500 else 1

    def wait_s(self, attempt: int, retry_after_s: float | None) -> float:
        """Seconds to wait after the attempt of this number, from 1."""
        wait = min(self.most_s, self.first_s * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)
        return max(wait, min(retry_after_s or 0.0, self.most_asked_s))


class Client:
    """One HTTP session with one server.

    A server on `uds` is a child of ours: its connections are not tried again, for the caller
    judges whether it died. `base_url` is a remote one, as OpenAI's clients are given it
    (``http://host:8000/v1``), or ``unix:/path``. Paths are given as the server's own:
    ``/v1/...`` lies below `base_url`, everything else beside its ``/v1``.

    Raises `EngineError` for a `base_url` that is none. `get` and `post` raise `ServerGone`,
    `Refused` for 4xx, `ServerFailed` for 5xx, and `EngineError` for no answer in time, a wrong
    key and an answer in HTML. A request is tried again unchanged, or not at all.
    """

    def __init__(
        self,
        *,
        uds: Path | None = None,
        base_url: str | None = None,
        key: str | None,
        request_timeout_s: float,
        key_from: str = ONE_KEY_ONLY,
        backoff: Backoff | None = None,
    ) -> None:
        assert (uds is None) != (base_url is None), "one server, one address"
        self.where = f"`{base_url or uds}`"
        if base_url is not None and base_url.startswith("unix:"):
            uds = Path(base_url.removeprefix("unix:"))
        self._uds = uds
        self._api = URL("http://engine/v1") if uds is not None else _api_of(base_url or "")
        self._root = self._api.parent if self._api.name == "v1" else self._api
        self._backoff = None if base_url is None else backoff or Backoff()
        self.name = f"the server at {self.where}" if self._backoff is not None else "the server"
        self._key = key
        self._key_from = key_from
        self._request_timeout_s = request_timeout_s
        self._urls: dict[str, URL] = {}
        self._session: aiohttp.ClientSession | None = None
        self._is_closed = False

    async def get(self, path: str, *, once: bool = False) -> bytes:
        """The answer to a small question, within `GET_S` seconds.

        A connection that fails is not tried again: whoever asks can ask once more. `once`: nor is
        a server that says it is busy.
        """
        timeout_s = min(GET_S, self._request_timeout_s)
        backoff = None if once else self._backoff
        return await self._ask("GET", path, None, backoff, timeout_s=timeout_s, reconnects=False)

    async def post(self, path: str, body: bytes) -> bytes:
        """The answer to a JSON body."""
        return await self._ask(
            "POST", path, body, self._backoff, timeout_s=self._request_timeout_s, reconnects=True
        )

    async def close(self) -> None:
        """Allowed at any time, also twice. Requests under way, and later ones, fail."""
        self._is_closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None,
        backoff: Backoff | None,
        *,
        timeout_s: float,
        reconnects: bool,
    ) -> bytes:
        attempt = 0
        while True:
            attempt += 1
            answer: _Answer | None = None
            gone: ServerGone | None = None
            try:
                answer = await self._send(method, path, body, timeout_s=timeout_s)
            except ServerGone as error:
                if not reconnects:
                    raise
                gone = error
            if answer is not None and answer.status == 200:
                return self._checked(answer.content)
            status = None if answer is None else answer.status
            if backoff is None or attempt >= backoff.tries_after(status):
                if answer is not None:
                    raise self._error_of(answer)
                assert gone is not None
                raise gone
            retry_after_s = None if answer is None else _retry_after_s(answer.headers)
            await asyncio.sleep(backoff.wait_s(attempt, retry_after_s))

    async def _send(
        self, method: str, path: str, body: bytes | None, *, timeout_s: float
    ) -> "_Answer":
        """One answer of any status.

        A connection that broke before any answer is mostly one that the server closed just as
        it was used again; then the next one is tried at once.
        """
        url = self._urls.get(path) or self._url(path)
        # The time to connect is part of the whole; a request of minutes is not a slow connection.
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(CONNECT_S, timeout_s))
        for fresh in range(FRESH_TRIES):
            if self._is_closed:
                raise EngineError(f"the client of {self.where} was closed")
            has_answered = False
            session = self._session or self._open()
            # aiohttp sends bytes of more than a MiB at one go, and warns of that.
            data = io.BytesIO(body) if body is not None and len(body) > 1 << 20 else body
            try:
                async with session.request(
                    method, url, data=data, timeout=timeout, allow_redirects=False
                ) as response:
                    has_answered = True
                    content = await response.read()
                    status = response.status
                    if status == 200:
                        # A question that costs nothing has an answer of its own form.
                        other = 400 if method == "POST" else None
                        status = error_status(content, other=other) or status
                    return _Answer(status, response.headers, content)
            except (aiohttp.ClientSSLError, aiohttp.ClientConnectorCertificateError) as error:
                raise EngineError(
                    f"{self.where} and we do not agree on encryption: {error}",
                    hint="is it `http` or `https`? see `engine.base_url`",
                ) from error
            except aiohttp.ClientConnectorError as error:
                is_unknown = isinstance(error, aiohttp.ClientConnectorDNSError)
                raise (NoSuchHost if is_unknown else ServerGone)(
                    f"the server at {self.where} cannot be reached: {_reason(error)}",
                    hint=self._address_hint,
                ) from error
            except aiohttp.ConnectionTimeoutError as error:
                raise ServerGone(
                    f"the server at {self.where} cannot be reached: no connection within "
                    f"{timeout.sock_connect:g} s",
                    hint=self._address_hint,
                ) from error
            except TimeoutError as error:
                raise NoAnswer(
                    f"no answer within {timeout_s:g} s from {self.where} ({path})",
                    hint="is the server stuck? else raise `engine.request_timeout_s`",
                ) from error
            except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, OSError) as error:
                if has_answered or fresh == FRESH_TRIES - 1:
                    when = "in the middle of an answer" if has_answered else "without an answer"
                    raise ServerGone(
                        f"the server at {self.where} broke the connection off {when}",
                        hint="its own log says why",
                    ) from error
            except aiohttp.ClientError as error:
                raise EngineError(
                    f"what {self.where} answers is not HTTP: {beginning(str(error).encode())}",
                    hint=self._address_hint,
                ) from error
        raise AssertionError("the last try returns or raises")

    def _checked(self, content: bytes) -> bytes:
        if content[:64].lstrip(BLANK)[:1] == b"<":
            raise EngineError(
                f"{self.where} answers HTML, not JSON: {beginning(content)}",
                hint=self._address_hint
                if self._backoff is None
                else "`engine.base_url` is to be the address of an API, such as "
                "http://127.0.0.1:8000/v1, not of a page or of a door before it",
            )
        return content

    def _error_of(self, answer: "_Answer") -> EngineError:
        if answer.status in (401, 403):
            return EngineError(
                f"{self.where} refuses the key ({answer.status}: {complaint_in(answer.content)})",
                hint=self._key_from,
            )
        if 300 <= answer.status < 400:
            target = answer.headers.get("Location", "another place")
            return EngineError(
                f"{self.where} sends us on to {target}", hint="set `engine.base_url` to that"
            )
        complaint = complaint_of(answer.content)
        if answer.status < 500:
            return Refused(
                complaint,
                status=answer.status,
                hint=self._hint_for(answer.status),
                retry_after_s=_retry_after_s(answer.headers),
            )
        return ServerFailed(
            f"{self.where} answers {answer.status}: {in_words(complaint)}",
            status=answer.status,
            complaint=complaint,
            hint="its own log says why",
        )

    def _hint_for(self, status: int) -> str:
        return self._address_hint if status in (404, 405) else ""

    @property
    def _address_hint(self) -> str:
        if self._backoff is None:
            return "the engine's log says what became of its server"
        return "is `engine.base_url` right, and does the server run? It mostly ends in `/v1`"

    def _url(self, path: str) -> URL:
        base, rest = (self._root, path)
        if path.startswith("/v1/"):
            base, rest = self._api, path.removeprefix("/v1")
        url = self._urls[path] = base.joinpath(*rest.strip("/").split("/"))
        return url

    def _open(self) -> aiohttp.ClientSession:
        # No limit: how many requests wait in the server is for those to decide who ask.
        connector: aiohttp.BaseConnector
        if self._uds is not None:
            connector = aiohttp.UnixConnector(
                str(self._uds), limit=0, keepalive_timeout=KEEP_ALIVE_S
            )
        else:
            connector = aiohttp.TCPConnector(
                limit=0, keepalive_timeout=KEEP_ALIVE_S, ttl_dns_cache=300
            )
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/plain"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        self._session = aiohttp.ClientSession(
            connector=connector, headers=headers, cookie_jar=aiohttp.DummyCookieJar()
        )
        return self._session


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    content: bytes


def _api_of(base_url: str) -> URL:
    try:
        url = URL(base_url)
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise EngineError(
            f"`engine.base_url` `{base_url}` is no address",
            hint="such as http://127.0.0.1:8000/v1, or unix:/path/of/a/socket",
        )
    path = url.path.rstrip("/")
    return url.with_path(path or "/v1")


def _reason(error: aiohttp.ClientConnectorError) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"no such host as `{error.host}`"
    if error.errno == errno.ECONNREFUSED:
        return "connection refused"
    return error.strerror or str(error)


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """What the server asks for, as seconds or as a date; None: nothing that can be read."""
    asked = headers.get("Retry-After")
    if asked is None:
        return None
    try:
        return max(0.0, float(asked))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(asked).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
