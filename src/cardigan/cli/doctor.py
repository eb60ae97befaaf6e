"""`cardigan doctor --nodes`: find out why the nodes of a run cannot reach each other."""

import os
import socket
from dataclasses import dataclass
from typing import Annotated

import tyro

from cardigan.cli.parsing import parse
from cardigan.errors import CardiganError
from cardigan.hardware.network import PortCheck, addresses, check_port, interfaces


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """Check what several nodes need to train together. Run it on every node."""

    nodes: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Check the network: interface, host name, and the rendezvous endpoint."""
    endpoint: str = ""
    """HOST:PORT of --rdzv-endpoint. Default: MASTER_ADDR and MASTER_PORT."""
    timeout_seconds: float = 5.0
    """How long to wait for an answer."""


def main(argv: list[str]) -> int:
    """Print the findings; return 0 if all is well, 1 if not."""
    options = parse(DoctorOptions, argv, "cardigan doctor")
    if not options.nodes:
        raise CardiganError("Nothing was given to check: add --nodes.")
    endpoint = options.endpoint or ":".join(os.environ.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT"))
    host, _, port = endpoint.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise CardiganError(f"--endpoint is {options.endpoint!r}: expected HOST:PORT, as in node0:29500.")
    checks = [_host_name(), *_chosen_interfaces(), _endpoint_address(host)]
    checks.append(check_port(host, int(port), options.timeout_seconds))
    for check in checks:
        print(f"{'ok  ' if check.is_reachable else 'FAIL'}  {check.message}")
    return 0 if all(check.is_reachable for check in checks) else 1


def _host_name() -> PortCheck:
    name = socket.gethostname()
    found = addresses(name)
    if not found:
        return PortCheck(False, f"this host, {name}, does not know its own name: add it to /etc/hosts or DNS")
    if all(address.startswith("127.") or address == "::1" for address in found):
        return PortCheck(
            "GLOO_SOCKET_IFNAME" in os.environ,
            f"this host, {name}, is {', '.join(found)} here, which other hosts cannot reach: correct /etc/hosts, or "
            "set GLOO_SOCKET_IFNAME",
        )
    return PortCheck(True, f"this host, {name}, is {', '.join(found)}")


def _chosen_interfaces() -> list[PortCheck]:
    known = interfaces()
    listed = ", ".join(f"{name} {address}".strip() for name, address in known.items())
    checks = []
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        name = os.environ.get(variable, "")
        if not name:
            checks.append(PortCheck(True, f"{variable} is not set (interfaces: {listed})"))
        elif variable == "NCCL_SOCKET_IFNAME" or name in known:  # NCCL also accepts prefixes and lists
            checks.append(PortCheck(True, f"{variable} is {name} {known.get(name, '')}".rstrip()))
        else:
            checks.append(PortCheck(False, f"{variable} is {name}, which this host does not have: use one of {listed}"))
    return checks


def _endpoint_address(host: str) -> PortCheck:
    found = addresses(host)
    loopback = [address for address in found if address.startswith("127.0.1.")]
    if loopback:
        return PortCheck(
            False,
            f"{host} is {', '.join(found)} here: its own /etc/hosts names a loopback address that other hosts cannot "
            "reach; correct it, or give the address instead",
        )
    return PortCheck(bool(found), f"{host} is {', '.join(found) if found else 'unknown here'}")
