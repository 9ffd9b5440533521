"""git over HTTPS: a private repository is cloned and pushed to, by a git that holds no password."""

import os
import subprocess

import pytest

from tests.e2e.githost import ALONE, GitHost, git
from tests.e2e.stage import HOSTS, VALUES

HOST = HOSTS["basic"]
PASSWORD = VALUES["basic"]["password"]
LARGE = os.urandom(700_000)


def by_hand(stage):
    """What a user sets for git."""
    proxy = {"HTTPS_PROXY": stage.proxy.url(*stage.caller), "GIT_HTTP_PROXY_AUTHMETHOD": "basic"}
    return ALONE | proxy | {"GIT_SSL_CAINFO": str(stage.proxy.ca)}


@pytest.fixture
def host(upstream, tmp_path):
    """A git host with the private repository `repo.git`."""
    host = GitHost(tmp_path / "host", **VALUES["basic"])
    host.folder.mkdir()
    host.create("repo.git", {"README": b"private\n", "large": LARGE})
    upstream.scripts["git"] = host.serve
    return host


@pytest.fixture(params=["placeholder", "session"])
def remote(request, stage, host, tmp_path):
    """`remote(*arguments)`: git in a folder of its own; and the URL that it is given."""

    def remote(*arguments):
        command = ["git", *map(str, arguments)]
        if request.param == "session":
            session = ["run", "--grant", stage.grants["basic"], "--proxy", stage.proxy.address, "--"]
            return stage.vaultctl(*session, *command, **{name: ALONE[name] for name in ALONE if "GIT" in name})
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, env=by_hand(stage), cwd=tmp_path
        )  # fmt: skip

    user = "" if request.param == "session" else f"anyone:alter_grant_{stage.grants['basic']}@"
    remote.url = f"https://{user}{HOST}/script/git/repo.git"
    return remote


def test_a_private_repository_is_cloned_and_pushed_to(remote, host, upstream, tmp_path):
    clone = tmp_path / "clone"
    done = remote("clone", "--quiet", remote.url, clone)
    assert done.returncode == 0, done.stderr
    assert (clone / "README").read_bytes() == b"private\n"
    assert (clone / "large").read_bytes() == LARGE
    (clone / "README").write_bytes(b"changed\n")
    git("-C", clone, "commit", "--quiet", "--all", "-m", "second")
    pushed = remote("-C", clone, "-c", "http.postBuffer=65536", "push", "--quiet")
    assert pushed.returncode == 0, pushed.stderr
    assert host.show("repo.git", "README") == b"changed\n"
    held = done.stdout + done.stderr + pushed.stdout + pushed.stderr + (clone / ".git" / "config").read_text()
    assert PASSWORD not in held
    assert host.wanted not in held
    # What came without the credential is git's first try, which it makes before it is asked for one.
    assert {tuple(seen.values("authorization")) for seen in upstream.seen()} <= {(), (host.wanted,)}
    assert not [name for seen in upstream.seen() for name, _ in seen.headers if name.lower().startswith(b"x-alter")]


def test_a_password_of_its_own_opens_nothing(stage, host, tmp_path):
    done = subprocess.run(
        ["git", "clone", f"https://anyone:else@{HOST}/script/git/repo.git", tmp_path / "clone"],
        capture_output=True, text=True, timeout=60, check=False, env=by_hand(stage),
    )  # fmt: skip
    assert done.returncode == 128
    assert "Authentication failed" in done.stderr
