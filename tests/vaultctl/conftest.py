"""One vault made once, copied for each test; and `vaultctl` called the way a shell calls it, without the shell."""

import json
import shutil
from dataclasses import dataclass

import pytest
from click.testing import CliRunner

from vaultctl.cli import main

CANARY = "sk_live_51CanaryCanaryCanaryCanary"


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def error(self):
        """The two lines of a failure, checked for their form."""
        lines = self.err.splitlines()[-2:]
        assert [line.split(":")[0] for line in lines] == ["error", "hint"], self.err
        return lines[0].removeprefix("error: ")


def call(*args, input=None):  # noqa: A002  click's word
    result = CliRunner().invoke(main, args, input=input)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert "Traceback" not in result.output
    return Ran(result.exit_code, result.stdout, result.stderr)


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    home = tmp_path_factory.mktemp("template") / "home"
    assert call("init", "--home", str(home)).code == 0
    return home


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path):
    """No test sees the operator's own vault, proxy or home."""
    for name in ("ALTER_PROXY", "XDG_DATA_HOME", "SSL_CERT_FILE", "WGETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ALTER_HOME", str(tmp_path / "home"))


@pytest.fixture
def home(template, tmp_path):
    return shutil.copytree(template, tmp_path / "home", copy_function=shutil.copy2)


@pytest.fixture
def bare():
    """vaultctl where there is no vault."""
    return call


@pytest.fixture
def cli(home):
    """vaultctl with a fresh vault."""
    return call


@pytest.fixture
def canary():
    return CANARY


@pytest.fixture
def stripe(cli):
    """A secret, an app and a grant; gives the grant id."""
    assert cli("secret", "set", "stripe", "--provider", "stripe", input=CANARY + "\n").code == 0
    assert cli("app", "create", "billing").code == 0
    ran = cli("grant", "issue", "stripe", "--to", "system:billing")
    assert ran.code == 0
    return ran.out.strip()
