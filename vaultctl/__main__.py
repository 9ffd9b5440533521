"""`python -m vaultctl`."""

from vaultctl.cli import main

main()
