"""A webhook receiver as a user would write one: checks the signature, drops repetitions, keeps the rest.

Runs alone in a pod: nothing but the standard library. `WEBHOOK_SECRET` is whsec_…; what was told is in
/data/told, one JSON document a line.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

_TOLD = Path("/data/told")
_KEY = base64.b64decode(os.environ["WEBHOOK_SECRET"].removeprefix("whsec_"))
_known: set[str] = set()


class _Receiver(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Say that we are there."""
        self._answer(204)

    def do_POST(self) -> None:
        """Keep a notification whose signature is right."""
        body = self.rfile.read(int(self.headers["content-length"]))
        if not self._is_genuine(body):
            self._answer(401)
            return
        if self.headers["webhook-id"] not in _known:
            _known.add(self.headers["webhook-id"])
            with _TOLD.open("ab") as file:
                file.write(body + b"\n")
        self._answer(204)

    def _is_genuine(self, body: bytes) -> bool:
        moment = self.headers["webhook-timestamp"]
        content = b".".join((self.headers["webhook-id"].encode(), moment.encode(), body))
        expected = base64.b64encode(hmac.new(_KEY, content, hashlib.sha256).digest()).decode()
        good = hmac.compare_digest(self.headers["webhook-signature"], f"v1,{expected}")
        return good and abs(time.time() - int(moment)) < 300

    def _answer(self, code: int) -> None:
        self.send_response(code)
        self.end_headers()


_TOLD.touch()
HTTPServer(("", 8080), _Receiver).serve_forever()
