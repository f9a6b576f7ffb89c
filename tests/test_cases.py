"""Cases: where each scan stands, when it got there and by whom; what a blind entry hides; laboratory results."""

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from ledger import claim, found, scored, submitted
from sqlalchemy import delete, select

from db.errors import Refused
from db.schema import AuditEvent, Batch, CaseStep, Entry, Review, Scan
from db.store import case_lists, cases, intake, models, people, scoring
from db.store.cases import CaseState
from db.store.connection import connect
from db.store.laboratory import Fate, import_results
from db.store.sites import add_site, site_named
from db.words import Closing, LabResult, Reason, Role, Stage, State, Step, Verdict

AT = datetime(2026, 11, 20, 8, 30, tzinfo=UTC)
OFFSET = {"imaged": "2026-07-01T09:00:00-05:00"}


@pytest.fixture
def clinic(db):
    """The ids of a site in Berlin."""
    return add_site(db, "Charite", time_zone="Europe/Berlin", by="test")


def user(db, name, role=Role.READER, site="local"):
    people.add_user(db, name, role=role, password_hash="x", site_ids={site_named(db, site).id}, by="test")
    return people.user_named(db, name)


@pytest.fixture
def rosa(db):
    return user(db, "rosa")


@pytest.fixture
def centre(db):
    return user(db, "desk", Role.CENTRE)


def scan_of(db, name="a.png", *, score=0.9, reject=None, **more):
    """The id of a scan with its outcome; on no list."""
    submitted(db, [found(name, **more)], root=f"/{name}")
    held = claim(db)
    scan_id = held.scans[0].id
    result = scoring.Rejected(scan_id, reject, "a test") if reject else scored(held.scans[0], score)
    scoring.complete_chunk(db, held, [result])
    with db.writing() as session:
        session.execute(delete(Entry).where(Entry.scan_id == scan_id))
    return scan_id


def listed(db, scan_id, state=State.UNREAD, *, verdict=None, blind=False, hours=1.0):
    """Put a scan on the worklist in this state."""
    with db.writing() as session:
        scan = session.get_one(Scan, scan_id)
        batch = session.get_one(Batch, scan.batch_id)
        entry = Entry(
            scan_id=scan_id,
            trained_model_id=batch.trained_model_id,
            site_id=batch.site_id,
            batch_id=batch.id,
            score=0.9,
            rank=0.9,
            blind=blind,
            readers=1,
            state=state,
            verdict=verdict,
            submitted_at=AT,
            decided_at=AT + timedelta(hours=hours) if verdict else None,
        )
        session.add(entry)
    return scan_id


def said(db, scan_id, reader, verdict=Verdict.CONFIRM, stage=Stage.VERDICT):
    with db.writing() as session:
        session.add(Review(scan_id=scan_id, reader_id=reader.id, verdict=verdict, stage=stage, note="", at=AT))


def result(db, scan_id, found=LabResult.POSITIVE, at=AT, note=""):
    cases.add_step(db, scan_id, step=Step.LABORATORY, result=found, at=at, note=note, by="desk")


def close(db, scan_id, how=Closing.RELEASED):
    cases.add_step(db, scan_id, step=Step.CLOSED, result=how, at=AT, note="done", by="desk")


def steps(case):
    return [one.step for one in case.happened]


# Where a case stands


def test_a_case_tells_every_step_of_the_figure_with_time_and_person(db, rosa):
    tags = {"suspected": "2026-11-18", "imaged": "2026-11-19T07:05:00", "study_date": "20261119"}
    scan = listed(db, scan_of(db, patient="P1", tags=tags), State.DONE, verdict=Verdict.CONFIRM)
    said(db, scan, rosa)
    result(db, scan, note="PCR, cycle 21")
    close(db, scan, Closing.ISOLATED)

    case = cases.case(db, scan, me=rosa)

    assert steps(case) == [
        "suspected",
        "imaged",
        "screened",
        "flagged",
        "read",
        "laboratory",
        "closed",
    ]
    assert [one.by for one in case.happened][4:] == ["rosa", "desk", "desk"]
    assert [one.what for one in case.happened][4:] == ["confirm", "positive", "isolated"]
    assert case.happened[1].at == datetime(2026, 11, 19, 7, 5, tzinfo=UTC)
    assert case.happened[4].at == AT + timedelta(hours=1)
    assert case.happened[5].note == "PCR, cycle 21"
    assert (case.state, case.verdict, case.laboratory) == (CaseState.CLOSED, Verdict.CONFIRM, LabResult.POSITIVE)


def test_a_moment_without_a_zone_is_the_sites(db, clinic):
    what = intake.Submission(clinic, models.active(db).id, "/berlin")
    intake.add_page(db, what, [found("b.png", tags={"imaged": "2026-07-01T09:00:00"}), found("c.png", tags=OFFSET)])
    intake.seal(db, what)
    me = user(db, "ada", site="Charite")

    lines = case_lists.page(db, me=me)
    imaged = {line.path: cases.case(db, line.scan_id, me=me).happened[0].at for line in lines}

    assert imaged["b.png"] == datetime(2026, 7, 1, 7, 0, tzinfo=UTC)
    assert imaged["c.png"] == datetime(2026, 7, 1, 14, 0, tzinfo=UTC)


@pytest.mark.parametrize("nonsense", ["", "soon", "0001-01-01", "9999-12-31T23:59:59", 7, None, "2026-13-01"])
def test_a_file_that_states_no_moment_has_none(db, rosa, nonsense):
    scan = scan_of(db, tags={"imaged": nonsense})

    assert steps(cases.case(db, scan, me=rosa)) == ["screened", "flagged"]


def test_the_study_date_is_when_an_older_scan_was_imaged(db, rosa):
    scan = scan_of(db, tags={"study_date": "20261119"})

    assert cases.case(db, scan, me=rosa).happened[0].at == datetime(2026, 11, 19, tzinfo=UTC)


def test_a_file_that_could_not_be_screened_has_a_case_that_says_so(db, rosa):
    case = cases.case(db, scan_of(db, reject=Reason.TRUNCATED), me=rosa)

    assert (case.state, case.happened[-1].step, case.happened[-1].what) == ("unscreened", "unscreened", "truncated")


def test_the_word_of_an_arbiter_is_the_one_that_counts(db, rosa):
    ada, zoe = user(db, "ada"), user(db, "zoe", Role.ARBITER)
    scan = listed(db, scan_of(db), State.DONE, verdict=Verdict.DISMISS)
    said(db, scan, rosa, Verdict.CONFIRM)
    said(db, scan, ada, Verdict.DISMISS)
    said(db, scan, zoe, Verdict.DISMISS, Stage.ARBITRATION)

    read = cases.case(db, scan, me=rosa).happened[-1]

    assert (read.by, read.what) == ("zoe", "dismiss")


def test_two_readers_who_agree_are_both_named(db, rosa):
    ada = user(db, "ada")
    scan = listed(db, scan_of(db), State.DONE, verdict=Verdict.CONFIRM)
    said(db, scan, rosa, Verdict.DISMISS)
    said(db, scan, ada)
    said(db, scan, rosa)

    assert cases.case(db, scan, me=rosa).happened[-1].by == "ada, rosa"


def test_what_the_laboratory_said_last_counts_and_the_rest_stays(db, rosa):
    scan = listed(db, scan_of(db), State.DONE, verdict=Verdict.DISMISS)
    result(db, scan, LabResult.POSITIVE)
    result(db, scan, LabResult.NEGATIVE, note="the sample had been mixed up")

    case = cases.case(db, scan, me=rosa)

    assert (case.laboratory, case.is_discrepant) == (LabResult.NEGATIVE, False)
    assert [one.what for one in case.happened if one.step == "laboratory"] == ["positive", "negative"]


def test_a_case_is_reopened_with_a_reason_and_closed_again(db, rosa):
    scan = scan_of(db)
    close(db, scan)
    with pytest.raises(Refused, match="closed already"):
        close(db, scan)
    with pytest.raises(Refused, match="Say in the note why"):
        cases.add_step(db, scan, step=Step.REOPENED, result=None, at=AT, note=" ", by="desk")

    cases.add_step(db, scan, step=Step.REOPENED, result=None, at=AT, note="she came back", by="desk")

    assert cases.case(db, scan, me=rosa).state == CaseState.CLEARED
    with pytest.raises(Refused, match="is open"):
        cases.add_step(db, scan, step=Step.REOPENED, result=None, at=AT, note="again", by="desk")
    close(db, scan)
    assert cases.case(db, scan, me=rosa).state == CaseState.CLOSED


@pytest.mark.parametrize(
    ("step", "said"),
    [(Step.LABORATORY, "maybe"), (Step.LABORATORY, None), (Step.CLOSED, "positive"), (Step.CLOSED, None)],
)
def test_a_result_is_one_of_the_words_for_it(db, step, said):
    scan = scan_of(db)

    with pytest.raises(Refused, match="Choose one of"):
        cases.add_step(db, scan, step=step, result=said, at=AT, note="n", by="desk")

    with db.reading() as session:
        assert session.scalars(select(CaseStep)).all() == []


def test_what_has_not_come_yet_is_not_put_down(db):
    with pytest.raises(Refused, match="not come yet"):
        result(db, scan_of(db), at=datetime.now(UTC) + timedelta(days=2))


def test_every_step_is_on_record_with_ids_alone(db):
    scan = scan_of(db, patient="P-canary")
    result(db, scan, note="note-canary")

    with db.reading() as session:
        event = session.scalars(select(AuditEvent).where(AuditEvent.action == "case_step")).one()

    assert (event.actor, event.object) == ("desk", f"scan {scan}")
    assert event.detail == {"step": "laboratory", "result": "positive", "case_step": 1}


# What blindness hides


def test_a_blind_entry_hides_from_its_reader_what_would_tell_them_what_to_see(db, rosa, centre):
    scan = listed(db, scan_of(db), blind=True)
    result(db, scan)
    close(db, scan, Closing.ISOLATED)

    case, of_centre = cases.case(db, scan, me=rosa), cases.case(db, scan, me=centre)

    assert (case.is_hidden, case.state, case.laboratory) == (True, CaseState.TO_READ, None)
    assert steps(case) == ["screened"]
    assert (of_centre.is_hidden, of_centre.state) == (True, CaseState.CLOSED)
    assert steps(of_centre) == ["screened", "laboratory", "closed"]
    assert [line.state for line in case_lists.page(db, me=rosa, state=CaseState.TO_READ)] == [CaseState.TO_READ]
    assert case_lists.page(db, me=rosa, state=CaseState.CLOSED) == []


def test_an_impression_lifts_it_for_who_gave_it_alone(db, rosa):
    ada = user(db, "ada")
    scan = listed(db, scan_of(db), blind=True)
    said(db, scan, rosa, stage=Stage.IMPRESSION)

    assert steps(cases.case(db, scan, me=rosa)) == ["screened", "flagged"]
    assert steps(cases.case(db, scan, me=ada)) == ["screened"]


def test_an_arbiter_sees_what_is_theirs_to_decide(db, rosa):
    zoe = user(db, "zoe", Role.ARBITER)
    waiting, unread = listed(db, scan_of(db), State.ARBITER, blind=True), listed(db, scan_of(db, "b.png"), blind=True)

    assert not cases.case(db, waiting, me=zoe).is_hidden
    assert cases.case(db, unread, me=zoe).is_hidden
    assert cases.case(db, waiting, me=rosa).is_hidden


def test_nothing_is_hidden_once_the_entry_is_done(db, rosa):
    scan = listed(db, scan_of(db, score=0.1), State.DONE, verdict=Verdict.CONFIRM, blind=True)

    assert steps(cases.case(db, scan, me=rosa)) == ["screened", "cleared", "read"]


# Lists


def every_kind(db, rosa):
    """Scans in every constellation of outcome, entry, laboratory and closing."""
    entries = [None, *product([State.UNREAD, State.ARBITER], [None]), (State.WITHDRAWN, None)]
    entries += [(State.DONE, verdict) for verdict in Verdict]
    labs, blinds, ends = [None, LabResult.POSITIVE, LabResult.NEGATIVE], [False, True], [0, 1, 2]
    made = []
    for at, (entry, lab, blind, end) in enumerate(product(entries, labs, blinds, ends)):
        made.append((f"{at}.png", entry, lab, blind, end))
    submitted(db, [found(name) for name, *_ in made], chunk_size=500)
    held = claim(db)
    ids = {scan.path: scan.id for scan in held.scans}
    scoring.complete_chunk(db, held, [scored(scan, 0.1) for scan in held.scans])
    for name, entry, lab, blind, end in made:
        if entry:
            listed(db, ids[name], entry[0], verdict=entry[1], blind=blind)
        if lab:
            result(db, ids[name], lab)
        if end:
            close(db, ids[name])
        if end == 2:
            cases.add_step(db, ids[name], step=Step.REOPENED, result=None, at=AT, note="again", by="desk")
    for name in list(ids)[::5]:
        said(db, ids[name], rosa)
    scan_of(db, "rejected.png", reject=Reason.TRUNCATED)
    submitted(db, [found("waits.png")], root="/waits")
    return len(made) + 2


def test_lists_and_cases_agree_on_where_every_case_stands_whoever_asks(rosa_home):
    db, rosa = rosa_home
    count = every_kind(db, rosa)
    everybody = [rosa, user(db, "zoe", Role.ARBITER), user(db, "desk2", Role.CENTRE)]

    for me in everybody:
        lines = case_lists.page(db, me=me, limit=1000)
        assert len(lines) == count
        alone = {line.scan_id: cases.case(db, line.scan_id, me=me) for line in lines}
        for line in lines:
            case = alone[line.scan_id]
            of_line = (line.state, line.verdict, line.laboratory, line.is_discrepant)
            assert of_line == (case.state, case.verdict, case.laboratory, case.is_discrepant), line
        for state in CaseState:
            of_state = {line.scan_id for line in case_lists.page(db, me=me, state=state, limit=1000)}
            assert of_state == {line.scan_id for line in lines if line.state == state}, (me.role, state)
            assert of_state, (me.role, state)
        odd = {line.scan_id for line in case_lists.page(db, me=me, is_discrepant=True, limit=1000)}
        assert odd == {scan_id for scan_id, case in alone.items() if case.is_discrepant and not case.is_closed}
        assert odd


@pytest.fixture
def rosa_home(home):
    db = connect(home)
    yield db, user(db, "rosa")
    db.engine.dispose()


def test_a_positive_result_against_a_dismissal_or_a_clearing_is_a_discrepancy(db, rosa):
    dismissed = listed(db, scan_of(db), State.DONE, verdict=Verdict.DISMISS)
    cleared, confirmed = (
        scan_of(db, "b.png", score=0.1),
        listed(db, scan_of(db, "c.png"), State.DONE, verdict="confirm"),
    )
    negative = listed(db, scan_of(db, "d.png"), State.DONE, verdict=Verdict.DISMISS)
    for scan in (dismissed, cleared, confirmed):
        result(db, scan)
    result(db, negative, LabResult.NEGATIVE)

    odd = case_lists.page(db, me=rosa, is_discrepant=True)

    assert [line.scan_id for line in odd] == [cleared, dismissed]
    assert case_lists.discrepancies(db, me=rosa) == 2
    close(db, dismissed)
    assert case_lists.discrepancies(db, me=rosa) == 1


def test_lists_hold_ones_own_sites_alone_and_go_on_where_the_page_before_ended(db, rosa):
    scans = [scan_of(db, f"{n}.png") for n in range(5)]
    elsewhere = add_site(db, "elsewhere", by="test")
    stranger = user(db, "sam", site="elsewhere")

    first = case_lists.page(db, me=rosa, limit=3)
    rest = case_lists.page(db, me=rosa, before=first[-1].scan_id, limit=3)

    assert [line.scan_id for line in (*first, *rest)] == scans[::-1]
    assert case_lists.page(db, me=stranger) == []
    assert case_lists.page(db, me=rosa, site_id=elsewhere) == []
    assert case_lists.search(db, "0.png", me=stranger) == []


def test_a_case_is_found_by_patient_study_or_file(db, rosa):
    scan = scan_of(db, "a%b.png", patient="P-17", study="1.2.3")
    scan_of(db, "other.png", patient="Q")

    for text in ("P-17", "P-", "1.2", "a%b.png"):
        assert [line.scan_id for line in case_lists.search(db, text, me=rosa)] == [scan], text
    for text in ("", "17", "%", "_-17", "b.png"):
        assert case_lists.search(db, text, me=rosa) == [], text


# Time to the verdict


def test_the_time_from_submission_to_verdict_has_a_median_and_a_ninetieth_percentile(db, rosa):
    assert cases.turnaround(db) == cases.Turnaround(0, None, None)
    for hour in range(1, 11):
        listed(db, scan_of(db, f"{hour}.png"), State.DONE, verdict=Verdict.CONFIRM, hours=hour)
    listed(db, scan_of(db, "unread.png"))
    site = site_named(db, "local").id

    assert cases.turnaround(db) == cases.Turnaround(10, 5.5 * 3600, 9 * 3600)
    assert cases.turnaround(db, site_id=site, site_ids={site}, since=AT).n == 10
    assert cases.turnaround(db, batch_id=1) == cases.Turnaround(1, 3600, 3600)
    assert cases.turnaround(db, since=AT + timedelta(seconds=1)).n == 0
    assert cases.turnaround(db, site_ids=set()).n == 0


# Laboratory results from a CSV


def imported(db, *lines, site="local", header="patient,study,path,result,at,note"):
    text = [header + "\n", *(line + "\n" for line in lines)]
    return import_results(db, text, site_id=site_named(db, site).id, by="cli:op")


def count_steps(db):
    with db.reading() as session:
        return len(session.scalars(select(CaseStep)).all())


def test_every_line_of_a_laboratorys_file_is_accounted_for(db, rosa):
    one, two = scan_of(db, "a.png", patient="P1", study="S1"), scan_of(db, "b.png", patient="P2", study="S2")
    scan_of(db, "c.png", patient="P2", study="S3")

    done = imported(
        db,
        "P1,,,Positive,2026-11-20,PCR",
        "P2,S2,,negative,2026-11-20 18:30,",
        "P2,,,negative,2026-11-20,",
        "P9,,,negative,2026-11-20,",
        ",,b.png,maybe,2026-11-20,",
        ",,,negative,2026-11-20,",
        "P1,,,negative,yesterday,",
        "P1,,,negative,2126-01-01,",
        "P1,,,negative,2026-11-20,n,one too many",
        "P1,S2,,negative,2026-11-20,",
    )

    counts = {fate: done.counts[fate] for fate in Fate}
    assert counts == {Fate.APPLIED: 2, Fate.KNOWN: 0, Fate.UNKNOWN: 2, Fate.AMBIGUOUS: 1, Fate.WRONG: 5}
    assert (done.lines, done.is_complete) == (10, False)
    assert [(problem.line, problem.fate) for problem in done.problems] == [
        (4, "ambiguous"),
        (5, "unknown"),
        (6, "wrong"),
        (7, "wrong"),
        (8, "wrong"),
        (9, "wrong"),
        (10, "wrong"),
        (11, "unknown"),
    ]
    assert cases.case(db, one, me=rosa).laboratory == LabResult.POSITIVE
    assert cases.case(db, two, me=rosa).laboratory == LabResult.NEGATIVE
    assert not any("P1" in problem.why or "P2" in problem.why for problem in done.problems)


def test_the_same_file_again_changes_nothing_and_a_correction_is_added(db, rosa):
    scan = scan_of(db, patient="P1")
    first = "P1,,,positive,2026-11-20 08:00,PCR"
    imported(db, first)

    again = imported(db, first, first)
    corrected = imported(db, first, "P1,,,negative,2026-11-21 08:00,repeated")
    imported(db, first)

    assert (again.counts[Fate.KNOWN], again.is_complete, corrected.counts[Fate.APPLIED]) == (2, True, 1)
    assert count_steps(db) == 2
    assert cases.case(db, scan, me=rosa).laboratory == LabResult.NEGATIVE


def test_a_result_belongs_to_every_scan_of_the_study(db, rosa):
    scans = [scan_of(db, f"{view}.png", patient="P1", study="S1") for view in ("pa", "ap")]

    assert imported(db, "P1,,,positive,2026-11-20,").counts[Fate.APPLIED] == 1

    assert [cases.case(db, scan, me=rosa).laboratory for scan in scans] == ["positive", "positive"]


def test_two_scans_of_a_patient_without_a_study_are_ambiguous_and_a_second_copy_is_nobodys(db, rosa):
    for name in ("a.png", "b.png"):
        scan_of(db, name, patient="P1")
    scan_of(db, "c.png", patient="P2")
    submitted(db, [found("copy.png", "c.png", patient="P2")], root="/copies")

    done = imported(db, "P1,,,positive,2026-11-20,", "P2,,,positive,2026-11-20,")

    assert (done.counts[Fate.AMBIGUOUS], done.counts[Fate.APPLIED]) == (1, 1)


def test_a_file_means_scans_of_its_own_site_alone(db):
    scan_of(db, patient="P1")
    add_site(db, "elsewhere", by="test")

    assert imported(db, "P1,,,positive,2026-11-20,", site="elsewhere").counts[Fate.UNKNOWN] == 1
    assert count_steps(db) == 0


def test_a_moment_of_the_laboratory_is_of_the_sites_time(db, clinic):
    what = intake.Submission(clinic, models.active(db).id, "/berlin")
    intake.add_page(db, what, [found("b.png", patient="P1")])

    imported(db, "P1,,,positive,2026-07-01 09:00,", site="Charite")

    with db.reading() as session:
        assert session.scalars(select(CaseStep.at)).one() == datetime(2026, 7, 1, 7, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "result,at",
        "patient,result",
        "patient,at",
        "patient;result;at",
        "patient,result,at,secret",
        "path,path,result,at",
    ],
)
def test_a_file_with_another_first_line_is_refused_whole(db, header):
    with pytest.raises(Refused, match="first line"):
        imported(db, "P1,positive,2026-11-20", header=header)


@pytest.mark.parametrize("cell", ["P\0", "P\udcff", '"P\nQ"', "x" * 3000])
def test_a_line_with_senseless_cells_is_accounted_for_too(db, cell):
    done = imported(db, f"{cell},,,positive,2026-11-20,{'n' if len(cell) < 9 else cell}")

    assert done.lines == 1
    assert not done.is_complete


def test_a_file_that_is_no_csv_is_refused_whole(db):
    scan_of(db, patient="P1")

    with pytest.raises(Refused, match="Line 3 is no CSV"):
        imported(db, "P1,,,positive,2026-11-20,", "x" * 200_000)

    assert count_steps(db) == 0
