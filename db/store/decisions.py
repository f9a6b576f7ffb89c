"""What reviews come to, and what somebody may see and do before they have: pure rules, no database."""

from collections.abc import Iterable
from dataclasses import dataclass

from db.words import Role, Stage, State, Verdict

READ = (Role.READER, Role.ARBITER)  # who reads; an arbiter also decides where readers disagree
CLOSED = (State.DONE, State.WITHDRAWN)


@dataclass(frozen=True)
class Said:
    """One review, as far as the decision goes."""

    reader_id: int
    stage: Stage
    verdict: Verdict


@dataclass(frozen=True)
class Standing:
    """An entry as it stands before one person; `mine` are the stages of the reviews that they gave of it."""

    state: State
    blind: bool
    role: Role
    mine: frozenset[Stage]

    @property
    def sees_score(self) -> bool:
        """Score, flag, threshold and heat map: not before a blind entry is decided or they said what they see."""
        return not self.blind or self.state == State.DONE or bool(self.mine) or self._is_arbiters

    @property
    def sees_reviews(self) -> bool:
        """What others said: once nothing is open, or to decide between them."""
        return self.state in CLOSED or (self._is_arbiters and Stage.VERDICT not in self.mine)

    @property
    def may_read(self) -> bool:
        """A verdict of theirs is wanted, supersedes their own, or is a further look at what is decided."""
        return self.role in READ and (Stage.VERDICT in self.mine or self.state != State.ARBITER)

    @property
    def may_arbitrate(self) -> bool:
        """Nobody arbitrates where their own verdict counts; who had the last word may have it again."""
        is_open = self.state == State.ARBITER or (self.state == State.DONE and Stage.ARBITRATION in self.mine)
        return self.role == Role.ARBITER and is_open and Stage.VERDICT not in self.mine

    @property
    def needs_impression(self) -> bool:
        """They read it blind and have not said what they see."""
        return self.may_read and not self.sees_score

    @property
    def _is_arbiters(self) -> bool:
        return self.role == Role.ARBITER and self.state == State.ARBITER


def decide(reviews: Iterable[Said], readers: int) -> tuple[State, Verdict | None]:
    """Where an entry stands that `readers` must read, from everything that was said of it, oldest first. The newest
    verdict of each reader counts, an arbitration has the last word, impressions decide nothing."""
    verdicts: dict[int, Verdict] = {}
    last_word = None
    for said in reviews:
        if said.stage == Stage.VERDICT:
            verdicts[said.reader_id] = said.verdict
        elif said.stage == Stage.ARBITRATION:
            last_word = said.verdict
    if last_word is not None:
        return State.DONE, last_word
    if len(verdicts) < readers:
        return (State.SECOND if verdicts else State.UNREAD), None
    common = set(verdicts.values())
    if len(common) > 1 or common == {Verdict.UNSURE}:
        return State.ARBITER, None
    return State.DONE, common.pop()
