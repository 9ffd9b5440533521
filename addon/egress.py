"""
For people who live in mitmproxy: `mitmdump -s addon/egress.py`, with the vault's folder in `ALTER_HOME`.

mitmdump reloads a script that is edited and unloads one that is deleted, and then goes on forwarding. The verdict demanded
by `hardening` outlives the script, so what remains refuses; still, `alter-egress` is the one to run in production.
"""

from addon.script import ScriptEgress

addons = [ScriptEgress()]
