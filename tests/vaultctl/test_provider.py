from addon.credentials import providers


def test_list_shows_the_whole_catalog(cli):
    found = cli("provider", "list", "--json").json
    assert [each["slug"] for each in found] == list(providers.catalog())
    assert len(found) >= 15


def test_show_tells_where_a_key_goes(cli):
    document = cli("provider", "show", "datadog", "--json").json
    assert [each["name"] for each in document["placements"]] == ["DD-API-KEY", "DD-APPLICATION-KEY"]
    text = cli("provider", "show", "anthropic").out
    assert "anthropic-version: 2023-06-01" in text
    assert "ANTHROPIC_API_KEY" in text


def test_an_unknown_provider_is_exit_code_3_with_the_nearest_name(cli):
    ran = cli("provider", "show", "strip")
    assert ran.code == 3
    assert "stripe" in ran.err


def test_the_catalog_needs_no_vault(bare):
    assert bare("provider", "list").code == 0
