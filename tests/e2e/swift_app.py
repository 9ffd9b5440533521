"""
OpenStack Swift with its S3 interface, whole, in one process. Run by the Python of a venv that has `swift`:

    python swift_app.py FOLDER KEYS_JSON [CERTIFICATE_AND_KEY_PEM]

FOLDER takes its data and needs user extended attributes. KEYS_JSON is {access key id: [secret key, session token or
null]}. It prints its port on 127.0.0.1 in one line and serves until it is killed. Region us-east-1; buckets by path, or
by virtual host under s3.us-east-1.amazonaws.com and s3.amazonaws.com.
"""

import eventlet

eventlet.monkey_patch()

import json
import sys
from pathlib import Path

import eventlet.wsgi
from swift.account.server import AccountController
from swift.common import storage_policy, utils
from swift.common.http_protocol import SwiftHttpProtocol
from swift.common.middleware import catch_errors, copy, gatekeeper, listing_formats, slo
from swift.common.middleware.s3api import s3api
from swift.common.ring import RingBuilder
from swift.common.swob import HTTPUnauthorized
from swift.container.server import ContainerController
from swift.obj.server import ObjectController
from swift.proxy.server import Application

REGION = "us-east-1"


class Keys:
    """The authorisation step of the pipeline: Swift's S3 code computes signatures, this decides whose secret counts."""

    def __init__(self, app, keys):
        self.app, self.keys = app, keys

    def __call__(self, environ, start_response):
        if environ.get("swift.authorize_override"):  # asked by Swift itself
            return self.app(environ, start_response)
        claim = environ.get("s3api.auth_details")
        environ["swift.authorize"] = self.deny
        if claim and claim["access_key"] in self.keys:
            secret, token = self.keys[claim["access_key"]]
            if environ.get("HTTP_X_AMZ_SECURITY_TOKEN") == token and claim["check_signature"](secret):
                # Every key leads to one account.
                environ["PATH_INFO"] = environ["PATH_INFO"].replace(claim["access_key"], "AUTH_test", 1)
                environ |= {"REMOTE_USER": "AUTH_test", "swift_owner": True, "swift.authorize": lambda request: None}
        return self.app(environ, start_response)

    @staticmethod
    def deny(request):
        return HTTPUnauthorized(request=request)


def serve_backends(folder):
    """Account, container and object server, each on a port of its own, with a ring that names it."""
    settings = {"devices": str(folder / "disks"), "swift_dir": str(folder), "mount_check": "false"}
    kinds = {"account": AccountController, "container": ContainerController, "object": ObjectController}
    for kind, controller in kinds.items():
        listener = eventlet.listen(("127.0.0.1", 0))
        address = {"ip": "127.0.0.1", "port": listener.getsockname()[1]}
        replication = {f"replication_{name}": value for name, value in address.items()}
        builder = RingBuilder(1, 1, 0)
        place = {"id": 0, "region": 1, "zone": 1, "device": "disk", "weight": 1.0, "meta": ""}
        builder.add_dev(place | address | replication)
        builder.rebalance()
        builder.get_ring().save(str(folder / f"{kind}.ring.gz"))
        eventlet.spawn(serve, listener, controller(settings))


def make_pipeline(folder, keys):
    """The S3 interface over the proxy server, without a configuration file."""
    app = Application({"swift_dir": str(folder), "account_autocreate": "true", "allow_account_management": "true"})
    settings = {
        "location": REGION,
        "storage_domain": f"s3.{REGION}.amazonaws.com,s3.amazonaws.com",
        "min_segment_size": "1024",
    }
    app = slo.filter_factory({}, minimum_segment_size="1")(app)
    app = copy.filter_factory({})(app)
    app = Keys(app, keys)
    app = s3api.filter_factory({}, **settings)(app)
    app = listing_formats.filter_factory({})(app)
    app = gatekeeper.filter_factory({})(app)
    return catch_errors.filter_factory({})(app)


def serve(listener, app):
    eventlet.wsgi.server(listener, app, log_output=False, protocol=SwiftHttpProtocol, capitalize_response_headers=False)


def main(folder, keys, identity=None):
    folder = Path(folder)
    (folder / "disks" / "disk").mkdir(parents=True)
    settings = folder / "swift.conf"
    settings.write_text(
        "[swift-hash]\nswift_hash_path_prefix = a\nswift_hash_path_suffix = b\n"
        "[storage-policy:0]\nname = only\ndefault = yes\n"
    )
    utils.SWIFT_CONF_FILE = utils.config.SWIFT_CONF_FILE = str(settings)
    utils.validate_hash_conf()
    storage_policy.reload_storage_policies()
    serve_backends(folder)
    app = make_pipeline(folder, json.loads(keys))
    listener = eventlet.listen(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    if identity:
        listener = eventlet.wrap_ssl(listener, certfile=identity, keyfile=identity, server_side=True)
    serve(listener, app)


if __name__ == "__main__":
    main(*sys.argv[1:])
