"""
The schema of vault.db, as appended, named steps (sqlite-utils migrations). A step never changes once it has shipped.

Authorization rows hold no counters and no plaintext: what a request uses up lives elsewhere, and a value exists only as
`versions.payload` with its `wraps` (see seal.py). `destinations` repeats the hosts of the sealed bindings so that a new
tunnel can be recognised by one indexed read; it never authorises anything. `idps.keys` is a key set, or a shared secret
sealed with its `idp_wraps`; a removed provider keeps its name, so that no other can take over its users. `group_proofs`
is what the newest token of a user said about a group, written by the proxy. `policies` narrow whatever row they stand in;
those of `meta`, the whole vault. `consents` are questions to users, each until it is answered; `approvers` are callers that may decide about approvals. Times are seconds since the epoch, UTC.
"""

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from addon.errors import Locked

MIGRATIONS = Migrations("alter_egress")


@MIGRATIONS(name="0001_secrets_callers_grants")
def _first(db: Database) -> None:
    for statement in _FIRST.split(";\n\n"):
        db.conn.execute(statement)


_FIRST = """
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE recipients (
    kid        TEXT PRIMARY KEY,
    suite      INTEGER NOT NULL,
    public     BLOB NOT NULL,
    created_at REAL NOT NULL,
    retired_at REAL
) STRICT;

CREATE TABLE secrets (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    kind       TEXT NOT NULL,
    provider   TEXT NOT NULL DEFAULT '',
    note       TEXT NOT NULL DEFAULT '',
    state      TEXT NOT NULL CHECK (state IN ('active', 'disabled')),
    current    INTEGER NOT NULL,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL
) STRICT;

CREATE TABLE versions (
    secret_id   TEXT NOT NULL REFERENCES secrets (id) ON DELETE CASCADE,
    version     INTEGER NOT NULL,
    binding     BLOB NOT NULL,
    payload     BLOB NOT NULL,
    created_at  REAL NOT NULL,
    destroys_at REAL,
    PRIMARY KEY (secret_id, version)
) STRICT;

CREATE TABLE wraps (
    secret_id TEXT NOT NULL,
    version   INTEGER NOT NULL,
    kid       TEXT NOT NULL,
    suite     INTEGER NOT NULL,
    wrapped   BLOB NOT NULL,
    PRIMARY KEY (secret_id, version, kid),
    FOREIGN KEY (secret_id, version) REFERENCES versions (secret_id, version) ON DELETE CASCADE
) STRICT;

CREATE TABLE destinations (
    secret_id TEXT NOT NULL,
    version   INTEGER NOT NULL,
    pattern   TEXT NOT NULL,
    port      INTEGER NOT NULL,
    private   INTEGER NOT NULL,
    PRIMARY KEY (pattern, port, secret_id, version),
    FOREIGN KEY (secret_id, version) REFERENCES versions (secret_id, version) ON DELETE CASCADE
) STRICT;

CREATE TABLE callers (
    id         TEXT PRIMARY KEY,
    type       TEXT NOT NULL CHECK (type IN ('app', 'agent')),
    name       TEXT NOT NULL,
    state      TEXT NOT NULL CHECK (state IN ('active', 'disabled')),
    cidrs      TEXT NOT NULL DEFAULT '[]',
    created_at REAL NOT NULL,
    UNIQUE (type, name)
) STRICT;

CREATE TABLE keys (
    id         TEXT PRIMARY KEY,
    caller_id  TEXT NOT NULL REFERENCES callers (id),
    type       TEXT NOT NULL CHECK (type IN ('app', 'agt', 'run')),
    digest     BLOB NOT NULL UNIQUE,
    grants     TEXT NOT NULL DEFAULT '[]',
    created_at REAL NOT NULL,
    expires_at REAL,
    revoked_at REAL
) STRICT;

CREATE TABLE grants (
    id         TEXT PRIMARY KEY,
    secret_id  TEXT NOT NULL REFERENCES secrets (id) ON DELETE CASCADE,
    principal  TEXT NOT NULL,
    label      TEXT NOT NULL DEFAULT '',
    policies   TEXT NOT NULL DEFAULT '[]',
    created_at REAL NOT NULL,
    expires_at REAL,
    revoked_at REAL,
    revoked_reason TEXT NOT NULL DEFAULT ''
) STRICT;

CREATE INDEX grants_by_secret ON grants (secret_id);

CREATE INDEX grants_by_principal ON grants (principal);

CREATE TABLE admin_log (
    seq     INTEGER PRIMARY KEY,
    at      REAL NOT NULL,
    actor   TEXT NOT NULL,
    action  TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail  TEXT NOT NULL,
    hash    BLOB NOT NULL
) STRICT
"""


@MIGRATIONS(name="0002_identity")
def _identity(db: Database) -> None:
    for statement in _IDENTITY.split(";\n\n"):
        db.conn.execute(statement)


_IDENTITY = """
CREATE TABLE idps (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    issuer     TEXT NOT NULL,
    rules      TEXT NOT NULL,
    keys       BLOB,
    revision   INTEGER NOT NULL,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    removed_at REAL
) STRICT;

CREATE UNIQUE INDEX idps_by_issuer ON idps (issuer) WHERE removed_at IS NULL;

CREATE TABLE idp_wraps (
    idp_id  TEXT NOT NULL REFERENCES idps (id) ON DELETE CASCADE,
    kid     TEXT NOT NULL,
    suite   INTEGER NOT NULL,
    wrapped BLOB NOT NULL,
    PRIMARY KEY (idp_id, kid)
) STRICT;

ALTER TABLE grants ADD COLUMN delegable INTEGER NOT NULL DEFAULT 0 CHECK (delegable IN (0, 1));

ALTER TABLE grants ADD COLUMN delegation_seconds REAL;

ALTER TABLE grants ADD COLUMN proof_seconds REAL NOT NULL DEFAULT 86400;

CREATE TABLE delegations (
    id             TEXT PRIMARY KEY,
    grant_id       TEXT NOT NULL REFERENCES grants (id) ON DELETE CASCADE,
    agent_id       TEXT NOT NULL REFERENCES callers (id),
    idp            TEXT NOT NULL REFERENCES idps (name),
    subject        TEXT NOT NULL,
    token_id       TEXT NOT NULL,
    token_at       REAL NOT NULL,
    created_at     REAL NOT NULL,
    expires_at     REAL NOT NULL,
    revoked_at     REAL,
    revoked_by     TEXT NOT NULL DEFAULT '',
    revoked_reason TEXT NOT NULL DEFAULT ''
) STRICT;

CREATE INDEX delegations_by_grant ON delegations (grant_id);

CREATE INDEX delegations_by_user ON delegations (idp, subject);

CREATE TABLE group_proofs (
    idp       TEXT NOT NULL,
    subject   TEXT NOT NULL,
    name      TEXT NOT NULL,
    member    INTEGER NOT NULL CHECK (member IN (0, 1)),
    proven_at REAL NOT NULL,
    PRIMARY KEY (idp, subject, name)
) STRICT
"""


@MIGRATIONS(name="0003_policies")
def _policies(db: Database) -> None:
    for statement in _POLICIES.split(";\n\n"):
        db.conn.execute(statement)


_POLICIES = """
ALTER TABLE secrets ADD COLUMN policies TEXT NOT NULL DEFAULT '[]';

ALTER TABLE callers ADD COLUMN policies TEXT NOT NULL DEFAULT '[]';

ALTER TABLE delegations ADD COLUMN policies TEXT NOT NULL DEFAULT '[]';

INSERT INTO meta (name, value) VALUES ('policies', '[]')
"""


@MIGRATIONS(name="0004_consents")
def _consents(db: Database) -> None:
    db.conn.execute(_CONSENTS)


_CONSENTS = """
CREATE TABLE consents (
    digest           BLOB PRIMARY KEY,
    id               TEXT NOT NULL UNIQUE,
    key_id           TEXT NOT NULL REFERENCES keys (id),
    grant_id         TEXT NOT NULL REFERENCES grants (id) ON DELETE CASCADE,
    agent_id         TEXT NOT NULL REFERENCES callers (id),
    idp              TEXT NOT NULL REFERENCES idps (name),
    subject          TEXT NOT NULL,
    groups           TEXT NOT NULL,
    issuer           TEXT NOT NULL,
    token_id         TEXT NOT NULL,
    token_at         REAL NOT NULL,
    token_expires_at REAL NOT NULL,
    ttl_seconds      REAL NOT NULL,
    return_to        TEXT NOT NULL,
    expires_at       REAL NOT NULL
) STRICT
"""


@MIGRATIONS(name="0005_approvals")
def _approvals(db: Database) -> None:
    for statement in _APPROVALS.split(";\n\n"):
        db.conn.execute(statement)


_APPROVALS = """
CREATE TABLE approvals (
    id             TEXT PRIMARY KEY,
    grant_id       TEXT NOT NULL REFERENCES grants (id) ON DELETE CASCADE,
    tag            TEXT NOT NULL,
    caller         TEXT NOT NULL,
    user           TEXT NOT NULL,
    method         TEXT NOT NULL,
    host           TEXT NOT NULL,
    port           INTEGER NOT NULL,
    path           TEXT NOT NULL,
    body_sha256    TEXT NOT NULL,
    reason         TEXT NOT NULL,
    digest         TEXT NOT NULL,
    created_at     REAL NOT NULL,
    expires_at     REAL NOT NULL,
    decision       TEXT NOT NULL DEFAULT '' CHECK (decision IN ('', 'approved', 'denied')),
    decided_at     REAL,
    decided_by     TEXT NOT NULL DEFAULT '',
    decided_reason TEXT NOT NULL DEFAULT '',
    lasts_until    REAL,
    prefix         TEXT NOT NULL DEFAULT '',
    used_at        REAL
) STRICT;

CREATE INDEX approvals_by_caller ON approvals (caller, decision)
"""


@MIGRATIONS(name="0006_approvers")
def _approvers(db: Database) -> None:
    db.conn.execute(_APPROVERS)


_APPROVERS = """
CREATE TABLE approvers (
    caller_id TEXT PRIMARY KEY REFERENCES callers (id),
    added_at  REAL NOT NULL
) STRICT
"""


def missing(db: Database) -> tuple[str, ...]:
    """The steps that have not been applied, in order. Raises Locked for what is no vault, or of a newer format."""
    known = [step.name for step in MIGRATIONS._migrations]  # noqa: SLF001  sqlite-utils offers no public list
    applied = {step.name for step in MIGRATIONS.applied(db)}
    if not applied:
        raise Locked("this is not a vault", hint="name the folder of a vault with --home, or restore a backup")
    if applied - set(known):
        raise Locked(
            "the vault has a newer format than this software",
            hint="upgrade alter-egress here; an old version must not guess what the new parts restrict",
        )
    return tuple(name for name in known if name not in applied)


def check(db: Database) -> None:
    """Raises Locked when the vault was written by newer software, or needs `vaultctl migrate`."""
    if missing(db):
        raise Locked("the vault has an older format", hint="bring it up to date with `vaultctl migrate`")
