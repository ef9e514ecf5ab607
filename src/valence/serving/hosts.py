"""Under which names a server answers.

A page of a stranger can have its own name point to 127.0.0.1 and then ask a server here as if it
were its own (DNS rebinding); the name in ``Host`` gives it away.
"""

from __future__ import annotations

import ipaddress

LOCAL_NAMES = ("localhost", "localhost.localdomain")


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine as seen from itself."""
    if host.lower() in LOCAL_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_name(header: str) -> str:
    """The name in a ``Host`` header, without the port; empty where it is none."""
    name = header.strip().lower()
    if name.startswith("["):
        inside, bracket, port = name[1:].partition("]")
        return inside if bracket and (not port or _is_port(port)) else ""
    name, colon, port = name.partition(":")
    return "" if colon and not _is_port(f":{port}") else name.removesuffix(".")


def _is_port(text: str) -> bool:
    return text[:1] == ":" and (text[1:] == "" or (text[1:].isascii() and text[1:].isdigit()))


def is_answered(header: str, hosts: tuple[str, ...] | None) -> bool:
    """Whether requests with this ``Host`` are answered.

    Args:
        header: As it came; HTTP/1.0 may have none, and no browser sends none.
        hosts: Names beside the machine's own, ``*.example.org`` for all below one, ``*`` for
            all; None answers every name.
    """
    if hosts is None or not header.strip():
        return True
    name = host_name(header)
    if not name:
        return False
    return is_loopback(name) or any(_matches(name, host.lower()) for host in hosts)


def _matches(name: str, pattern: str) -> bool:
    if pattern.startswith("*."):
        return name.endswith(pattern[1:])
    return pattern in ("*", name)
