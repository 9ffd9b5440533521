"""The vault: sealed secrets, callers and grants, in one file behind one class."""

from addon.vault.vault import Vault

__all__ = ["Vault"]
