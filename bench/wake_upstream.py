"""A service that reports in its first answer when it began to listen: `wake_upstream.py http|tcp PORT`.

It serves one connection at a time and imports as little as possible, because only the path to it is measured.
"""

import sys
import time
from _socket import SO_REUSEADDR, SOL_SOCKET  # loading the module `socket` takes longer than the rest of the start
from _socket import socket as Socket
from os import close, read, write


def main(protocol: str, port: int) -> None:
    listener = Socket()
    listener.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listening_at = time.time()
    listener.listen(16)
    body = b"%.6f" % listening_at
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
    reply = head + body if protocol == "http" else body
    while True:
        fd, _ = listener._accept()  # type: ignore[attr-defined]
        try:
            if read(fd, 65536):  # a readiness probe sends nothing
                write(fd, reply)
        except OSError:
            pass
        close(fd)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
