"""
The policies of the vault as a whole, of an app or agent, of a secret and of a delegation. Those of a grant are its own.

Each stands in the row it narrows, so that it is read with it and goes when the row goes.
"""

from sqlite_utils import Database

from addon import policies
from addon.errors import Fault, NotFound
from addon.policies import Policies
from addon.vault import log
from addon.vault.database import query, write

_READ = {
    "vault": "SELECT value FROM meta WHERE name = 'policies' AND :name = ''",
    "app": "SELECT policies FROM callers WHERE type = 'app' AND name = :name",
    "agent": "SELECT policies FROM callers WHERE type = 'agent' AND name = :name",
    "secret": "SELECT policies FROM secrets WHERE name = :name",
    "delegation": "SELECT policies FROM delegations WHERE id = :name",
}
_WRITE = {
    "vault": "UPDATE meta SET value = :rules WHERE name = 'policies' AND :name = ''",
    "app": "UPDATE callers SET policies = :rules WHERE type = 'app' AND name = :name",
    "agent": "UPDATE callers SET policies = :rules WHERE type = 'agent' AND name = :name",
    "secret": "UPDATE secrets SET policies = :rules WHERE name = :name",
    "delegation": "UPDATE delegations SET policies = :rules WHERE id = :name",
}

LAYERS = tuple(_READ)


class Layers:
    """The policies of every layer but the grant. `name` is empty for the vault, and the id of a delegation."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, layer: str, name: str) -> Policies:
        """Raises NotFound, or Fault for what cannot be read."""
        return policies.load(self.stored(layer, name))

    def stored(self, layer: str, name: str) -> str:
        """The same as it is stored. Raises NotFound."""
        statement = _READ[layer]
        rows = query(self._database, statement, {"name": name})
        if not rows:
            raise _missing(layer, name)
        return str(rows[0][0])

    def put(self, layer: str, name: str, rules: Policies, *, now: float) -> None:
        """Replace the policies of one layer, from the next request on. Raises NotFound."""
        statement = _WRITE[layer]
        with write(self._database) as connection:
            text = policies.dump(rules)
            if connection.execute(statement, {"rules": text, "name": name}).rowcount != 1:
                raise _missing(layer, name)
            kinds = [tag for tag, _ in rules]
            log.append(connection, at=now, action="policy.set", subject=f"{layer}:{name}", kinds=kinds, rules=text)


def _missing(layer: str, name: str) -> NotFound | Fault:
    if layer == "vault":
        return Fault("vault_unavailable", "the vault has lost its policies")
    return NotFound(f"no {layer} named {name}", hint=f"`vaultctl {layer} list` shows what there is")
