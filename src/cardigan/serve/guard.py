"""Who may ask the server, and how much may be sent, before anything else is looked at.

On this machine alone: whoever calls it by this machine's names, and no page of somebody else's. Elsewhere: whoever has the token.
"""

from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cardigan.web.bodies import TooLarge, TooSlow, bounded, is_within, refuse
from cardigan.web.door import Door, is_own, is_token, is_welcome

BODY_SECONDS = 10.0
"""How long sending a request may take."""
OPEN = {"/", "/healthz"}
"""What anybody who reaches the server may read: it says nothing of the model."""
HEADERS = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}


@dataclass(frozen=True)
class Entrance:
    """The door, the pages of others that may ask in a browser, and how many bytes a request may have."""

    door: Door
    origins: tuple[str, ...]
    most_bytes: int


class Guard:
    """Lets through what is welcome."""

    def __init__(self, app: ASGIApp, entrance: Entrance) -> None:
        self.app, self.entrance = app, entrance

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse with one sentence."""
        if scope["type"] != "http":
            return  # there are no web sockets: the server closes what is not accepted
        refusal = self._refusal(scope, Headers(scope=scope))
        dressed = _dressed(send)
        if refusal is not None:
            await refuse(dressed, *refusal)
            return
        most = self.entrance.most_bytes
        try:
            await self.app(scope, bounded(receive, most, BODY_SECONDS), dressed)
        except TooLarge:
            await refuse(dressed, 413, _too_large(most))
        except TooSlow:
            await refuse(dressed, 408, f"The request did not come within {BODY_SECONDS:g} seconds: send it faster.")

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str, dict[str, str]] | None:
        """Return status, sentence and headers for a request that is not to be answered."""
        door = self.entrance.door
        if door.token is None:
            hosts = headers.getlist("host")
            if len(hosts) != 1 or not is_welcome(hosts[0], door):
                return 403, f"This server is not called {hosts[0][:80] if hosts else ''!r}: use the address that `cardigan serve` printed.", {}
            if self._is_foreign(scope, headers, hosts[0]):
                return 403, "A page from elsewhere may not use this server: name its origin with `cardigan serve --origins`.", {}
        elif scope["path"] not in OPEN and scope["method"] != "OPTIONS" and not is_token(_bearer(headers), door):
            return 401, "The token is missing or wrong: send `Authorization: Bearer TOKEN`.", {"www-authenticate": "Bearer"}
        if not is_within(headers.get("content-length"), self.entrance.most_bytes):
            return 413, _too_large(self.entrance.most_bytes), {}
        return None

    def _is_foreign(self, scope: Scope, headers: Headers, host: str) -> bool:
        """Return whether a browser says that another page asks: by Origin, and by Sec-Fetch-Site for all but the page itself."""
        origin = headers.get("origin")
        if origin is not None:
            return not is_own(origin, host) and origin not in self.entrance.origins
        return scope["path"] != "/" and headers.get("sec-fetch-site") in {"cross-site", "same-site"}


def _too_large(most: int) -> str:
    return f"More than {most:,} bytes were sent: ask for fewer pictures at once."


def _bearer(headers: Headers) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _dressed(send: Send) -> Send:
    async def dressed(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(HEADERS)
        await send(message)

    return dressed
