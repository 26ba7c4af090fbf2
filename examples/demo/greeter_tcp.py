"""A small TCP service that answers each line with a greeting."""

import sys
from socketserver import StreamRequestHandler, ThreadingTCPServer


class Greeter(StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(b"good day, " + line)


class Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    Server(("127.0.0.1", int(sys.argv[1])), Greeter).serve_forever()
