"""Every command and every option is in docs/cli.md, and nothing else is."""

import re
from pathlib import Path

import click
import pytest

from addon import errors
from vaultctl import cli

TEXT = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
SECTIONS = dict(zip(*[iter(re.split(r"^### `(vaultctl [^`]+)`$", TEXT, flags=re.MULTILINE)[1:])] * 2, strict=True))
SHARED = {"--home", "--json", "--help"}


def walk(group, words):
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from walk(command, f"{words} {name}")
        else:
            yield f"{words} {name}", command


COMMANDS = dict(walk(cli.main, "vaultctl"))


def options(command):
    return {
        flag
        for param in command.params
        if isinstance(param, click.Option)
        for flag in [*param.opts, *param.secondary_opts]
    } - SHARED


def test_every_command_has_a_section_and_every_section_a_command():
    assert set(SECTIONS) == set(COMMANDS)


@pytest.mark.parametrize("words", COMMANDS)
def test_every_option_is_in_the_section_of_its_command_and_no_other(words):
    described = set(
        re.findall(
            r"(?<![\w-])--?[a-z][a-z-]*", re.sub(r"```.*?```", "", SECTIONS[words].split("\n## ")[0], flags=re.DOTALL)
        )
    )
    elsewhere = (
        {"--json", "--provider", "--kind", "--field"} if words.startswith("vaultctl secret") else {"--json", "--grant"}
    )
    assert options(COMMANDS[words]) <= described
    assert described - elsewhere <= options(COMMANDS[words])


def test_the_shared_options_are_explained_once():
    beginning = TEXT.partition("\n## Setting up")[0]
    assert all(f"`{flag}" in beginning for flag in SHARED)


@pytest.mark.parametrize("words", COMMANDS)
def test_every_example_can_be_parsed(words, monkeypatch):
    """An example in the help uses options that exist."""
    for example in COMMANDS[words].examples:
        flags = {flag.split("=")[0] for flag in re.findall(r"(?<=\s)--?[a-z][a-z-]*", example.partition(" -- ")[0])}
        if example.startswith(words):
            assert flags <= options(COMMANDS[words]) | SHARED


def test_the_exit_codes_are_those_of_the_errors():
    rows = dict(re.findall(r"^\| (\d+) \| (.*) \|$", TEXT, flags=re.MULTILINE))
    kinds = [errors.Usage, errors.NotFound, errors.Locked, errors.Corrupt, errors.Conflict, errors.Unreachable]
    assert {str(kind.exit_code) for kind in kinds} <= set(rows)
