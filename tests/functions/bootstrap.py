"""A program that speaks the runtime API itself, as runtimes of other languages do."""

import http.client
import json
import os
import sys

API = os.environ["AWS_LAMBDA_RUNTIME_API"]
BASE = "/2018-06-01/runtime/"


def ask(method, path, body=None, headers=None):
    connection = http.client.HTTPConnection(API)
    connection.request(method, BASE + path, body, headers or {})
    answer = connection.getresponse()
    return answer.status, dict(answer.getheaders()), answer.read()


if os.environ["_HANDLER"] == "fails.at.init":
    print(ask("POST", "init/error", b'{"errorType": "Own.Init", "errorMessage": "no model"}')[0])
    sys.exit(1)
if os.environ["_HANDLER"] == "exits.at.init":
    sys.exit(7)

while True:
    status, fields, body = ask("GET", "invocation/next")
    event = json.loads(body)
    name = fields["Lambda-Runtime-Aws-Request-Id"]
    do = event.get("do")
    if do == "exit":
        sys.exit(4)
    if do == "error":
        ask("POST", f"invocation/{name}/error", b'{"errorType": "Own.Error", "errorMessage": "bad"}')
        continue
    if do == "stream":
        connection = http.client.HTTPConnection(API)
        mode = {"Lambda-Runtime-Function-Response-Mode": "streaming", "Transfer-Encoding": "chunked"}
        pieces = iter([b"one ", b"two"])
        path = BASE + f"invocation/{name}/response"
        connection.request("POST", path, pieces, mode, encode_chunked=True)
        connection.getresponse().read()
        continue
    wrong = [ask("POST", "invocation/unknown/response", b"{}"), ask("GET", "nothing")]
    if do == "large":
        status, _, body = ask("POST", f"invocation/{name}/response", b"x" * (6 * 1024 * 1024 + 1))
        continue
    told = {"fields": fields, "wrong": [(one[0], json.loads(one[2])["errorType"]) for one in wrong]}
    first = ask("POST", f"invocation/{name}/response", json.dumps(told).encode())
    second = ask("POST", f"invocation/{name}/response", b"{}")
    print(f"first {first[0]} second {second[0]} {json.loads(second[2])['errorType']}", flush=True)
