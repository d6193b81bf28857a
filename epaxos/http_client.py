"""A replica's HTTP port, asked from outside the product: commands, clusters, load tests.

Errors say what to do about them. For requests at a rate there are better clients: `epaxos.client`,
and the connections of `bench.loadtest`.

Loopback never goes through a proxy, whatever the environment says.
"""

import ipaddress
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from typing import Any, Final

import orjson

from epaxos.core.errors import AddressError, CodecError, ConfigError, EpaxosError
from epaxos.core.numbers import cut

ANSWER_BYTES_MAX: Final = 256 * 1024 * 1024
_PROBLEM_BYTES_MAX: Final = 65_536
_direct: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def base_url(text: str) -> str:
    """`http://host:port` from what a person typed. Raises ConfigError."""
    url = (text if "://" in text else f"http://{text}").rstrip("/")
    found = re.fullmatch(r"https?://(?:[^/\s:@?#\[\]]+|\[[0-9a-fA-F:.]+\])(?::([0-9]{1,5}))?", url)
    if found is None or not 0 < int(found[1] or 80) < 65_536:
        raise ConfigError(
            f"--at {cut(text)} is not an HTTP address; write for example http://127.0.0.1:8001"
        )
    return url


def fetch(url: str, timeout_s: float, document: object = None, method: str = "GET") -> bytes:
    """The body of an answer; a document is sent as JSON. Raises OSError: nobody is there, or an
    HTTPError where they refuse; and CodecError for what is no HTTP, or is longer than
    ANSWER_BYTES_MAX."""
    body = None if document is None else orjson.dumps(document)
    headers = {} if document is None else {"Content-Type": "application/json"}
    request = urllib.request.Request(url, body, headers, method=method)
    try:
        with _opener(url)(request, timeout=timeout_s) as answer:
            octets: bytes = answer.read(ANSWER_BYTES_MAX + 1)
    except HTTPException as error:
        raise CodecError(f"{url} did not answer with HTTP ({error!r}); is it a replica?") from None
    if len(octets) > ANSWER_BYTES_MAX:
        raise CodecError(f"{url} answered with more than {ANSWER_BYTES_MAX:,} bytes; ask for less")
    return octets


def fetch_json(url: str, timeout_s: float) -> dict[str, Any]:
    """The JSON object at a URL of a replica.

    Raises AddressError if nobody is there, EpaxosError with the replica's words if it refuses, and
    CodecError for what is not the JSON of a replica."""
    try:
        document = orjson.loads(fetch(url, timeout_s))
    except urllib.error.HTTPError as error:
        with error:
            raise EpaxosError(f"{url}: {_problem(error)}") from None
    except orjson.JSONDecodeError as error:
        raise CodecError(f"{url} did not answer with JSON ({error}); is it a replica?") from None
    except OSError as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        detail = reason.strerror if isinstance(reason, OSError) and reason.strerror else reason
        raise AddressError(
            f"{url} cannot be reached: {detail}; start a replica there, or name another with --at"
        ) from None
    if not isinstance(document, dict):
        raise CodecError(f"{url} did not answer with a JSON object; is it a replica?")
    return document


def _opener(url: str) -> Callable[..., Any]:
    """What opens a URL: past any proxy if it is on loopback."""
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    return _direct.open if loopback else urllib.request.urlopen


def _problem(error: urllib.error.HTTPError) -> str:
    """What a problem document says, or at least the status."""
    try:
        problem = orjson.loads(error.read(_PROBLEM_BYTES_MAX))
        words = [problem[field] for field in ("title", "detail") if problem.get(field)]
    except (orjson.JSONDecodeError, AttributeError, OSError):
        words = []
    return f"{error.code} {error.reason}" + "".join(f": {word}" for word in words)
