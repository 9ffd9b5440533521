"""Names and folders: what the layout of the product promises."""

import ast
import importlib
import pkgutil
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import addon
from addon import credentials, policies, principals

FOLDER = Path(addon.__file__).parent


def dependencies(name, *, extras=(), seen=None):
    """The distributions that installing `name` brings along, by name."""
    seen = set() if seen is None else seen
    for text in metadata.requires(name) or ():
        required = Requirement(text)
        wanted = required.marker is None or any(required.marker.evaluate({"extra": extra}) for extra in ("", *extras))
        if wanted and canonicalize_name(required.name) not in seen:
            seen.add(canonicalize_name(required.name))
            dependencies(required.name, extras=required.extras, seen=seen)
    return seen


def test_no_file_of_the_addon_stands_in_front_of_a_module_of_python_or_of_a_dependency():
    """`mitmdump -s addon/egress.py` puts the folder on the path before everything else."""
    stems = {path.stem for path in FOLDER.glob("*.py")} | {path.name for path in FOLDER.iterdir() if path.is_dir()}
    stems -= {"__init__", "__pycache__"}
    needed = dependencies("alter-egress")
    assert {"mitmproxy", "cryptography", "sqlite-utils", "pyjwt", "botocore", "click", "urllib3"} <= needed
    taken = {
        module
        for module, owners in metadata.packages_distributions().items()
        if needed & {canonicalize_name(owner) for owner in owners}
    }
    assert {"mitmproxy", "sqlite_utils", "jwt"} <= taken
    assert stems & sys.stdlib_module_names == set()
    assert stems & taken == set()


@pytest.mark.parametrize("package", [credentials, policies, principals], ids=lambda package: package.__name__)
def test_every_kind_is_registered_once(package):
    kinds = [
        module.KIND
        for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
        if hasattr(module := importlib.import_module(found.name), "KIND")
    ]
    assert len(kinds) > 1
    assert {kind.tag: kind for kind in kinds} == package.KINDS


MODULES = sorted(FOLDER.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_no_check_of_the_product_is_an_assertion(path):
    """It runs under `python -O`, which leaves them out."""
    found = [
        node.lineno for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Assert)
    ]
    assert found == []


BACKGROUND = {"web.py"}
"""Fetches what the kernel reads later, and has to give up some time."""
KERNEL = ["binding", "callers", "context", "credentials", "destination", "hosts", "pipeline", "policies", "principals", "tag",
          "vault", "network", "redaction"]  # fmt: skip
CLOCKS = {"time", "monotonic", "now", "utcnow", "today", "perf_counter"}


@pytest.mark.parametrize("path", [p for p in MODULES if p.relative_to(FOLDER).parts[0].removesuffix(".py") in KERNEL and p.name not in BACKGROUND], ids=lambda p: str(p.relative_to(FOLDER)))  # fmt: skip
def test_the_kernel_never_reads_the_clock(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    clocks = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in {"time", "datetime", "date"}
        and node.func.attr in CLOCKS
    ]
    assert clocks == []


def sql_calls(tree):
    """The first argument of everything that executes SQL."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            if node.func.attr in {"execute", "executemany", "executescript"}:
                yield node.args[0]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "query":
            yield node.args[1]


def fixed(node):
    """Whether text is made of literals and module constants alone (or is a pragma, which takes no parameters)."""
    if isinstance(node, ast.JoinedStr):
        first = node.values[0]
        if isinstance(first, ast.Constant) and first.value.startswith("PRAGMA "):
            return True
        return all(fixed(part.value if isinstance(part, ast.FormattedValue) else part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return fixed(node.left) and fixed(node.right)
    return isinstance(node, ast.Constant) or (
        isinstance(node, ast.Name) and (node.id.isupper() or node.id in PASSED_ON)
    )


PASSED_ON = {"sql", "statement", "condition"}
"""What the few functions that execute what they are given call it."""


@pytest.mark.parametrize("path", sorted((FOLDER / "vault").glob("*.py")), ids=lambda path: path.name)
def test_no_statement_is_put_together_from_values(path):
    for argument in sql_calls(ast.parse(path.read_text(encoding="utf-8"))):
        assert fixed(argument), ast.unparse(argument)
