"""What a reader says of a scan: the form, which act it is, and what is wrong with it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from flask import request
from werkzeug.datastructures import MultiDict

from db.store.entries import EntryView
from db.store.reading import ReviewView, ScanView
from db.words import Kind, Stage, State, Verdict
from webui.guard import READS, database, me
from webui.text import _

NOTE_CHARACTERS = 10_000


@dataclass(frozen=True)
class Choice:
    """One verdict as the form shows it."""

    letter: str
    word: str
    meaning: str


CHOICES: Mapping[Verdict, Choice] = {
    Verdict.CONFIRM: Choice("C", _("Confirm"), _("suspicious")),
    Verdict.DISMISS: Choice("D", _("Dismiss"), _("nothing suspicious")),
    Verdict.UNSURE: Choice("U", _("Unsure"), _("another look")),
    Verdict.REPEAT: Choice("P", _("Repeat"), _("take it again")),
}
STAGES: Mapping[Stage, str] = {
    Stage.IMPRESSION: _("Your first impression"),
    Stage.VERDICT: _("Your verdict"),
    Stage.ARBITRATION: _("Your arbitration: the last word"),
}
STATES: Mapping[State, str] = {
    State.UNREAD: _("not read yet"),
    State.SECOND: _("waits for a second reader"),
    State.ARBITER: _("waits for an arbiter"),
    State.DONE: _("read"),
    State.WITHDRAWN: _("no longer flagged"),
}


@dataclass(frozen=True)
class Said:
    """A form as it was sent; `problem` says what is wrong with it, `is_stale` that the scan has moved on meanwhile."""

    stage: Stage = Stage.VERDICT
    verdict: Verdict = Verdict.UNSURE
    findings: tuple[str, ...] = ()
    note: str = ""
    problem: str = ""
    is_stale: bool = False
    has_verdict: bool = True

    def but(self, problem: str) -> "Said":
        """The same, refused by the store."""
        return replace(self, problem=problem[:1].upper() + problem[1:] + ".", is_stale=True)


def stage_of(scan: ScanView, entry: EntryView | None) -> Stage | None:
    """Which act is this reader's on a scan now; None where it is not theirs to say anything."""
    if me().role not in READS or scan.outcome is None or scan.outcome.kind != Kind.SCORED:
        return None
    if entry is None:
        return Stage.VERDICT  # a second look at what the machine cleared always counts
    if entry.may_arbitrate:
        return Stage.ARBITRATION
    if entry.needs_impression:
        return Stage.IMPRESSION
    return Stage.VERDICT if entry.may_read else None


def is_wanted(entry: EntryView | None) -> bool:
    """Whether this reader's say is waited for: who only looks does not keep a scan from others."""
    if entry is None or me().role not in READS:
        return False
    if entry.state == State.ARBITER:
        return entry.may_arbitrate
    is_said = any(review.stage != Stage.IMPRESSION for review in entry.my_reviews)
    return entry.state in (State.UNREAD, State.SECOND) and not is_said


def read(form: MultiDict[str, str], scan: ScanView, entry: EntryView | None) -> Said:
    """What a form says."""
    stage = stage_of(scan, entry)
    known = database().config.findings
    said = Said(
        stage=stage or Stage.VERDICT,
        findings=tuple(word for word in known if word in form.getlist("findings")),
        note=form.get("note", "").replace("\r\n", "\n").replace("\0", "").strip(),
        has_verdict=False,
    )
    if stage is None or form.get("stage", stage) != stage:
        return replace(said, problem=_("This scan has moved on since you opened it: look again."), is_stale=True)
    try:
        said = replace(said, verdict=Verdict(form.get("verdict", "")), has_verdict=True)
    except ValueError:
        return replace(said, problem=_("Choose confirm, dismiss, unsure or repeat first."))
    if len(said.note) > NOTE_CHARACTERS:
        return replace(said, problem=_("A note may have %s characters.") % f"{NOTE_CHARACTERS:,}")
    return said


def before(entry: EntryView | None, *, is_again: bool) -> ReviewView | None:
    """What the form starts from: the first impression once the score is shown, or the verdict to be changed."""
    mine = entry.my_reviews if entry else []
    if not mine:
        return None
    return mine[0] if is_again or mine[0].stage == Stage.IMPRESSION else None


def thanks(said: Said, state: State) -> str:
    """What is told once it is saved."""
    if said.stage == Stage.IMPRESSION:
        return _("Impression saved: %s. The same key, or Enter, keeps it.") % said.verdict
    words = {
        State.SECOND: _("Saved: %s. A second reader reads it, too."),
        State.ARBITER: _("Saved: %s. It goes to an arbiter."),
    }
    return words.get(state, _("Saved: %s.")) % said.verdict


def wants_json() -> bool:
    """Whether a script of ours asks, and not a form."""
    return request.headers.get("Accept") == "application/json"
