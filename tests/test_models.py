"""`nightread models`: folders in and out, activation and its refusal, retirement, the workbench of thresholds."""

import hashlib
import json
import shutil
import threading

import builders
import pytest
from click.testing import CliRunner
from ledger import claim, complete, folder, scored, submitted
from plain_models import auc, audit, table, write_plain
from ready_home import STUB
from sqlalchemy import select

from db.errors import ModelRefused, Refused, Unknown
from db.schema import AuditEvent, Outcome
from db.store import audit as record
from db.store import models, people, reading, scoring, thresholds, worklist
from db.store.connection import connect
from db.store.thresholds import LastNight
from db.words import Exit, Role
from producer import submission
from producer.cli import group
from workers import activation, model_folders, workbench
from workers.trained_models import SUMS


@pytest.fixture
def house(home):
    """The database of a home folder whose commands are run here."""
    opened = connect(home)
    yield opened
    opened.engine.dispose()


def run(*words):
    """A command's answer as JSON. Raises what the command raises."""
    result = CliRunner().invoke(group, ["models", *map(str, words), "--json"], standalone_mode=False)
    if result.exception:
        raise result.exception
    return json.loads(result.stdout)


def said(*words):
    """A command's words for people, and its exit code."""
    result = CliRunner().invoke(group, ["models", *map(str, words)], standalone_mode=False)
    if result.exception:
        raise result.exception
    return result.stdout


def events(db, action):
    with db.reading() as session:
        rows = session.scalars(select(AuditEvent).where(AuditEvent.action == action).order_by(AuditEvent.id))
        return [(event.actor, event.detail) for event in rows]


def kept(db):
    """The names below the home folder's models."""
    there = db.config.home / "models"
    return sorted(path.name for path in there.iterdir()) if there.exists() else []


# In and out


def test_an_imported_model_is_copied_into_the_home_folder_and_registered(house, tmp_path):
    source = write_plain(tmp_path / "m", threshold=0.31)

    told = run("import", source)

    model = models.named(house, "plain")
    assert told == {"model": "plain 1", "folder": model.folder, "threshold": 0.31, "refusal": None}
    assert model.folder == str(house.config.home / "models" / "plain-1")
    assert model_folders.same_files(source, house.config.home / "models" / "plain-1")
    assert kept(house) == ["plain-1"]
    assert models.active(house).label == "stub 1"
    assert [actor.split(":")[0] for actor, _ in events(house, "model_registered")][-1] == "cli"


def test_importing_twice_changes_nothing(house, tmp_path):
    source = write_plain(tmp_path / "m")
    run("import", source)
    count = record.verify(house)

    run("import", source)
    run("import", house.config.home / "models" / "plain-1")

    assert len(models.registered(house)) == 2
    assert record.verify(house) == count


def test_the_page_of_the_report_comes_along_and_stray_files_stay_behind(house, tmp_path):
    source = tmp_path / "m"
    source.mkdir()
    (source / "report.html").write_text("<p>figures")
    write_plain(source)
    (source / "notes.txt").write_text("mine")

    run("import", source)

    names = {path.name for path in (house.config.home / "models" / "plain-1").iterdir()}
    assert "report.html" in names
    assert "notes.txt" not in names


@pytest.mark.parametrize(
    ("changed", "why"),
    [({"weights": "b"}, "other weights"), ({"report": {"audit": audit(frame=0.5)}}, "another report or gate")],
    ids=["weights", "report"],
)
def test_one_name_and_version_never_means_two_models(house, tmp_path, changed, why):
    run("import", write_plain(tmp_path / "m"))
    before = {path.name: path.read_bytes() for path in (house.config.home / "models" / "plain-1").iterdir()}

    with pytest.raises(Refused, match=why):
        run("import", write_plain(tmp_path / "other", **changed))

    assert before == {path.name: path.read_bytes() for path in (house.config.home / "models" / "plain-1").iterdir()}
    assert kept(house) == ["plain-1"]


def test_two_models_that_would_share_a_folder_are_told_apart(house, tmp_path):
    run("import", write_plain(tmp_path / "m", name="a-1", version="2"))

    with pytest.raises(Refused, match="another trained model"):
        run("import", write_plain(tmp_path / "other", name="a", version="1-2", weights="b"))


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "../../escape"},
        {"name": "active"},
        {"name": ".hidden"},
        {"name": "x" * 101},
        {"version": "1/2"},
        {"version": ""},
        {"name": ["plain"]},
        {"architecture": "a b"},
        {"input_size": "64"},
        {"input_size": 10**9},
        {"threshold": 1.5},
        {"threshold": "high"},
        {"threshold": float("nan")},
        {"report": {"threshold": None}},
    ],
    ids=str,
)
def test_a_folder_that_says_nonsense_is_refused_and_leaves_nothing(house, tmp_path, fields):
    source = write_plain(tmp_path / "m", **fields)

    with pytest.raises(ModelRefused):
        run("import", source)

    assert kept(house) == []
    assert [model.label for model in models.registered(house)] == ["stub 1"]


def with_sums(folder, name, content):
    """Replace a file and make the sums fit again."""
    (folder / name).write_bytes(content)
    lines = [line for line in (folder / SUMS).read_text().splitlines() if not line.endswith(f"  {name}")]
    (folder / SUMS).write_text("\n".join([*lines, f"{hashlib.sha256(content).hexdigest()}  {name}"]) + "\n")


def test_weights_that_are_no_safetensors_are_refused(house, tmp_path):
    source = write_plain(tmp_path / "m")
    pickled = b"\x80\x04pickle"
    document = json.loads((source / "model.json").read_text())
    document["weights"]["sha256"] = hashlib.sha256(pickled).hexdigest()
    with_sums(source, "weights.safetensors", pickled)
    with_sums(source, "model.json", json.dumps(document).encode())

    with pytest.raises(ModelRefused, match="not a safetensors file"):
        run("import", source)


def test_a_report_that_is_no_json_is_refused(house, tmp_path):
    source = write_plain(tmp_path / "m")
    with_sums(source, "report.json", b"{")

    with pytest.raises(ModelRefused, match="not JSON"):
        run("import", source)


def test_a_link_in_the_folder_is_refused(house, tmp_path):
    source = write_plain(tmp_path / "m")
    (source / "gate.safetensors").rename(tmp_path / "elsewhere")
    (source / "gate.safetensors").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(ModelRefused, match="inside the folder"):
        run("import", source)


def test_a_link_in_the_place_of_the_copy_is_refused(house, tmp_path):
    (house.config.home / "models").mkdir()
    (tmp_path / "outside").mkdir()
    (house.config.home / "models" / "plain-1").symlink_to(tmp_path / "outside")

    with pytest.raises(Refused, match="symbolic link"):
        run("import", write_plain(tmp_path / "m"))

    assert list((tmp_path / "outside").iterdir()) == []


def test_importing_again_repairs_a_damaged_copy(house, tmp_path):
    source = write_plain(tmp_path / "m")
    run("import", source)
    (house.config.home / "models" / "plain-1" / "weights.safetensors").write_bytes(b"?")

    run("import", source)

    assert model_folders.checked(models.named(house, "plain")).name == "plain"
    assert kept(house) == ["plain-1"]


def test_an_import_that_breaks_off_leaves_no_half_folder(house, tmp_path, monkeypatch):
    source = write_plain(tmp_path / "m")

    def full_disk(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model_folders, "_write", full_disk)

    with pytest.raises(Refused, match="No space left"):
        run("import", source)

    assert kept(house) == []
    assert len(models.registered(house)) == 1


def test_what_is_exported_is_imported_elsewhere(house, tmp_path):
    run("import", write_plain(tmp_path / "m"))

    told = run("export", "plain", tmp_path / "out")
    again = run("export", "plain", tmp_path / "out")

    assert told == again == {"model": "plain 1", "folder": str(tmp_path / "out" / "plain-1")}
    assert model_folders.registration(tmp_path / "out" / "plain-1").name == "plain"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["plain-1"]


def test_an_export_overwrites_nothing(house, tmp_path):
    run("import", write_plain(tmp_path / "m"))
    (tmp_path / "out" / "plain-1").mkdir(parents=True)
    (tmp_path / "out" / "plain-1" / "thesis.txt").write_text("mine")

    with pytest.raises(Refused):
        run("export", "plain", tmp_path / "out")

    assert [path.name for path in (tmp_path / "out" / "plain-1").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("command", [("export", "plain", "{}"), ("activate", "plain")], ids=["export", "activate"])
@pytest.mark.parametrize("damage", ["altered", "swapped", "gone"])
def test_a_damaged_model_is_neither_exported_nor_activated(house, tmp_path, command, damage):
    run("import", write_plain(tmp_path / "m"))
    place = house.config.home / "models" / "plain-1"
    if damage == "altered":
        (place / "gate.safetensors").write_bytes(b"?")
    else:
        shutil.rmtree(place)
    if damage == "swapped":
        write_plain(place, weights="b")

    with pytest.raises(ModelRefused):
        run(*(word.format(tmp_path / "out") for word in command))

    assert models.active(house).label == "stub 1"


# Names


def newer(db, version="2", **fields):
    return models.register(db, models.Registration(**{**vars(STUB), "version": version, **fields}), by="test")


def test_a_model_goes_by_several_names(db):
    newer(db, "2")
    newer(db, "10")
    newer(db, "1", name="other")

    for wanted, label in {
        "stub": "stub 10",
        "stub:2": "stub 2",
        "stub 2": "stub 2",
        "other": "other 1",
        "active": "stub 1",
    }.items():
        assert models.named(db, wanted).label == label


@pytest.mark.parametrize("wanted", ["stubb", "stub:3", "stub-1", "", "?"])
def test_an_unknown_name_is_refused_with_the_nearest(db, wanted):
    with pytest.raises(Unknown, match="'stub 1'"):
        models.named(db, wanted)


# Activation


@pytest.mark.parametrize(
    ("given", "refused"),
    [
        (audit(), None),
        (audit(model=0.9, frame=0.85, file=0.5), None),
        (
            audit(model=0.9, frame=0.86),
            "the frame around the picture alone reaches AUC 0.860 where the model reaches 0.9",
        ),
        (audit(model=0.9, file=0.95), "the file's size, dimensions and format alone reaches AUC 0.950"),
        (audit(model=0.9, frame=0.9, file=0.9), " and the file's"),
        (None, "no whole shortcut audit"),
        ({}, "no whole shortcut audit"),
        ({"model": auc(0.9), "frame": auc(0.5)}, "no whole shortcut audit"),
        ({"verdict": "Not enough images to judge."}, r"\(Not enough images to judge\)"),
        ({**audit(), "frame": {"value": None}}, "no whole shortcut audit"),
        ({**audit(), "file": 0.5}, "no whole shortcut audit"),
        ({**audit(), "model": {"value": float("nan")}}, "no whole shortcut audit"),
    ],
)
def test_a_model_that_shortcuts_explain_may_not_become_active(given, refused):
    import re

    why = activation.shortcut_refusal({"audit": given})

    assert why is None if refused is None else re.search(refused, why)


def admin(db, name="boss", role=Role.ADMIN):
    people.add_user(db, name, role=role, password_hash="x", site_ids=set(), by="test")


def test_activation_is_on_record(house, tmp_path):
    run("import", write_plain(tmp_path / "m"))

    told = run("activate", "plain", "--why", "better by night")

    assert told == {"model": "plain 1", "active": True, "changed": True}
    assert models.active(house).label == "plain 1"
    assert events(house, "model_activated")[-1][1] == {"why": "better by night"}


def test_activating_the_active_model_changes_nothing(house):
    count = record.verify(house)

    assert run("activate", "active")["changed"] is False
    assert record.verify(house) == count


def test_a_label_that_leaks_through_the_file_is_refused_unless_an_admin_signs(house, tmp_path):
    run("import", write_plain(tmp_path / "m", report={"audit": audit(model=0.99, file=0.98)}))
    admin(house)

    with pytest.raises(Refused, match=r"reaches AUC 0\.980 where the model reaches 0\.990 .* --sign") as refused:
        run("activate", "plain")
    assert refused.value.exit_code == Exit.REFUSED
    assert models.active(house).label == "stub 1"

    run("activate", "plain", "--sign", "boss", "--why", "files of one device only")

    assert models.active(house).label == "plain 1"
    _, detail = events(house, "model_activated")[-1]
    assert detail["signed_by"] == "boss"
    assert detail["why"] == "files of one device only"
    assert detail["audit"] == {"model": 0.99, "frame": 0.6, "thumbnail": 0.94, "file": 0.98}
    assert "0.980" in detail["against"]


def test_a_model_without_an_audit_needs_a_signature(house, tmp_path):
    run("import", write_plain(tmp_path / "m", report={"audit": None}))
    admin(house)

    with pytest.raises(Refused, match="no whole shortcut audit"):
        run("activate", "plain")

    run("activate", "plain", "--sign", "boss", "--why", "trial")
    assert models.active(house).label == "plain 1"


def test_only_an_enabled_admin_signs(house, tmp_path):
    run("import", write_plain(tmp_path / "m", report={"audit": None}))
    admin(house, "rosa", Role.READER)
    admin(house, "gone")
    people.disable_user(house, people.user_named(house, "gone").id, by="test")

    for signer in ("rosa", "gone"):
        with pytest.raises(Refused, match=f"{signer} may not sign"):
            run("activate", "plain", "--sign", signer, "--why", "x")
    with pytest.raises(Unknown):
        run("activate", "plain", "--sign", "nobody", "--why", "x")
    with pytest.raises(Exception, match="needs --why"):
        run("activate", "plain", "--sign", "gone")
    assert models.active(house).label == "stub 1"


# Retirement


def test_a_retired_model_is_never_active_again(house, tmp_path):
    run("import", write_plain(tmp_path / "m"))

    told = run("retire", "plain", "--why", "outdated")

    assert told == {"model": "plain 1", "retired": True, "changed": True}
    assert run("retire", "plain", "--why", "again")["changed"] is False
    with pytest.raises(Refused, match="is retired"):
        run("activate", "plain")
    assert events(house, "model_retired") == [(events(house, "model_registered")[-1][0], {"why": "outdated"})]


def test_the_active_model_cannot_be_retired(db):
    with pytest.raises(Refused, match="activate another model first"):
        models.retire(db, models.active(db).id, why="x", by="test")


def test_batches_of_a_retired_model_finish(db):
    old = models.active(db)
    batch = submitted(db, folder(2))
    models.activate(db, newer(db), why="better", by="test")

    models.retire(db, old.id, why="outdated", by="test")

    assert [one.label for one in models.in_use(db)] == ["stub 1", "stub 2"]
    held = scoring.claim_chunk(db, "w", trained_model_id=old.id, lease_seconds=30)
    assert complete(db, held)
    assert reading.totals(db, batch).is_done
    assert [one.label for one in models.in_use(db)] == ["stub 2"]


# The list, and one model


def test_the_list_tells_state_threshold_and_figures(house, tmp_path):
    run("import", write_plain(tmp_path / "m", report={"held_back": {"auc": auc(0.96), "images": 400}}))
    run("import", write_plain(tmp_path / "n", name="other"))
    run("retire", "other", "--why", "no use")

    stub, plain, other = run("list")

    assert (stub["active"], plain["active"], other["retired"]) == (True, False, True)
    assert (plain["threshold"], plain["held_back_auc"]["value"], stub["held_back_auc"]) == (0.4, 0.96, None)
    words = said("list").splitlines()
    assert "active" in words[0]
    assert "AUC 0.960 (0.940–0.980)" in words[1]
    assert "retired" in words[2]


def test_one_model_is_told_whole(house, tmp_path):
    figures = {name: auc(0.9) for name in ("auc", "sensitivity", "specificity")}
    run("import", write_plain(tmp_path / "m", report={"held_back": figures}))
    run("activate", "plain", "--why", "better")
    run("threshold", "plain", "--set", "0.5", "--why", "fewer flags")

    told, words = run("show", "plain:1"), said("show", "active")

    assert [(one["value"], one["why"]) for one in told["thresholds"]] == [(0.4, "a test"), (0.5, "fewer flags")]
    assert told["intended_use"] == "tests"
    assert told["audit"]["frame"] == 0.6
    for part in (
        "plain 1 (active)",
        "normal, covid; flags covid",
        "64 x 64",
        "sensitivity 0.900 (0.880–0.920)",
        "better",
    ):
        assert part in words


def test_a_model_whose_folder_is_gone_is_told_with_the_problem(house, tmp_path):
    run("import", write_plain(tmp_path / "m"))
    shutil.rmtree(house.config.home / "models" / "plain-1")

    assert "PROBLEM" in said("show", "plain")
    assert run("show", "plain")["problem"]


# The workbench


NIGHT = LastNight([1], [0.1, 0.2, 0.3, 0.3, 0.3, 0.6, 0.8, 0.9])


def view(db, **report):
    model_id = newer(db, f"t{len(models.registered(db))}", report=report)
    return models.get(db, model_id)


@pytest.mark.parametrize(("capacity", "flagged"), [(0, 0), (1, 1), (2, 2), (3, 3), (4, 3), (5, 3), (6, 6), (7, 7)])
def test_a_capacity_gives_the_lowest_threshold_that_keeps_it(capacity, flagged):
    proposal = workbench.for_capacity(NIGHT, capacity)

    assert workbench.flagged(NIGHT, proposal.value) == flagged
    assert len(f"{proposal.value:g}") <= 4


@pytest.mark.parametrize(("night", "capacity"), [(NIGHT, 8), (LastNight([], []), 0), (LastNight([1], [1.0, 1.0]), 1)])
def test_a_capacity_that_tells_nothing_is_refused(night, capacity):
    with pytest.raises(Refused):
        workbench.for_capacity(night, capacity)


def test_neighbouring_scores_are_parted():
    low, high = 0.3, 0.30000000000000004

    assert workbench.for_capacity(LastNight([1], [low, high]), 1).value == high


def test_a_sensitivity_gives_the_highest_threshold_of_the_report_that_keeps_it(home):
    db = connect(home)
    model = view(db, thresholds=table((0.5, 0.9, 0.95), (0.1, 0.99, 0.6), (0.3, 0.97, 0.8)))

    assert workbench.for_sensitivity(model, NIGHT, 0.97).value == 0.3
    assert workbench.for_sensitivity(model, NIGHT, 0.98).value == 0.1
    with pytest.raises(Refused, match=r"the best is 0\.990"):
        workbench.for_sensitivity(model, NIGHT, 0.999)
    for nothing in ({}, {"thresholds": None}, {"thresholds": [7, {"threshold": "x"}]}):
        with pytest.raises(Refused, match="no table"):
            workbench.for_sensitivity(view(db, **nothing), NIGHT, 0.5)


def night_of(db, scores, root="/night"):
    """A batch scored so; its id."""
    batch = submitted(db, folder(len(scores)), root=root, chunk_size=len(scores))
    held = claim(db)
    scoring.complete_chunk(db, held, [scored(scan, score) for scan, score in zip(held.scans, scores, strict=True)])
    return batch


def flags(db):
    """Score -> (flagged, the threshold it was flagged by) of every stored outcome."""
    with db.reading() as session:
        return {row.score: (row.flagged, row.threshold) for row in session.scalars(select(Outcome)) if row.score}


def test_the_workbench_shows_report_and_last_night_side_by_side(house):
    models.activate(house, view(house, thresholds=table((0.3, 0.97, 0.8), (0.5, 0.9, 0.95))).id, why="x", by="test")
    batch = night_of(house, [0.2, 0.4, 0.6, 0.7])

    told = run("threshold", "active", "--capacity", "1")
    words = said("threshold", "active", "--sensitivity", "0.97")

    assert told["last_night"] == {"batches": [batch], "scored": 4, "flagged": 2}
    assert [(row["threshold"], row["flagged_last_night"]) for row in told["thresholds"]] == [(0.3, 3), (0.5, 2)]
    assert told["proposed"]["threshold"] == 0.65
    assert "0.970 (0.950–0.990)" in words
    assert "proposed: 0.3 (" in words
    assert models.active(house).threshold == 0.5


def test_a_new_threshold_recomputes_every_stored_flag_of_its_model_alone(db):
    model = models.active(db)
    first = night_of(db, [0.2, 0.4, 0.6])
    models.activate(db, newer(db), why="x", by="test")
    night_of(db, [0.21, 0.41, 0.61], root="/other")

    done = thresholds.set_threshold(db, model.id, 0.3, why="more", by="admin")

    assert (done.before, done.outcomes, done.newly_flagged, done.no_longer_flagged) == (0.5, 3, 1, 0)
    assert flags(db) == {
        0.2: (False, 0.3),
        0.4: (True, 0.3),
        0.6: (True, 0.3),
        0.21: (False, 0.5),
        0.41: (False, 0.5),
        0.61: (True, 0.5),
    }
    assert reading.totals(db, first).flagged == 2
    assert [one.value for one in thresholds.history(db, model.id)] == [0.5, 0.3]
    ((actor, detail),) = events(db, "threshold_set")
    assert (actor, detail["value"], detail["newly_flagged"], detail["why"]) == ("admin", 0.3, 1, "more")
    assert record.verify(db)


def test_a_higher_threshold_takes_scans_off_the_list_and_the_same_one_changes_nothing(db):
    model = models.active(db)
    night_of(db, [0.5, 0.7, 0.9])

    done = thresholds.set_threshold(db, model.id, 0.7, why="fewer", by="admin")
    again = thresholds.set_threshold(db, model.id, 0.7, why="fewer", by="admin")

    assert (done.newly_flagged, done.no_longer_flagged) == (0, 1)
    assert (again.newly_flagged, again.no_longer_flagged) == (0, 0)
    assert len(worklist.unread_everywhere(db, model.id)) == 2
    assert len(thresholds.history(db, model.id)) == 2


def test_scores_that_come_in_while_a_threshold_is_set_get_the_new_one(db):
    model = models.active(db)
    submitted(db, folder(4))
    held = claim(db)
    setting = threading.Thread(
        target=thresholds.set_threshold, args=(db, model.id, 0.9), kwargs={"why": "x", "by": "a"}
    )

    with db.writing() as session:
        before = models.held_threshold(session, model.id)
        setting.start()
        setting.join(0.3)
        assert setting.is_alive()
        result = scoring.outcome_of(scored(held.scans[0]), model.id, before, 0)
        session.add(result)
    setting.join(30)

    assert flags(db) == {0.7: (False, 0.9)}


def test_the_proposed_threshold_is_set_with_its_reason(house):
    night_of(house, [0.2, 0.4, 0.6, 0.7])

    told = run("threshold", "active", "--capacity", "3", "--set", "--why", "two readers")

    assert models.active(house).threshold == told["set"]["threshold"] == 0.3
    assert told["set"]["newly_flagged"] == 1
    why = thresholds.history(house, models.active(house).id)[-1].why
    assert why == "two readers: 3 of the last night's 4 scans flagged; at most 3 were asked for"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--set", "0.3"], "needs --why"),
        (["--set", "2", "--why", "x"], "no threshold"),
        (["--set", "nan", "--why", "x"], "no threshold"),
        (["--set", "high", "--why", "x"], "no threshold"),
        (["--set", "--why", "x"], "needs a value"),
        (["--sensitivity", "1.5"], "range"),
        (["--sensitivity", "0.9", "--capacity", "3"], "exclude"),
    ],
)
def test_a_threshold_that_makes_no_sense_is_refused(house, words, why):
    with pytest.raises(Exception, match=why):
        run("threshold", "active", *words)

    assert models.active(house).threshold == 0.5


# An imported model at work


def test_an_imported_model_screens(house, tmp_path, monkeypatch):
    from small_models import offer_small, write_small

    from workers import tasks
    from workers.provisions import decoder_pool
    from workers.shift import Shift

    offer_small(monkeypatch)
    write_small(tmp_path / "m")
    admin(house)
    run("import", tmp_path / "m")
    run("activate", "small", "--sign", "boss", "--why", "a test")
    shutil.rmtree(tmp_path / "m")
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "1.png").write_bytes(builders.encoded(".png", builders.CHEST))
    batch = submission.submit(house, tmp_path / "scans", site_name="local").batch_id

    with decoder_pool(house.config) as decoders:
        tasks.work(Shift(house.config, house, "cpu", decoders))

    totals = reading.totals(house, batch)
    assert (totals.model, totals.scored) == ("small 1", 1)
