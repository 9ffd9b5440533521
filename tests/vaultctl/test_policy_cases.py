"""`policy test`: the operator's own expectations, decided by the pipeline that decides in earnest."""

import sqlite3

import pytest

URL = "https://api.stripe.com/v1/charges"


@pytest.fixture
def run(cli, stripe, tmp_path):
    """`run(text, *options)` decides the cases in a file of that text."""
    assert cli("agent", "create", "helper").code == 0

    def run(text, *options, name="cases.toml"):
        path = tmp_path / name
        path.write_text(text)
        return cli("policy", "test", str(path), *options)

    return run


def case(expect, **given):
    """One case about the grant of the fixture, written as TOML."""
    members = {"secret": '"stripe"', "to": '"system:billing"', "url": f'"{URL}"'} | given
    inner = ", ".join(f"{name} = {value}" for name, value in members.items() if value is not None)
    return f"[[case]]\ngiven = {{ {inner} }}\nexpect = {{ {expect} }}\n"


YES, NO = 'decision = "authorized"', 'decision = "refused"'


def test_cases_that_come_out_as_expected_are_0(cli, run):
    assert cli("policy", "set", "secret:stripe", "--method", "GET", "--hours", "Mon-Fri 09:00-18:00 Europe/Berlin").code == 0  # fmt: skip
    text = (
        case(f'{YES}, code = "", policy = ""', at="2027-01-04T09:00:00+01:00")
        + case('code = "policy_denied", policy = "secret.hours"', at="2027-01-04T18:00:00+01:00")
        + case('code = "policy_denied", policy = "secret.methods"', at='"2027-01-04T10:00:00Z"', method='"POST"')
        + case('code = "destination_not_bound"', url='"https://evil.example/"')
        + case('code = "grant_unavailable"', **{"as": '"agent:helper"'})
    )
    ran = run(text, "--json")
    assert (ran.code, ran.json["passed"], ran.json["failed"]) == (0, 5, 0), ran.out


def test_one_that_does_not_is_4_and_says_what_came_out(run):
    ran = run('[[case]]\nname = "never"\n' + case(NO).removeprefix("[[case]]\n") + case(YES))
    assert ran.code == 4
    assert "never" in ran.out
    assert "decision is authorized, not refused" in ran.out
    assert "1 of 2 cases" in ran.err


def test_headers_reach_the_policies_that_look_at_them(cli, run):
    assert cli("policy", "set", "app:billing", "--max-body", "10", "--content-type", "application/json", "--require-reason").code == 0  # fmt: skip
    good = '{ Content-Length = "10", Content-Type = "application/json", X-Alter-Reason = "ticket 7" }'
    long = good.replace("10", "11")
    ran = run(
        case(YES, method='"POST"', headers=good)
        + case('policy = "app.max_body"', method='"POST"', headers=long)
        + case('policy = "app.reason"')
    )
    assert ran.code == 0, ran.out


def test_limits_are_judged_as_if_nothing_had_been_used(cli, run, home):
    assert cli("policy", "set", "vault", "--max-uses", "1").code == 0
    text = case(YES) * 3
    assert run(text).code == 0
    assert not (home / "limits.db").exists()


def test_users_and_groups_stand_for_what_a_token_would_prove(cli, run, monkeypatch):
    from tests.provider import Provider  # noqa: PLC0415

    provider = Provider()
    monkeypatch.setattr("addon.vault.idps.Idps.get", lambda *_: provider)
    assert cli("grant", "issue", "stripe", "--to", "group:acme/staff").code == 0
    to = {"to": '"group:acme/staff"', "as": '"billing"'}
    ran = run(
        case(YES, **to, user='"user:acme/ada"', groups='["staff"]')
        + case('code = "grant_unavailable"', **to, user='"user:acme/ada"', groups='["sales"]')
        + case('code = "user_token_required"', **to)
    )
    assert ran.code == 0, ran.out


@pytest.mark.parametrize(
    "text",
    [
        "", "x = 1", "[[case", "[case]\n", "[[case]]\n", "case = [1]", "case = []", "[[cases]]\n",
        case(""), case("decision = 1"), case('verdict = "no"'), case(YES) + "extra = 1\n",
        case(YES, url=None), case(YES, grant='"x"'), case(YES, to=None), case(YES, secret=None, to=None),
        case(YES, methods='"GET"'), case(YES, method="1"), case(YES, at="1979-05-27"), case(YES, at="1979-05-27T07:32:00"),
        case(YES, at='"noon"'), case(YES, headers='"x"'), case(YES, headers='{ "a b" = "c" }'), case(YES, user='"ada"'),
        case(YES, user='"user:a/b"', groups='"staff"'), case(YES, url='"/v1"'), case(YES, to='"billing"'),
        case(YES, **{"as": '"robot:x"'}), case(YES, body="1"), case(YES, body="true"), case(YES, body="{ a = nan }"),
        case(YES, body="{ a = 1979-05-27 }"),
    ],
)  # fmt: skip
def test_what_is_not_written_as_a_case_is_2(run, text):
    ran = run(text)
    assert (ran.code, ran.out, bool(ran.error)) == (2, "", True)


def test_a_body_reaches_the_policies_that_look_at_it(cli, run):
    assert cli("policy", "set", "secret:stripe", "--json-member", 'm in ["a", "b"]', "--max-body", "20").code == 0
    post = {"method": '"POST"'}
    no = 'code = "policy_denied", policy = "secret.json"'
    ran = run(
        case(YES, **post, body='{ m = "a" }')
        + case(YES, **post, body="""'{"m": "b"}'""")
        + case(no, **post, body='{ m = "c" }')
        + case(no, **post, body="""'{"m": "a", "m": "a"}'""")
        + case(no, **post, body='["a"]')
        + case(no, **post, body='{ m = "a" }', headers='{ Content-Type = "text/plain" }')
        + case(no, **post)
        + case('policy = "secret.max_body"', **post, body='{ m = "a", n = "xxxxxxxxxx" }')
    )
    assert ran.code == 0, ran.out


# ── YAML ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

YAML = """
case:
  - name: in the day
    given: &charge
      secret: stripe
      to: system:billing
      url: https://api.stripe.com/v1/charges
      method: POST
      at: 2027-01-04T10:00:00+01:00
      body: {m: a}
    expect: {decision: authorized}
  - name: at night
    given: {<<: *charge, at: 2027-01-04T23:00:00+01:00}
    expect: {code: policy_denied, policy: secret.hours}
  - name: other members
    given: {<<: *charge, body: {m: no}}
    expect: {code: policy_denied, policy: secret.json}
"""


@pytest.mark.parametrize("name", ["cases.yaml", "cases.yml", "CASES.YML"])
def test_cases_may_be_written_in_yaml(cli, run, name):
    hours = ("--hours", "Mon-Fri 09:00-18:00 Europe/Berlin")
    assert cli("policy", "set", "secret:stripe", *hours, "--json-member", 'm = "a"').code == 0
    ran = run(YAML, "--json", name=name)
    assert (ran.code, ran.json["passed"]) == (0, 3), ran.out
    ran = run(YAML.replace("secret.hours", "secret.rate"), name=name)
    assert ran.code == 4
    assert "at night" in ran.out


@pytest.mark.parametrize(
    "text",
    [
        "", "1", "[]", "case:", "case: 1", "case: [", "case: []\nmore: 1", "case: [1]", "- case: 1", "case: &a [*a]", "case: *a", "a: 1\n---\nb: 2",
        YAML + "case: []", YAML.replace("method: POST", "method: POST\n      method: GET"), YAML.replace("expect:", "expected:"),
        YAML.replace("{m: a}", "!!python/object/apply:os.system ['true']"), YAML.replace("{m: a}", "!x {m: a}"), YAML.replace("{m: a}", ".nan"),
        YAML.replace("{m: a}", "&b [*b]"), YAML.replace("+01:00", ""), YAML.replace("2027-01-04T", "2027-13-04T"), "case: " + "[" * 5000,
    ],
    ids=lambda text: text[-30:],
)  # fmt: skip
def test_yaml_that_is_not_written_as_cases_is_2(run, text):
    ran = run(text, name="cases.yaml")
    assert (ran.code, ran.out, bool(ran.error)) == (2, "", True)


def test_what_is_wrong_with_a_case_is_said_with_its_name(run):
    ran = run(YAML.replace("{code: policy_denied, policy: secret.hours}", "{verdict: no}"), name="cases.yaml")
    assert ran.error == "case 2 (at night) is not written as one"
    ran = run(YAML.replace("secret: stripe", "secret: nothing"), name="cases.yaml")
    assert ran.error.startswith("in the day: no secret named nothing")
    assert run(case(NO, secret='"nothing"')).error.startswith("case 1: ")


def test_a_grant_that_is_not_there_or_not_the_only_one_is_3(cli, run):
    assert run(case(YES, secret='"nothing"')).code == 3
    assert run(case(YES, to='"agent:helper"')).code == 3
    assert run(case(YES, grant=f'"{"0" * 36}"', secret=None, to=None)).code == 3
    assert cli("grant", "issue", "stripe", "--to", "system:billing").code == 0
    assert "2 active grants" in run(case(YES)).error


def test_policies_that_cannot_be_read_are_5_and_not_a_pass(run, home):
    with sqlite3.connect(home / "vault.db") as data:
        data.execute("""UPDATE meta SET value = '[["later", {}]]' WHERE name = 'policies'""")
    data.close()
    assert run(case(NO)).code == 5


def test_a_file_that_is_not_there_is_2(cli, stripe):
    assert cli("policy", "test", "nothing.toml").code == 2
