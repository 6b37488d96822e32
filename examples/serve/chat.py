"""A language model server in one file: it speaks OpenAI with streaming, and needs nothing to be downloaded.

The model knows which word followed which pair of words in a small text, which is enough to see how requests,
streams and updates behave. Only the standard library.
"""

import json
import os
import random
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME = os.environ.get("MODEL_NAME", "tiny-markov")
PAUSE_S = float(os.environ.get("TOKEN_PAUSE_S", "0.02"))  # as if a GPU worked on each token
TEXT = """
a replica answers requests until it is told to stop . a gateway sends each request to a replica that is
ready . when a new revision is good the old replicas answer what they have begun and stop . when a new
revision is bad the old replicas go on and nobody notices . a service without requests has no replica and
the first request starts one . requests that wait for a replica are held by the gateway until it is ready to
answer them .
"""


def learn(text: str) -> dict[tuple[str, str], list[str]]:
    """Which words follow each pair of words."""
    words = text.split()
    table: dict[tuple[str, str], list[str]] = {}
    for first, second, third in zip(words, words[1:], words[2:], strict=False):
        table.setdefault((first, second), []).append(third)
    return table


TABLE = learn(TEXT)


def tokens(prompt: str, count: int):
    """Words that go on from the prompt, one by one."""
    dice = random.Random(prompt)
    known = prompt.lower().split()
    end = (known[-2], known[-1]) if len(known) > 1 else ("", "")
    pair = end if end in TABLE else dice.choice(sorted(TABLE))
    yield from pair[:count]
    for _ in range(count - 2):
        pair = (pair[1], dice.choice(TABLE.get(pair) or ["."]))
        if pair not in TABLE:
            pair = dice.choice(sorted(TABLE))
        time.sleep(PAUSE_S)
        yield pair[1]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/health":
            self.answer(200, {"status": "ok"})
        elif self.path == "/v1/models":
            self.answer(200, {"object": "list", "data": [{"id": NAME, "object": "model", "owned_by": "you"}]})
        else:
            self.answer(404, {"error": {"message": f"there is no {self.path}", "type": "not_found"}})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            asked = json.loads(body)
            is_chat = self.path.endswith("/chat/completions")
            prompt = asked["messages"][-1]["content"] if is_chat else asked["prompt"]
            count = int(asked.get("max_tokens") or 24)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            self.answer(
                400, {"error": {"message": f"cannot read the request: {error}", "type": "invalid_request"}}
            )
            return
        if asked.get("stream"):
            self.stream(str(prompt), count, is_chat)
            return
        words = list(tokens(str(prompt), count))
        usage = {"prompt_tokens": len(str(prompt).split()), "completion_tokens": len(words)}
        usage["total_tokens"] = sum(usage.values())
        self.answer(
            200, {**self.head(is_chat), "choices": [self.choice(" ".join(words), is_chat)], "usage": usage}
        )

    def head(self, is_chat: bool, part: str = "") -> dict:
        kind = f"chat.completion{part}" if is_chat else "text_completion"
        return {"id": f"cmpl-{time.time_ns():x}", "object": kind, "created": int(time.time()), "model": NAME}

    def choice(self, text: str, is_chat: bool, end: "str | None" = "stop", key: str = "message") -> dict:
        said = {key: {"role": "assistant", "content": text}} if is_chat else {"text": text}
        return {"index": 0, **said, "finish_reason": end}

    def answer(self, status: int, value: dict) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def stream(self, prompt: str, count: int, is_chat: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        head = self.head(is_chat, ".chunk")
        for word in tokens(prompt, count):
            self.event(json.dumps({**head, "choices": [self.choice(word + " ", is_chat, None, "delta")]}))
        self.event(json.dumps({**head, "choices": [self.choice("", is_chat, "stop", "delta")]}))
        self.event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def event(self, text: str) -> None:
        data = f"data: {text}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def log_message(self, format: str, *values: object) -> None:
        if self.path != "/health":
            print(format % values, flush=True)


if __name__ == "__main__":
    port = int(os.environ.get("ARGOSY_SERVICE_PORT", "8000"))
    print(f"{NAME} listens on port {port}", flush=True)
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
