"""A web server of forty lines: /health, a greeting, and a slow stream, until it is told to stop."""

import os
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WHO = f"replica {os.environ.get('ARGOSY_SERVICE_REPLICA', '?')}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path.startswith("/stream"):
            self.stream()
            return
        body = f"hello from {WHO}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for count in range(10):
            line = f"{count} from {WHO}\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            time.sleep(0.5)
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *values: object) -> None:
        if self.path != "/health":
            print(format % values, flush=True)


if __name__ == "__main__":
    port = int(os.environ.get("ARGOSY_SERVICE_PORT", "8080"))
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"{WHO} listens on port {port}", flush=True)
    server.serve_forever()
