"""A vault with a story: app `billing` holds a grant for the secret `stripe`, agent `helper` one for `openai`."""

from dataclasses import dataclass, field

import hypothesis
import pytest

from addon.binding import Binding
from addon.model import Request
from addon.pipeline import authorize
from addon.vault import Vault
from addon.vault.keyring import Keyring

# A busy machine is no defect: no test here asserts a time.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

NOW = 1_800_000_000.0
CANARY = "sk_live_canary_4f9a1c"


@dataclass
class Story:
    """An open vault, as the proxy sees it, with keys and grant ids by name."""

    vault: Vault
    now: float = NOW
    canary: str = CANARY
    keys: dict[str, str] = field(default_factory=dict)
    grants: dict[str, str] = field(default_factory=dict)

    def request(
        self, *, grant="stripe", caller="billing", url="https://api.stripe.test/v1/charges", **changes
    ) -> Request:
        """A well-formed tagged request; `changes` replace fields of the Request, `headers` are added."""
        scheme, _, rest = url.partition("://")
        host, slash, path = rest.partition("/")
        name, _, port = host.partition(":")
        headers = [(b"Host", host.encode())]
        if grant is not None:
            headers.append((b"X-Alter-Grant", self.grants.get(grant, grant).encode()))
        if caller is not None:
            headers.append((b"X-Alter-Key", self.keys.get(caller, caller).encode()))
        headers += changes.pop("headers", [])
        fields = {
            "id": "request-1",
            "scheme": scheme,
            "host": name,
            "port": int(port or 443),
            "method": "GET",
            "target": (slash + path).encode() or b"/",
            "headers": tuple(headers),
            "authorities": (host.encode(),),
            "sni": name,
            "client_ip": "127.0.0.1",
        }
        return Request(**(fields | changes))

    def decide(self, request: Request | None = None, *, later=0.0, **changes):
        """What the pipeline makes of a request, `later` seconds after the story began."""
        return authorize(request or self.request(**changes), vault=self.vault, now=self.now + later)


@pytest.fixture
def story(tmp_path) -> Story:
    home = tmp_path / "home"
    Vault.create(home, now=NOW).close()
    vault = Vault.connect(home, keyring=Keyring.load(home / "proxy.key"))
    vault.secrets.put(
        "stripe", kind="bearer", binding=Binding(hosts=(("api.stripe.test", 443),)), values={"token": CANARY}, now=NOW
    )
    vault.secrets.put(
        "openai",
        kind="bearer",
        binding=Binding(hosts=(("api.openai.test", 443),), methods=("GET", "POST"), paths=("/v1/",)),
        values={"token": "sk-openai-canary-77"},
        now=NOW,
    )
    story = Story(vault)
    _, story.keys["billing"] = vault.callers.create("app", "billing", cidrs=(), now=NOW)
    _, story.keys["other"] = vault.callers.create("app", "other", cidrs=(), now=NOW)
    _, story.keys["helper"] = vault.callers.create("agent", "helper", cidrs=(), now=NOW)
    story.grants["stripe"] = vault.grants.issue("stripe", principal="system:billing", now=NOW).id
    story.grants["openai"] = vault.grants.issue("openai", principal="agent:helper", now=NOW).id
    yield story
    vault.close()
