"""A server that starts quickly, for many starts. Run it with `python -I -S`. Arguments: PORT http|tcp [OPTION…].

gate=PATH   listens only once that file exists
stubborn    ignores SIGTERM
as=TEXT     what it calls itself; default: the service's name

GET /until/PATH   the reply once that file exists, and at once a line in the log
GET /slow/N       the reply after N s
GET /pid          its process id
GET /crash        ends at once, without a reply
Any other path    its name and the path
TCP: each line is answered by its name and the line, `pid` by its process id.
"""

import os
import signal
import sys
import time
from _socket import SHUT_RDWR, SO_REUSEADDR, SOL_SOCKET, socket  # half as long to import as `socket`
from _thread import start_new_thread

OPTIONS = dict(option.partition("=")[::2] for option in sys.argv[3:])
NAME = OPTIONS.get("as") or os.environ["ZENVOY_SERVICE"]


class File:
    """A socket of `_socket` that does not close by itself what `_accept` gave."""

    def __init__(self, descriptor: int) -> None:
        self.sock = socket(fileno=descriptor)
        self.read = b""

    def until(self, mark: bytes) -> bytes | None:
        while mark not in self.read:
            data = self.sock.recv(65_536)
            if not data:
                return None
            self.read += data
        found, _, self.read = self.read.partition(mark)
        return found


def until_exists(path: str) -> None:
    while not os.path.exists(path):
        time.sleep(0.005)


def answer(path: str) -> str:
    what, _, rest = path.lstrip("/").partition("/")
    if what == "until":
        print("asked", path, flush=True)
        until_exists(f"/{rest}")
    elif what == "slow":
        time.sleep(float(rest))
    elif what == "pid":
        return str(os.getpid())
    elif what == "crash":
        listening.shutdown(SHUT_RDWR)  # or the kernel may take one more connection while the process ends
        os._exit(3)
    return f"{NAME} {path}\n"


def speak_http(client: File) -> None:
    while (head := client.until(b"\r\n\r\n")) is not None:
        body = answer(head.split(b" ", 2)[1].decode()).encode()
        client.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


def speak_tcp(client: File) -> None:
    while (line := client.until(b"\n")) is not None:
        client.sock.sendall(f"{os.getpid() if line == b'pid' else f'{NAME} {line.decode()}'}\n".encode())


def serve(descriptor: int) -> None:
    client = File(descriptor)
    try:
        (speak_http if sys.argv[2] == "http" else speak_tcp)(client)
    except OSError:
        pass
    client.sock.close()


if "stubborn" in OPTIONS:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("started", os.getpid(), flush=True)
if "gate" in OPTIONS:
    until_exists(OPTIONS["gate"])
listening = socket()
listening.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
listening.bind(("127.0.0.1", int(sys.argv[1])))
listening.listen(4096)
while True:
    try:
        accepted, _ = listening._accept()  # type: ignore[attr-defined]
    except OSError:
        time.sleep(60)  # it ends
    start_new_thread(serve, (accepted,))
