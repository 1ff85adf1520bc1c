"""The sockets that the service listens on, bound before anything else starts."""

from __future__ import annotations

import errno
import socket

from rankone.model.errors import RankoneError

_BACKLOG = 2048


class CannotListen(RankoneError, OSError):
    """The address cannot be listened on; the message says why."""


def listen(host: str, port: int) -> list[socket.socket]:
    """A socket for each address of `host`, as `localhost` has two; port 0 takes a free one, the same for all.

    Connections wait in the backlog until the server accepts them.

    Raises:
        CannotListen: another process listens there, the host is not this machine's, or the port is not allowed.
    """
    listeners: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            same_port = listeners[0].getsockname()[1] if listeners else port
            listener = socket.socket(family, kind, protocol)
            listeners.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((address[0], same_port, *address[2:]))
            listener.listen(_BACKLOG)
            listener.setblocking(False)
    except OSError as error:
        for listener in listeners:
            listener.close()
        raise CannotListen(_sentence(error, host, port)) from error
    return listeners


def check_free(host: str, port: int) -> None:
    """Raises CannotListen if `listen` would: the address is taken for a moment and given back."""
    for listener in listen(host, port):
        listener.close()


def url_of(listener: socket.socket) -> str:
    """Where a client on this machine reaches it."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if listener.family == socket.AF_INET6 else f"http://{host}:{port}"


def _sentence(error: OSError, host: str, port: int) -> str:
    match error:
        case socket.gaierror():
            return f"host {host!r} is not known: set an address of this machine (--host, RANKONE_HOST)"
        case OSError(errno=errno.EADDRINUSE):
            return (
                f"another process listens on port {port} of {host}: end it, or set another port (--port, RANKONE_PORT)"
            )
        case OSError(errno=errno.EADDRNOTAVAIL):
            return f"{host} is not an address of this machine (--host, RANKONE_HOST)"
        case OSError(errno=errno.EACCES | errno.EPERM):
            return f"this user may not listen on port {port}: set one from 1024 on (--port, RANKONE_PORT)"
    return f"{host}:{port} cannot be listened on: {error.strerror}"
