"""Stands for the programs that recipes start: takes the flags and variables that each documents, and answers
health and figures where that one does. `stub_runtimes.py NAME ARGUMENTS...`"""

import argparse
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Place:
    """Where it answers: ports with their paths; the path of requests to its model."""

    def __init__(self, model: str, speaks: str, *doors: "tuple[int, tuple[str, ...]]") -> None:
        self.model, self.speaks, self.doors = model, speaks, doors


def vllm(words: "list[str]") -> Place:
    found = argparse.ArgumentParser()
    found.add_argument("verb", choices=["serve"])
    found.add_argument("model")
    found.add_argument("--host", default="0.0.0.0")
    found.add_argument("--port", type=int, default=8000)
    given = found.parse_args(words)
    return Place(given.model, "/v1/chat/completions", (given.port, ("/health", "/metrics")))


def python3(words: "list[str]") -> Place:
    if words[:1] == ["-c"]:  # whether it is installed
        sys.exit(0)
    assert words[:2] == ["-m", "sglang.launch_server"], words
    found = argparse.ArgumentParser()
    found.add_argument("--model-path", required=True)
    found.add_argument("--host", default="127.0.0.1")
    found.add_argument("--port", type=int, default=30000)
    found.add_argument("--enable-metrics", action="store_true")
    given = found.parse_args(words[2:])
    paths = ("/health", *(["/metrics"] if given.enable_metrics else []))
    return Place(given.model_path, "/v1/chat/completions", (given.port, paths))


def tritonserver(words: "list[str]") -> Place:
    found = argparse.ArgumentParser()
    found.add_argument("--model-repository", required=True)
    found.add_argument("--http-address", default="0.0.0.0")
    found.add_argument("--http-port", type=int, default=8000)
    found.add_argument("--allow-grpc", choices=["true", "false"], default="true")
    found.add_argument("--allow-metrics", choices=["true", "false"], default="true")
    found.add_argument("--metrics-address", default="0.0.0.0")
    found.add_argument("--metrics-port", type=int, default=8002)
    given = found.parse_args(words)
    assert given.allow_grpc == "false", "8001 is one for all replicas"
    doors = [(given.http_port, ("/v2/health/ready",))]
    doors += [(given.metrics_port, ("/metrics",))] if given.allow_metrics == "true" else []
    return Place(given.model_repository, "/v2/models/model/infer", *doors)


def tensorflow_model_server(words: "list[str]") -> Place:
    found = argparse.ArgumentParser()
    found.add_argument("--port", type=int, default=8500)
    found.add_argument("--rest_api_port", type=int, default=0)
    found.add_argument("--model_name", default="default")
    found.add_argument("--model_base_path", required=True)
    given = found.parse_args(words)
    assert given.port == 0, "8500 is one for all replicas"
    name = "/v1/models/" + given.model_name
    return Place(given.model_base_path, name + ":predict", (given.rest_api_port, (name,)))


def ovms(words: "list[str]") -> Place:
    found = argparse.ArgumentParser()
    found.add_argument("--port", type=int, default=9178)
    found.add_argument("--rest_port", type=int, default=0)
    found.add_argument("--rest_bind_address", default="0.0.0.0")
    found.add_argument("--metrics_enable", action="store_true")
    found.add_argument("--model_name", required=True)
    found.add_argument("--model_path", required=True)
    given = found.parse_args(words)
    assert given.port == 0, "one port is for all replicas"
    more = ["/metrics"] if given.metrics_enable else []
    speaks = f"/v2/models/{given.model_name}/infer"
    return Place(given.model_path, speaks, (given.rest_port, ("/v2/health/ready", *more)))


def torchserve(words: "list[str]") -> Place:
    found = argparse.ArgumentParser()
    for flag in ("--start", "--foreground", "--no-config-snapshots", "--ncs", "--disable-token-auth"):
        found.add_argument(flag, action="store_true")
    found.add_argument("--ts-config", required=True)
    found.add_argument("--model-store", required=True)
    found.add_argument("--models", nargs="+", required=True)
    given = found.parse_args(words)
    with open(given.ts_config) as lines:
        settings = dict(line.strip().split("=", 1) for line in lines)
    assert settings["management_address"].startswith("unix:"), "8081 is one for all replicas"
    ports = [int(settings[name].rpartition(":")[2]) for name in ("inference_address", "metrics_address")]
    [model] = given.models
    name, _, file = model.partition("=")
    assert name == "model"
    doors = ((ports[0], ("/ping",)), (ports[1], ("/metrics",)))
    return Place(os.path.join(given.model_store, file), f"/predictions/{name}", *doors)


def mlserver(words: "list[str]") -> Place:
    assert words[0] == "start" and os.path.isdir(words[1]), words
    assert os.environ["MLSERVER_GRPC_PORT"] != "8081", "it is one for all replicas"
    assert os.environ["MLSERVER_MODEL_IMPLEMENTATION"] == "mlserver_sklearn.SKLearnModel"
    port, figures = (int(os.environ[f"MLSERVER_{name}_PORT"]) for name in ("HTTP", "METRICS"))
    model = os.environ["MLSERVER_MODEL_URI"]
    speaks = f"/v2/models/{os.environ['MLSERVER_MODEL_NAME']}/infer"
    return Place(model, speaks, (port, ("/v2/health/ready",)), (figures, ("/metrics",)))


def sagemaker(words: "list[str]") -> Place:
    assert words == ["serve"], words
    return Place(sys.argv[0], "/invocations", (int(os.environ["SAGEMAKER_BIND_TO_PORT"]), ("/ping",)))


def vertex(words: "list[str]") -> Place:
    assert words == [] and os.environ["AIP_PREDICT_ROUTE"] == "/predict"
    door = (int(os.environ["AIP_HTTP_PORT"]), (os.environ["AIP_HEALTH_ROUTE"],))
    return Place(sys.argv[0], os.environ["AIP_PREDICT_ROUTE"], door)


def pip(words: "list[str]") -> Place:
    print("pip", *words)
    sys.exit(0)


def main() -> None:
    name = sys.argv[1]
    place = globals()[name](sys.argv[2:])
    paths = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = paths[self.server.server_address[1]]
            self.send_response(200 if self.path in known else 404)
            self.send_header("content-length", "0")
            self.end_headers()

        def do_POST(self) -> None:
            is_first = self.server.server_address[1] == place.doors[0][0]
            self.send_response(200 if is_first and self.path == place.speaks else 404)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    for port, known in place.doors:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        paths[server.server_address[1]] = known
        threading.Thread(target=server.serve_forever).start()
    model = os.environ.get("STUB_MODEL", place.model)
    print("model", model, flush=True)


main()
