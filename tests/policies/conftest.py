"""One attempt to judge, as changed as a test likes."""

import pytest

from addon.model import Caller, Request
from addon.policies.policy import Attempt


@pytest.fixture(scope="session")
def attempt():
    def make(*, now=0.0, **changes):
        fields = {
            "id": "r", "scheme": "https", "host": "api.test", "port": 443, "method": "GET", "target": b"/v1/things",
            "headers": (), "authorities": (b"api.test",), "sni": None, "client_ip": "127.0.0.1",
        }  # fmt: skip
        caller = Caller(type="app", name="billing", key_id="key_1")
        return Attempt(request=Request(**(fields | changes)), caller=caller, now=now)

    return make
