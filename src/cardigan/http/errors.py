"""Errors of requests that more than one module raises."""

from cardigan.errors import CardiganError


class BadRequest(CardiganError):
    """A parameter of the request is invalid (status 400)."""


class TooManyRequests(CardiganError):
    """The server handles too many requests already (status 429)."""


class ClientDisconnected(Exception):
    """The client closed the connection before the response was ready."""
