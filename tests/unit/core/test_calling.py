"""Which app answers at a call's host."""

from portico.core.calling import CallTable


def test_a_deployed_app_comes_before_an_ephemeral_one():
    """Whichever of the two came first."""
    table: CallTable[str] = CallTable()
    table.assign("ap-1", {"name": "deployed", "id-1": "deployed"}, ephemeral=False)
    table.assign("ap-2", {"name": "served", "id-2": "served"}, ephemeral=True)
    assert (table.get("name"), table.get("id-1"), table.get("id-2")) == ("deployed", "deployed", "served")


def test_the_newest_ephemeral_app_has_the_name():
    """And when it ends, the one before has it again."""
    table: CallTable[str] = CallTable()
    table.assign("ap-1", {"name": "first"}, ephemeral=True)
    table.assign("ap-2", {"name": "second"}, ephemeral=True)
    assert table.get("name") == "second"
    table.remove("ap-2")
    assert table.get("name") == "first"


def test_a_new_version_answers_only_where_it_says():
    """A function that is gone is not found."""
    table: CallTable[str] = CallTable()
    table.assign("ap-1", {"f": "1", "g": "1"}, ephemeral=False)
    table.assign("ap-1", {"f": "2"}, ephemeral=False)
    assert (table.get("f"), table.get("g")) == ("2", None)
