"""A policy behind HTTP: each request is answered by a thread of its own, and all of them call one policy.

`python examples/serve.py run/` serves the policy that is stored there, on this machine alone:
`curl -d '{"observation": [0.0, 0.1, 0.0, -0.1]}' localhost:8000` answers `{"action": 1}`.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

import policysmith

LARGEST = 1 << 20  # bytes of a request: without a limit one caller could fill the memory


class Handler(BaseHTTPRequestHandler):
    """Takes an observation, or a batch of them, as JSON; answers with as many actions."""

    protocol_version = "HTTP/1.1"  # keeps the connection for the next request
    timeout = 30  # seconds: a caller who sends nothing does not hold a thread for ever

    def do_POST(self):
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > LARGEST:
            self.close_connection = True  # what follows was not read, and is no request
            return self.answer(413, {"error": f"give a Content-Length of at most {LARGEST} bytes"})
        try:
            observation = as_arrays(json.loads(self.rfile.read(int(length)))["observation"])
            action, _ = self.server.policy.predict(observation)
        except (ValueError, TypeError, KeyError, policysmith.errors.PolicysmithError) as error:
            return self.answer(400, {"error": f"{type(error).__name__}: {error}"})
        self.answer(200, {"action": np.asarray(action).tolist()})

    def answer(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def as_arrays(found):
    """Lists as arrays; those of a mapping, which a Dict space has, under their names."""
    return {k: as_arrays(v) for k, v in found.items()} if isinstance(found, dict) else np.asarray(found, np.float32)


def make_server(policy, port=8000):
    """A server on the loopback interface; port 0 takes a free one."""
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.policy = policy.eval()
    return server


if __name__ == "__main__":
    make_server(policysmith.load(sys.argv[1])).serve_forever()
