"""How a site's scans are read: set by an admin, on record, within sane limits, from the next scan on."""

import json

import click
import pytest
from click.testing import CliRunner
from ledger import claim, complete, folder, submitted
from sqlalchemy import select

from db.errors import Refused, Unknown
from db.schema import AuditEvent, Entry, EntryCount
from db.store.connection import database
from db.store.sites import add_site, set_site, site_named
from db.words import State
from producer.cli import group

VALUES = {
    "readers": 2,
    "blind_first": True,
    "sample_share": 0.05,
    "prevalence": 0.003,
    "time_zone": "Europe/Berlin",
}


def events(db):
    with db.reading() as session:
        return list(session.scalars(select(AuditEvent).where(AuditEvent.action == "site_set").order_by(AuditEvent.id)))


def run(*arguments):
    done = CliRunner().invoke(group, [str(word) for word in arguments], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.stdout


def test_a_new_site_has_one_reader_who_sees_the_score_and_no_sample(db):
    site = site_named(db, "local")

    assert (site.readers, site.blind_first, site.sample_share, site.prevalence) == (1, False, 0.0, None)


def test_what_is_set_is_kept_and_each_change_is_on_record_with_what_was_before(db):
    set_site(db, "local", VALUES, by="cli:op")
    set_site(db, "local", {"sample_share": 0.0}, by="cli:op")

    site = site_named(db, "local")
    assert {name: getattr(site, name) for name in VALUES} == VALUES | {"sample_share": 0.0}
    first, second = events(db)
    assert (first.actor, first.object) == ("cli:op", f"site {site.id}")
    assert first.detail == VALUES | {
        "before": {
            "readers": 1,
            "blind_first": False,
            "sample_share": 0.0,
            "prevalence": None,
            "time_zone": "UTC",
        }
    }
    assert second.detail == {"sample_share": 0.0, "before": {"sample_share": 0.05}}


def test_the_same_again_is_no_change(db):
    set_site(db, "local", VALUES, by="cli:op")

    again = set_site(db, "local", VALUES, by="cli:op")

    assert again.changed == {}
    assert len(events(db)) == 1


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"readers": 0}, "one reader or by two"),
        ({"readers": 3}, "one reader or by two"),
        ({"sample_share": -0.1}, "share of the cleared"),
        ({"sample_share": 1.01}, "share of the cleared"),
        ({"sample_share": 0.0009}, "share of the cleared"),
        ({"sample_share": float("nan")}, "share of the cleared"),
        ({"prevalence": 0.0}, "prevalence"),
        ({"prevalence": 1.0}, "prevalence"),
        ({"prevalence": float("nan")}, "prevalence"),
        ({"time_zone": "Berlin"}, "Europe/Berlin"),
        ({"time_zone": "../../etc/passwd"}, "Europe/Berlin"),
        ({"time_zone": ""}, "Europe/Berlin"),
        (VALUES | {"readers": 3}, "one reader or by two"),
    ],
)
def test_what_no_site_can_have_is_refused_and_nothing_is_changed(db, values, why):
    before = site_named(db, "local")

    with pytest.raises(Refused, match=why):
        set_site(db, "local", values, by="cli:op")

    assert site_named(db, "local") == before
    assert events(db) == []


def test_an_unknown_site_is_unknown(db):
    with pytest.raises(Unknown, match="did you mean 'local'"):
        set_site(db, "locall", VALUES, by="cli:op")


def test_a_site_is_not_registered_with_a_time_zone_that_there_is_not(db):
    with pytest.raises(Refused, match="Europe/Berlin"):
        add_site(db, "north", time_zone="Mars/Olympus", by="cli:op")


def test_what_is_on_the_list_already_keeps_what_it_had(db):
    submitted(db, folder(3))
    complete(db, claim(db))

    change = set_site(db, "local", {"readers": 2, "blind_first": True}, by="cli:op")

    with db.reading() as session:
        entries = session.scalars(select(Entry)).all()
        counted = session.scalars(select(EntryCount).where(EntryCount.state == State.UNREAD)).all()
    assert [(entry.readers, entry.blind) for entry in entries] == [(1, False)] * 3
    assert change.keep == sum(row.count for row in counted) == 3


# The command


def test_the_command_says_what_holds_from_now_on_and_for_whom(home):
    said = run("site", "set", "local", "--readers", 2, "--sample", "5%", "--prevalence", "0.3%", "--blind-first")

    assert "two readers, blind first, 5.00% of the cleared sampled, prevalence 0.300%" in said
    assert "from now on; 0 that are on it" in said
    assert "random order" in said
    assert said.splitlines()[0] in run("site", "list").replace("local  (UTC)", "site 'local' (UTC)")
    assert site_named(database(), "local").sample_share == 0.05


def test_the_command_has_json_and_works_twice(home):
    arguments = ("site", "set", "local", "--sample", "0.02", "--prevalence", "unknown", "--time-zone", "Asia/Kolkata")

    first, again = (json.loads(run(*arguments, "--json")) for _ in range(2))

    assert first == {
        "site": "local",
        "readers": 1,
        "blind_first": False,
        "sample_share": 0.02,
        "prevalence": None,
        "time_zone": "Asia/Kolkata",
        "changed": ["sample_share", "time_zone"],
        "keep_what_they_had": 0,
    }
    assert again == first | {"changed": []}
    assert json.loads(run("site", "list", "--json")) == [
        {name: value for name, value in first.items() if name not in ("changed", "keep_what_they_had")}
    ]


def test_a_prevalence_is_forgotten_again(home):
    run("site", "set", "local", "--prevalence", "2%")
    assert site_named(database(), "local").prevalence == 0.02

    run("site", "set", "local", "--prevalence", "unknown", "--no-blind-first")

    assert site_named(database(), "local").prevalence is None


@pytest.mark.parametrize("wrong", ["2", "-1", "many", "101%", "nan", ""])
def test_a_share_that_is_none_is_a_usage_error(home, wrong):
    with pytest.raises(click.BadParameter, match=r"is no share: write 0\.02 or 2%"):
        run("site", "set", "local", f"--sample={wrong}")
