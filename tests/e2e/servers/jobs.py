"""A server whose jobs run on after their response. Argument: PORT.

POST /jobs/NAME   202 at once; the job ends once the file NAME.go exists, and then writes NAME.done
GET /busy         200 while a job runs, 204 otherwise
"""

import http.server
import os
import sys
import threading
import time

RUNNING: set[str] = set()


def work(name: str) -> None:
    while not os.path.exists(f"{name}.go"):
        time.sleep(0.02)
    with open(f"{name}.done", "w") as done:
        done.write(str(os.getpid()))
    RUNNING.discard(name)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        name = self.path.rpartition("/")[2]
        RUNNING.add(name)
        threading.Thread(target=work, args=(name,)).start()
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.send_response(200 if RUNNING else 204)
        if RUNNING:
            self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
