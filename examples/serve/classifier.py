"""A classifier of handwritten digits on a CPU: learns once in `setup`, then answers POST /predict."""

import json
import os
import pickle
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FILE = Path(os.path.expanduser("~/digits.pickle"))


def learn() -> None:
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    digits = load_digits()
    FILE.write_bytes(pickle.dumps(LogisticRegression(max_iter=200).fit(digits.data / 16, digits.target)))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer(200, {"ready": True})

    def do_POST(self) -> None:
        try:
            rows = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))["instances"]
            self.answer(200, {"predictions": MODEL.predict(rows).tolist()})
        except (ValueError, KeyError, TypeError) as error:
            self.answer(400, {"error": str(error)})

    def answer(self, status: int, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


if __name__ == "__main__":
    if sys.argv[1:] == ["learn"]:
        learn()
    else:
        MODEL = pickle.loads(FILE.read_bytes())  # our own file
        port = int(os.environ["ARGOSY_SERVICE_PORT"])
        ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
