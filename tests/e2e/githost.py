"""A git host: bare repositories behind git's own http-backend (CGI, RFC 3875), for who shows the right password."""

import asyncio
import base64
import subprocess

from tests.e2e.behaviours import reply
from tests.e2e.product import environment

ALONE = environment(
    GIT_CONFIG_GLOBAL="/dev/null",
    GIT_CONFIG_SYSTEM="/dev/null",
    GIT_TERMINAL_PROMPT="0",
    **{
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "x"), ("EMAIL", "x@x.test"))
    },
)
"""The environment of a git that nobody has configured, and who asks no one."""


def git(*arguments, **options):
    """Run git; what it printed."""
    return subprocess.run(["git", *arguments], capture_output=True, check=True, env=ALONE, **options).stdout


class GitHost:
    """
    Repositories under `folder`, which `serve` plays for an upstream at /script/git/NAME.

    As real hosts do, it answers a request without credentials with a challenge.
    """

    def __init__(self, folder, *, user, password):
        self.folder = folder
        self.wanted = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    def create(self, name, files):
        """A repository with one commit."""
        work, bare = self.folder / f"{name}-work", self.folder / name
        git("init", "--quiet", "--bare", bare)
        git("-C", bare, "config", "http.receivepack", "true")
        git("init", "--quiet", work)
        for path, content in files.items():
            (work / path).write_bytes(content)
        git("-C", work, "add", ".")
        git("-C", work, "commit", "--quiet", "-m", "first")
        git("-C", work, "push", "--quiet", bare, "HEAD:refs/heads/main")
        git("-C", bare, "symbolic-ref", "HEAD", "refs/heads/main")

    def show(self, name, path):
        """The content of a file at the newest commit."""
        return git("-C", self.folder / name, "show", f"HEAD:{path}")

    async def serve(self, exchange):
        """One request."""
        seen = exchange.received
        if seen.values("authorization") != [self.wanted]:
            await reply(exchange, 401, b"", [(b"www-authenticate", b'Basic realm="git"')])
            return
        path, _, query = seen.target.decode().partition("?")
        variables = {
            "GIT_PROJECT_ROOT": str(self.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REMOTE_USER": "somebody",
            "REQUEST_METHOD": seen.method,
            "PATH_INFO": path.removeprefix("/script/git"),
            "QUERY_STRING": query,
            "CONTENT_TYPE": seen.header("content-type") or "",
            "HTTP_CONTENT_ENCODING": seen.header("content-encoding") or "",
            "GIT_PROTOCOL": seen.header("git-protocol") or "",
        }
        # The body was read before and may have come in chunks, so its length is told here.
        variables["CONTENT_LENGTH"] = str(seen.size)
        process = await asyncio.create_subprocess_exec(
            "git", "http-backend", stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ALONE | variables
        )
        output, _ = await process.communicate(seen.body)
        head, _, body = output.partition(b"\r\n\r\n")
        fields = [tuple(line.split(b": ", 1)) for line in head.split(b"\r\n")]
        status = next((value for name, value in fields if name == b"Status"), b"200")
        headers = [(name.lower(), value) for name, value in fields if name != b"Status"]
        await reply(exchange, int(status.split()[0]), body, headers)
