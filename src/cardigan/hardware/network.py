"""The network of this machine: its interfaces, what a host name stands for, and whether a port can be reached.

Knows no torch and no run.
"""

import errno
import socket
import struct
import sys
from dataclasses import dataclass

SIOCGIFADDR = 0x8915
"""The Linux request for an interface's IPv4 address (netdevice(7))."""


@dataclass(frozen=True)
class PortCheck:
    """Whether a TCP port can be reached, and a sentence about it."""

    is_reachable: bool
    message: str


def interfaces() -> dict[str, str]:
    """Return the IPv4 address of every network interface, "" if it has none or the system does not say."""
    return {name: _interface_address(name) for _, name in socket.if_nameindex()}


def _interface_address(name: str) -> str:
    if sys.platform != "linux":
        return ""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe, SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
        except OSError:
            return ""
    return socket.inet_ntoa(answer[20:24])


def addresses(host: str) -> list[str]:
    """Return the addresses that a host name stands for here; none if it is unknown."""
    try:
        return sorted({str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)})
    except OSError:
        return []


def check_port(host: str, port: int, timeout_seconds: float) -> PortCheck:
    """Connect to a port and return what happened."""
    try:
        with socket.create_connection((host, port), timeout_seconds) as connection:
            local = connection.getsockname()[0]
        return PortCheck(True, f"{host}:{port} answers (connected from {local})")
    except socket.gaierror:
        return PortCheck(False, f"{host} is not a known host name here: use an address, or add it to /etc/hosts or DNS")
    except TimeoutError:
        return PortCheck(
            False,
            f"{host}:{port} did not answer within {timeout_seconds:g} seconds: a firewall may drop the packets, or the "
            "host may be down",
        )
    except OSError as error:
        if error.errno == errno.ECONNREFUSED:
            return PortCheck(
                False, f"{host} can be reached, but nothing listens on port {port}: start torchrun there, or open it"
            )
        return PortCheck(False, f"{host}:{port} cannot be reached ({error.strerror or error})")
