"""How much each caller has open: nobody gets more than their share, and everything is given back."""

from hypothesis import given
from hypothesis import strategies as st

from addon.load import Load


def test_a_caller_has_so_many_connections_and_gets_one_back_when_one_ends():
    load = Load(connections=2)
    for number in range(3):
        assert load.arrive(f"c{number}", address="a") is None
        assert load.claim(f"c{number}", "app:one") == (number < 2)
    load.depart("c0")
    assert load.claim("c2", "app:one")


def test_a_connection_belongs_to_the_first_who_claims_it():
    load = Load(connections=1)
    load.arrive("c0", address="a")
    assert load.claim("c0", "app:one")
    assert load.claim("c0", "app:one")
    assert load.claim("c0", "app:two")
    load.arrive("c1", address="a")
    assert load.claim("c1", "app:two"), "the one before was not counted for it"


def test_the_stranger_that_waited_longest_gives_way():
    load = Load(strangers=2)
    assert [load.arrive(f"c{number}", address="a") for number in range(4)] == [None, None, "c0", "c1"]


def test_who_proved_itself_does_not_give_way():
    load = Load(strangers=2)
    load.arrive("mine", address="a")
    load.claim("mine", "app:one")
    assert {load.arrive(f"c{number}", address="a") for number in range(9)} == {None, *(f"c{n}" for n in range(7))}


def test_the_strangers_of_another_address_do_not_give_way():
    load = Load(strangers=2)
    load.arrive("other", address="b")
    assert "other" not in {load.arrive(f"c{number}", address="a") for number in range(9)}


def test_when_the_worker_is_full_a_stranger_of_the_fullest_address_gives_way():
    load = Load(total=4)
    load.arrive("other", address="b")
    assert [load.arrive(f"c{number}", address="a") for number in range(5)] == [None, None, None, "c0", "c1"]


def test_when_the_worker_is_full_of_those_who_proved_themselves_the_new_one_is_not_let_in():
    load = Load(total=2)
    for number in range(2):
        load.arrive(f"c{number}", address="a")
        load.claim(f"c{number}", "app:one")
    assert load.arrive("new", address="a") == "new"
    load.depart("c0")
    assert load.arrive("newer", address="a") is None


def test_a_caller_has_so_many_requests_at_once():
    load = Load(requests=2)
    assert [load.begin("app:one") for _ in range(3)] == [True, True, False]
    assert load.begin("app:two")
    load.end("app:one")
    assert [load.begin("app:one") for _ in range(2)] == [True, False]


IDS, NAMES = st.integers(0, 12).map(str), st.sampled_from("xyz")


@given(st.lists(st.tuples(st.sampled_from(["arrive", "claim", "depart"]), IDS, NAMES), max_size=200))
def test_whatever_happens_shares_are_kept_and_given_back(happenings):
    load, here, owners = Load(connections=3, total=7), set(), {}
    for what, connection, name in happenings:
        if what == "arrive" and connection not in here:
            here.add(connection)
            gone = load.arrive(connection, address=name)
            here.discard(gone)
            assert gone not in owners
        elif what == "claim" and connection in here:
            mine = load.claim(connection, name)
            assert mine or list(owners.values()).count(name) == 3
            if mine:
                owners.setdefault(connection, name)
        elif what == "depart":
            load.depart(connection)
            here.discard(connection)
            owners.pop(connection, None)
        assert len(here) <= 7
        assert all(list(owners.values()).count(each) <= 3 for each in "xyz")
    for connection in here:
        load.depart(connection)
    for number in range(3):
        assert load.arrive(f"new{number}", address="x") is None
        assert load.claim(f"new{number}", "x")
