"""The reading room: the list, the scan page, verdicts, batches, passwords, commands."""

import html
import json
import re

import pytest
from click.testing import CliRunner
from reading_room import PASSWORD, Found, ReadingRoom, samples

from db.errors import DatabaseUnreachable, NightreadError, Refused
from db.settings import Settings
from db.store import heartbeats, people, reading
from db.words import Cause, Reason, Role
from producer.cli import group
from webui import display, passwords, serve


def scans_listed(page) -> list[str]:
    """The paths of a list page's lines, top down."""
    return [html.unescape(path) for path in re.findall(r'<a class="row" href="[^"]*"><bdi>([^<]*)', page.text)]


def told(page) -> str:
    """A page's words, without its markup."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page.text)).split())


def keys_listed(page) -> list[str]:
    return re.findall(r'<a class="row" href="/scan/([0-9a-f]{32})"', page.text)


# The worklist


def test_the_list_shows_flagged_scans_worst_first_and_no_others(room):
    room.user()
    room.night(Found("b.png", score=0.7), Found("a.png", score=0.95), Found("clear.png", score=0.2), Found("wait.png"))

    page = room.signed_in().get("/")

    assert scans_listed(page) == ["a.png", "b.png"]
    assert "2 scans to read" in told(page)


def test_paging_through_ties_shows_every_scan_once(room):
    room.user()
    room.night(*[Found(f"{n:03}.png", score=0.9 if n % 3 else 0.1 + 0.8) for n in range(117)])
    browser, seen, address = room.signed_in(), [], "/"

    while address:
        page = browser.get(address)
        seen += scans_listed(page)
        following = re.search(r'rel="next" href="([^"]+)"', page.text)
        address = following and html.unescape(following[1])

    assert len(seen) == 117
    assert len(set(seen)) == 117


def test_an_empty_list_says_so_kindly(room):
    room.user()

    page = room.signed_in().get("/")

    assert "All read" in page.text


def test_a_reader_without_a_site_learns_what_an_admin_has_to_do(room):
    room.user(sites=())

    assert "nightread user grant dr-a" in room.signed_in().get("/").text


@pytest.mark.parametrize("place", ["x", "0.5", "-1", "1e9", "9" * 19, "½", ":"])
def test_a_made_up_place_in_the_list_is_refused(room, place):
    room.user()

    assert room.signed_in().get(f"/?after={place}").status_code == 400


def test_a_place_in_the_list_tells_nothing_of_a_score(room):
    room.user()
    room.night(*[Found(f"{n:03}.png", score=0.8765) for n in range(51)])

    following = re.search(r'rel="next" href="([^"]+)"', room.inside().get("/").text)[1]

    assert re.fullmatch(r"/\?model=1&amp;after=\d+", following)


def test_another_sites_scans_are_not_in_the_list(room):
    room.user(sites=["north"])
    room.night(Found("mine.png", score=0.8), site="north")
    room.night(Found("theirs.png", score=0.9), site="south")

    assert scans_listed(room.signed_in().get("/")) == ["mine.png"]


# Several trained models


@pytest.fixture
def two_models(room):
    """A reader; a night under an older model, a night under the active one: their batches."""
    room.user()
    older = room.night(Found("old-a.png", score=0.99), Found("old-b.png", score=0.6))
    room.newer_model()
    newer = room.night(Found("new-a.png", score=0.8), Found("new-b.png", score=0.7), Found("c.png", score=0.65))
    return room.keys(older), room.keys(newer)


def models_offered(page) -> list[tuple[str, str]]:
    """Label and count of each link of the selector, the shown one marked."""
    links = re.findall(
        r'<a class="button" href="/\?model=\d+"([^>]*)><bdi>([^<]*)</bdi> <span class="muted number">(\d+)', page.text
    )
    return [(label + (" *" if "aria-current" in shown else ""), count) for shown, label, count in links]


def test_a_list_is_one_models_and_the_others_are_a_link_away(room, two_models):
    browser = room.signed_in()

    default, other = browser.get("/"), browser.get("/?model=1")

    assert scans_listed(default) == ["new-a.png", "new-b.png", "c.png"]
    assert models_offered(default) == [("stub 2 *", "3"), ("stub 1", "2")]
    assert scans_listed(other) == ["old-a.png", "old-b.png"]
    assert models_offered(other) == [("stub 2", "3"), ("stub 1 *", "2")]
    assert "2 scans to read" in told(other)


def test_one_model_alone_needs_no_selector(room):
    room.user()
    room.night(Found(score=0.9))

    assert models_offered(room.signed_in().get("/")) == []


def test_reading_goes_on_within_the_same_model(room, two_models):
    old, new = two_models
    browser = room.signed_in()

    skipped = browser.get(f"/scan/{old['old-a.png']}/next")
    last = browser.get(f"/scan/{old['old-b.png']}/next")
    saved = browser.post(f"/scan/{old['old-b.png']}", verdict="dismiss")
    page = browser.get(f"/scan/{old['old-a.png']}").text
    finished = browser.post(f"/scan/{old['old-a.png']}", verdict="confirm")

    assert skipped.location == f"/scan/{old['old-b.png']}"
    assert last.location == "/?model=1"
    assert saved.location == f"/scan/{old['old-a.png']}"
    assert "1 left to read" in page
    assert finished.location == "/?model=1"
    assert set(keys_listed(browser.get("/"))) == set(new.values())
    assert set(keys_listed(browser.get("/?model=1"))) == set(new.values())


def test_pages_of_a_list_stay_within_its_model(room):
    room.user()
    room.night(*[Found(f"{n:03}.png", score=0.9) for n in range(60)])
    room.newer_model()
    room.night(Found("new.png", score=0.9))
    browser = room.signed_in()

    first = browser.get("/?model=1")
    second = browser.get(html.unescape(re.search(r'rel="next" href="([^"]+)"', first.text)[1]))

    assert len(set(scans_listed(first) + scans_listed(second))) == 60
    assert "new.png" not in scans_listed(first) + scans_listed(second)


def test_a_place_in_the_list_of_a_model_that_is_read_gives_the_top_of_another(room):
    room.user()
    room.newer_model()
    room.night(Found("new.png", score=0.9))

    assert scans_listed(room.signed_in().get("/?model=1&after=3")) == ["new.png"]


@pytest.mark.parametrize("model", ["x", "-1", "1.0", "9" * 19])
def test_a_made_up_model_is_refused(room, model):
    room.user()

    assert room.signed_in().get(f"/?model={model}").status_code == 400


# The scan page


def test_the_scan_page_tells_score_threshold_model_and_what_was_cut(room):
    room.user()
    key = room.one(score=0.9, patient="P7", age=61.0, shape=(120, 100))

    page = room.signed_in().get(f"/scan/{key}").text

    for said in ("0.900", "flagged from 0.500 on", "stub 1", "0" * 12, "tensorflow, float32, cpu", "P7", "61 y"):
        assert said in page
    assert "100 × 120 pixels" in page
    assert "Research software, not for diagnosis. The machine flags; a physician decides." in page


def test_opening_a_scan_goes_on_record(room):
    room.user()
    key = room.one()
    browser = room.signed_in()

    browser.get(f"/scan/{key}")
    browser.get(f"/scan/{key}/image.png")

    assert [event.actor for event in room.events("viewed")] == ["dr-a"]
    assert [event.object for event in room.events("viewed_image")] == ["scan 1"]


def test_picture_and_heat_map_are_served_as_they_were_stored(room):
    room.user()
    key = room.one()
    browser = room.signed_in()

    for kind, file in (("image", f"{key}.png"), ("heat", f"{key}.heat.png")):
        answer = browser.get(f"/scan/{key}/{kind}.png")
        assert answer.content_type == "image/png"
        assert answer.data == (room.config.derived / key[:2] / file).read_bytes()


def test_a_scan_without_its_pictures_still_has_a_page(room):
    room.user()
    batch = room.night(Found(score=0.9))
    key = room.keys(batch)["night/one.png"]
    browser = room.signed_in()

    page = browser.get(f"/scan/{key}").text
    assert "No review copy of this picture" in page
    assert "nightread models pictures" in page
    assert "No heat map of this scan is stored" in page
    assert browser.get(f"/scan/{key}/image.png").status_code == 404


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Found(reason=Reason.NOT_FRONTAL), "rejected: not frontal"),
        (Found(cause=Cause.TIMED_OUT), "failed: timed out"),
        (Found(), "Waiting to be scored."),
    ],
)
def test_a_scan_without_a_score_has_a_page_but_takes_no_verdict(room, found, said):
    room.user()
    key = room.keys(room.night(found))[found.path]
    browser = room.signed_in()

    page = browser.get(f"/scan/{key}")
    answer = browser.post(f"/scan/{key}", page="/account", verdict="confirm")

    assert said in page.text
    assert answer.status_code == 400
    assert not room.events("reviewed")


def test_the_shipped_samples_are_called_synthetic_and_others_are_not(room):
    room.user()
    drawn = room.keys(room.night(Found(score=0.9), root=str(samples())))["night/one.png"]
    other = room.keys(room.night(Found(score=0.9), root="/nights/tuesday"))["night/one.png"]
    browser = room.signed_in()

    assert "synthetic sample" in browser.get(f"/scan/{drawn}").text
    assert "synthetic sample" not in browser.get(f"/scan/{other}").text


# Verdicts


def test_a_verdict_is_kept_and_the_worst_unread_scan_opens(room):
    room.user()
    keys = room.keys(room.night(Found("a.png", score=0.9), Found("b.png", score=0.8), Found("c.png", score=0.7)))
    browser = room.signed_in()

    answer = browser.post(f"/scan/{keys['b.png']}", verdict="dismiss", note="  nipple shadow\r\nboth sides ")

    assert answer.status_code == 303
    assert answer.location == f"/scan/{keys['a.png']}"
    (review,) = people.reviews(room.db, reading.scan(room.db, keys["b.png"], site_ids={1}).scan_id)
    assert (review.reader, review.verdict, review.note) == ("dr-a", "dismiss", "nipple shadow\nboth sides")
    assert keys_listed(browser.get("/")) == [keys["a.png"], keys["c.png"]]


def test_the_last_verdict_leads_back_to_the_list(room):
    room.user()
    key = room.one()

    answer = room.signed_in().post(f"/scan/{key}", verdict="confirm")

    assert answer.location == "/?model=1"


def test_a_second_verdict_adds_to_the_first(room):
    room.user()
    key = room.one()
    browser = room.signed_in()

    browser.post(f"/scan/{key}", verdict="unsure", note="first")
    browser.post(f"/scan/{key}", verdict="confirm", note="second")

    assert [review.note for review in people.reviews(room.db, 1)] == ["second", "first"]
    said = re.findall(r'<p class="note" dir="auto">([^<]*)</p>', browser.get(f"/scan/{key}").text)
    assert said[:2] == ["second", "first"]


def test_a_form_without_a_verdict_comes_back_with_its_note(room):
    room.user()
    key = room.one()

    answer = room.signed_in().post(f"/scan/{key}", note="half a thought")

    assert answer.status_code == 400
    assert "Choose confirm, dismiss, unsure or repeat first." in answer.text
    assert ">half a thought</textarea>" in answer.text
    assert not room.events("reviewed")


def test_a_note_of_ten_thousand_letters_is_kept_and_a_longer_one_comes_back(room):
    room.user()
    key = room.one()
    browser = room.signed_in()

    too_long = browser.post(f"/scan/{key}", verdict="confirm", note="鼻" * 10_001)
    fits = browser.post(f"/scan/{key}", verdict="confirm", note="鼻" * 10_000)

    assert too_long.status_code == 400
    assert fits.status_code == 303
    assert [len(review.note) for review in people.reviews(room.db, 1)] == [10_000]


def test_skipping_opens_the_next_scan_down_and_leaves_this_one_unread(room):
    room.user()
    keys = room.keys(room.night(Found("a.png", score=0.9), Found("b.png", score=0.8)))
    browser = room.signed_in()

    assert browser.get(f"/scan/{keys['a.png']}/next").location == f"/scan/{keys['b.png']}"
    assert browser.get(f"/scan/{keys['b.png']}/next").location == "/?model=1"
    assert len(keys_listed(browser.get("/"))) == 2


def test_an_admin_who_opened_a_batch_sees_its_scans_but_gives_no_verdict(room):
    room.user("boss", role=Role.ADMIN)
    key = room.one()
    browser = room.opened(1, "boss")

    page = browser.get(f"/scan/{key}")
    answer = browser.post(f"/scan/{key}", page="/account", verdict="confirm")

    assert "Verdicts are for readers" in page.text
    assert answer.status_code == 403
    assert not room.events("reviewed")


def test_a_night_is_read_on_either_database(db):
    room = ReadingRoom(db.config)
    room.user()
    room.user("boss", role=Role.ADMIN)
    ties = [Found(f"{n:02}.png", score=0.9) for n in range(53)]
    batch = room.night(*ties, Found("x.txt", reason=Reason.EMPTY), Found("y.png", cause=Cause.TIMED_OUT))
    browser = room.signed_in()

    first = browser.get("/")
    rest = browser.get(html.unescape(re.search(r'rel="next" href="([^"]+)"', first.text)[1]))
    answer = browser.post(f"/scan/{keys_listed(first)[0]}", verdict="confirm", note="seen \0 \u202e")
    wrong = room.visitor().sign_in("nobody")

    assert sorted(scans_listed(first) + scans_listed(rest)) == [found.path for found in ties]
    assert answer.location == f"/scan/{keys_listed(first)[1]}"
    assert "✓ confirm" in browser.get(f"/batches/{batch}").text
    assert browser.get(f"/batches/progress.json?batch={batch}").json["batches"][0]["found"] == 55
    assert wrong.status_code == 401
    room.close()


# Batches


def test_the_page_of_batches_accounts_for_every_file(room):
    room.user()
    room.night(
        Found("a.png", score=0.9),
        Found("b.png", score=0.1),
        Found("c.png", reason=Reason.EMPTY),
        Found("d.png", cause=Cause.OUT_OF_MEMORY),
        Found("e.png"),
    )
    browser = room.signed_in()

    rows = browser.get("/batches").text
    (batch,) = browser.get("/batches/progress.json?batch=1").json["batches"]

    assert "1 empty" in rows
    assert "1 out of memory" in rows
    assert 'data-done="no"' in rows
    numbers = {name: batch[name] for name in ("found", "scored", "flagged", "rejected", "failed", "waiting")}
    assert numbers == {"found": 5, "scored": 2, "flagged": 1, "rejected": 1, "failed": 1, "waiting": 1}
    assert batch["done"] is False


def test_progress_tells_of_a_newer_batch_and_keeps_other_sites_out(room):
    room.user(sites=["north"])
    room.night(Found(score=0.9), site="north")
    theirs = room.night(Found(score=0.9), site="south")
    browser = room.signed_in()

    answer = browser.get(f"/batches/progress.json?batch=1&batch={theirs}&batch=x&batch=-1&batch={'9' * 40}").json

    assert answer["newest"] == 1
    assert [batch["batch"] for batch in answer["batches"]] == [1]


def test_a_batch_lists_what_was_not_screened_and_why(room):
    room.user()
    batch = room.night(Found("x/lateral.dcm", reason=Reason.NOT_FRONTAL), Found("y.png", cause=Cause.WORKER_DIED))

    page = room.signed_in().get(f"/batches/{batch}").text

    assert "x/lateral.dcm" in page
    assert "rejected: not frontal" in page
    assert "failed: worker died" in page
    assert "workers died each time they held this scan" in page


def test_a_long_list_of_rejected_files_is_paged(room):
    room.user()
    batch = room.night(*[Found(f"{n:04}.txt", reason=Reason.NOT_AN_IMAGE) for n in range(620)])
    browser = room.signed_in()

    first = browser.get(f"/batches/{batch}")
    second = browser.get(re.search(r'rel="next" href="([^"]+)"', first.text)[1])

    listed = re.findall(r"<bdi>(\d{4}\.txt)</bdi>", first.text + second.text)
    assert listed == [f"{n:04}.txt" for n in range(620)]
    assert browser.get(f"/batches/{batch}?after=x").status_code == 400


def test_a_batch_shows_its_flagged_scans_with_their_verdicts(room):
    room.user()
    batch = room.night(Found("a.png", score=0.9), Found("b.png", score=0.8), Found("c.png", score=0.3))
    keys = room.keys(batch)
    browser = room.signed_in()
    browser.post(f"/scan/{keys['a.png']}", verdict="unsure")
    browser.post(f"/scan/{keys['a.png']}", verdict="confirm")

    page = browser.get(f"/batches/{batch}")

    assert keys_listed(page) == [keys["a.png"], keys["b.png"]]
    assert "✓ confirm" in page.text
    assert "✓ unsure" not in page.text


def test_workers_are_shown_alive_by_their_heartbeats(room):
    room.user()
    heartbeats.beat(room.db, name="host/cpu", host="host", device="cpu", pid=1, doing="chunk 3", scans=12)

    page = room.signed_in().get("/batches").text

    assert "● alive" in page
    assert "chunk 3" in page


# How things are written


@pytest.mark.parametrize(
    ("score", "written"), [(0.5, "0.500"), (0.99951, "> 0.999"), (1.0, "1.000"), (0.0001, "< 0.001"), (0.0, "0.000")]
)
def test_a_score_that_is_not_certain_is_not_written_as_certain(score, written):
    assert display.score(score) == written


def test_direction_marks_in_notes_are_shown_but_line_breaks_stay():
    assert display.prose("a\u202eb\n\x1b[2Jc") == "a\\u202eb\n\\x1b[2Jc"


# Passwords


def test_changing_the_password_ends_other_sessions_and_keeps_this_one(room):
    room.user()
    here, elsewhere = room.signed_in(), room.signed_in()

    changed = here.post("/account", old=PASSWORD, new="four words instead here", again="four words instead here")

    assert changed.status_code == 303
    assert here.get("/").status_code == 200
    assert elsewhere.get("/").status_code == 303
    assert room.visitor().sign_in(password=PASSWORD).status_code == 401
    assert room.visitor().sign_in(password="four words instead here").status_code == 303


@pytest.mark.parametrize(
    ("old", "new", "again", "said"),
    [
        ("wrong", "quite another one", "quite another one", "present password is not right"),
        (PASSWORD, "short", "short", "at least 15 characters"),
        (PASSWORD, "quite another one", "quite another two", "differ"),
        (PASSWORD, PASSWORD, PASSWORD, "is the present one"),
        (PASSWORD, "abababababababab", "abababababababab", "easy to guess"),
        (PASSWORD, "DR-A likes x-rays", "DR-A likes x-rays", "easy to guess"),
    ],
)
def test_a_password_that_will_not_do_is_refused_with_the_reason(room, old, new, again, said):
    room.user()

    answer = room.signed_in().post("/account", old=old, new=new, again=again)

    assert answer.status_code == 400
    assert said in answer.text
    assert room.visitor().sign_in(password=PASSWORD).status_code == 303


def test_passwords_are_kept_as_argon2id_hashes_above_the_floor(full_cost):
    kind, _, parameters = passwords.hash_password("x" * 15).split("$")[1:4]
    costs = {name: int(cost) for name, cost in (part.split("=") for part in parameters.split(","))}

    assert kind == "argon2id"
    assert costs["m"] >= 19 * 1024  # KiB
    assert costs["t"] >= 2
    assert costs["p"] == 1


def test_made_passwords_pass_their_own_rule_and_differ():
    made = {passwords.generate() for _ in range(50)}

    for password in made:
        passwords.check_choice(password, "reader")
    assert len(made) == 50


# Commands


def run(*arguments: str, **options: object):
    result = CliRunner().invoke(group, arguments, standalone_mode=False, **options)
    return result


def test_a_user_added_at_the_command_line_signs_in_with_the_password_shown_once(home, room):
    told = json.loads(run("user", "add", "dr-b", "--site", "local", "--json").stdout)

    assert room.visitor().sign_in("dr-b", told["password"]).status_code == 303
    listed = json.loads(run("user", "list", "--json").stdout)
    known = {"user": "dr-b", "role": "reader", "sites": ["local"], "disabled": None, "codes": False, "subject": None}
    assert listed == [known]
    assert told["password"] not in run("user", "list").stdout


def test_a_site_can_be_given_later_and_twice(home, room):
    room.user(sites=())

    run("user", "grant", "dr-a", "--site", "local")
    again = run("user", "grant", "dr-a", "--site", "local", "--json")

    assert json.loads(again.stdout) == {"user": "dr-a", "sites": ["local"]}
    assert people.user_named(room.db, "dr-a").site_ids == {1}


def test_disabling_ends_sessions_at_once_and_a_reset_lets_in_again(home, room):
    room.user()
    browser = room.signed_in()

    run("user", "disable", "dr-a")
    outside = browser.get("/").status_code, room.visitor().sign_in().status_code
    told = json.loads(run("user", "reset", "dr-a", "--json").stdout)

    assert outside == (303, 401)
    assert room.visitor().sign_in(password=told["password"]).status_code == 303


def test_a_typed_password_must_keep_the_rule_and_is_never_shown(home, room):
    refused = run("user", "add", "dr-c", "--ask", input="short\nshort\n")
    taken = run("user", "add", "dr-c", "--ask", input="one two three four\none two three four\n")

    assert isinstance(refused.exception, Refused)
    assert taken.exception is None
    assert "one two three four" not in taken.output
    assert room.visitor().sign_in("dr-c", "one two three four").status_code == 303


def test_the_audit_record_is_verified_and_exported_from_the_command_line(home, room):
    room.user()
    room.signed_in()

    verified = json.loads(run("audit", "verify", "--json").stdout)
    exported = [json.loads(line) for line in run("audit", "export").stdout.splitlines()]

    head = f"{len(exported)} {exported[-1]['hash']}"
    assert verified == {"intact": True, "events": len(exported), "head": head}
    assert exported[-1]["action"] == "signed_in"


def test_an_altered_audit_record_is_told(home, room):
    room.user()
    with room.db.writing() as session:
        connection = session.connection()
        for (guard,) in connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'trigger'").all():
            connection.exec_driver_sql(f"DROP TRIGGER {guard}")
        connection.exec_driver_sql("UPDATE audit_events SET actor = 'nobody' WHERE id = 2")

    result = run("audit", "verify")

    assert isinstance(result.exception, NightreadError)
    assert "audit event 2 was altered" in str(result.exception)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "nightread.example", ""])  # noqa: S104
def test_the_web_is_not_opened_to_a_network_in_the_clear(home, host):
    result = run("web", "--host", host)

    assert isinstance(result.exception, Refused)
    assert result.exception.exit_code == 4


def test_the_web_does_not_start_on_a_database_without_tables(home, tmp_path):
    config = home.model_copy(update={"home": tmp_path})

    with pytest.raises(DatabaseUnreachable, match="nightread init"):
        serve.serve(config)


def test_behind_a_tls_proxy_the_web_may_listen_on_any_address(home):
    config = Settings(home=home.home, web_host="0.0.0.0", web_https=True)  # noqa: S104

    serve.refuse_open_door(config)

    with pytest.raises(Refused):
        serve.refuse_open_door(config.model_copy(update={"web_https": False}))


def test_time_left_is_guessed_from_the_rate_so_far(room):
    room.night(*[Found(f"{n}.png", score=0.1) for n in range(64)], Found("z.png"))

    totals = reading.totals(room.db, 1)

    assert display.time_left(totals) == "under a minute left"


def test_a_request_that_makes_no_sense_is_told_why_in_our_words_alone(room):
    room.user("dr-a")
    browser = room.inside("dr-a")

    answer = browser.get("/?lowest=abc")
    foreign = browser.client.post("/search", data={"csrf_token": "<b>"})

    assert answer.status_code == 400
    assert "That is no lowest: look at the filters." in answer.text
    assert foreign.status_code == 400
    assert "The form was too old." in foreign.text
