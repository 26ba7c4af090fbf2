"""An HTTP/1.1 server that answers with the request as it arrived. Run it with `python -I -S`. Arguments: PORT.

The body of the answer is the head of the request, its body without chunks, and its trailers. A path that begins with
/chunked is answered in chunks, with a trailer. One that begins with /answer/ is answered with the bytes that follow in
hexadecimal; if there are none, the connection is closed.
"""

import sys
from _socket import SO_REUSEADDR, SOL_SOCKET, socket
from _thread import start_new_thread


class Connection:
    def __init__(self, descriptor: int) -> None:
        self.sock = socket(fileno=descriptor)
        self.read = b""

    def take(self, length: int) -> bytes:
        while len(self.read) < length:
            data = self.sock.recv(65_536)
            if not data:
                raise EOFError
            self.read += data
        taken, self.read = self.read[:length], self.read[length:]
        return taken

    def until(self, mark: bytes) -> bytes:
        while mark not in self.read:
            data = self.sock.recv(65_536)
            if not data:
                raise EOFError
            self.read += data
        return self.take(self.read.index(mark) + len(mark))


def request(connection: Connection) -> bytes:
    head = connection.until(b"\r\n\r\n")
    lowered = head.lower()
    if b"expect: 100-continue" in lowered:
        connection.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    if b"transfer-encoding: chunked" not in lowered:
        length = lowered.partition(b"content-length:")[2].partition(b"\r")[0]
        return head + connection.take(int(length or 0))
    body = b""
    while size := int(connection.until(b"\r\n"), 16):
        body += connection.take(size)
        connection.take(2)
    trailers = b""
    while (line := connection.until(b"\r\n")) != b"\r\n":
        trailers += line
    return head + body + b"\n" + trailers


def answer(connection: Connection) -> None:
    got = request(connection)
    path = got.split(b" ", 2)[1]
    if path.startswith(b"/answer/"):
        sent = bytes.fromhex(path[8:].decode())
        if not sent:
            raise EOFError
        connection.sock.sendall(sent)
        return
    head = b"HTTP/1.1 200 Very fine\r\nX-CamelCase: Yes\r\nserver: raw\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
    if path.startswith(b"/chunked"):
        trailer = b"X-Sum: 42\r\n"
        body = b"%x\r\n%b\r\n0\r\n%b\r\n" % (len(got), got, trailer)
        connection.sock.sendall(head + b"Trailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    else:
        body = b"" if got.startswith(b"HEAD ") else got
        connection.sock.sendall(head + b"Content-Length: %d\r\n\r\n%b" % (len(got), body))


def serve(descriptor: int) -> None:
    connection = Connection(descriptor)
    try:
        while True:
            answer(connection)
    except (EOFError, OSError):
        pass
    connection.sock.close()


listening = socket()
listening.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
listening.bind(("127.0.0.1", int(sys.argv[1])))
listening.listen(128)
while True:
    accepted, _ = listening._accept()  # type: ignore[attr-defined]
    start_new_thread(serve, (accepted,))
