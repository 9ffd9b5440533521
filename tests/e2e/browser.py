"""A real Chromium without JavaScript, driven by ChromeDriver over the WebDriver protocol (W3C), as a person would."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
import urllib.request

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

MISSING = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
"""The programs of Debian's packages chromium and chromium-driver that are not here."""

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_READY = re.compile(r"started successfully on port (\d+)")


def pin(certificate):
    """What Chromium knows a certificate (PEM) by: the digest of its public key."""
    key = x509.load_pem_x509_certificate(certificate).public_key()
    return base64.b64encode(
        hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    ).decode()


class Browser:
    """One window, whose traffic goes through `proxy`; it trusts what is issued by the CA `ca` (PEM). Lives in `folder`."""

    def __init__(self, folder, *, proxy, ca):
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "LANG": "C.UTF-8"}
        self._driver = subprocess.Popen(
            ["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
        )
        try:
            ready = next(filter(None, map(_READY.search, self._driver.stdout)))
            self._url = f"http://127.0.0.1:{ready[1]}"
            session = self._call("POST", "/session", capabilities={"alwaysMatch": _capabilities(folder, proxy, ca)})
        except BaseException:
            self._driver.kill()
            raise
        self._url += f"/session/{session['sessionId']}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self._call("DELETE", "")
        finally:
            self._driver.terminate()
            self._driver.wait(20)
            self._driver.stdout.close()

    def open(self, url):
        self._call("POST", "/url", url=url)

    def click(self, selector):
        """A click with the mouse on the one element."""
        self._call("POST", f"/element/{self._find(selector)}/click")

    def enter(self, selector):
        """Go on inside of a frame, until another page is opened."""
        self._call("POST", "/frame", id={_ELEMENT: self._find(selector)})

    def text(self, selector="body"):
        """What a person can read there."""
        return self._call("GET", f"/element/{self._find(selector)}/text")

    def style(self, selector, name):
        """A computed property of CSS."""
        return self._call("GET", f"/element/{self._find(selector)}/css/{name}")

    @property
    def url(self):
        return self._call("GET", "/url")

    @property
    def source(self):
        return self._call("GET", "/source")

    @property
    def title(self):
        return self._call("GET", "/title")

    def _find(self, selector):
        return self._call("POST", "/element", using="css selector", value=selector)[_ELEMENT]

    def _call(self, method, path, **body):
        data = json.dumps(body).encode() if method == "POST" else None
        request = urllib.request.Request(self._url + path, data=data, method=method)
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request, timeout=60) as answer:
            return json.load(answer)["value"]


def _capabilities(folder, proxy, ca):
    arguments = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps",
        f"--user-data-dir={folder / 'profile'}", f"--proxy-server={proxy}", "--proxy-bypass-list=<-loopback>",
        f"--ignore-certificate-errors-spki-list={pin(ca)}",
    ]  # fmt: skip
    preferences = {"profile.managed_default_content_settings.javascript": 2}
    return {"browserName": "chrome", "goog:chromeOptions": {"args": arguments, "prefs": preferences}}
