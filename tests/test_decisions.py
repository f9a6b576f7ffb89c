"""What reviews come to, and who may see and say what: the rules, for every case there is."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.store.decisions import Said, Standing, decide
from db.words import Role, Stage, State, Verdict

SAID = st.builds(Said, st.integers(1, 4), st.sampled_from(Stage), st.sampled_from(Verdict))
REVIEWS, READERS = st.lists(SAID, max_size=8), st.integers(1, 2)
KINDS = [frozenset(), *map(frozenset, ([Stage.IMPRESSION], [Stage.VERDICT], [Stage.IMPRESSION, Stage.VERDICT]))]
STANDINGS = [Standing(*case) for case in product(State, (True, False), Role, [*KINDS, frozenset({Stage.ARBITRATION})])]


def verdicts_that_count(reviews):
    return {said.reader_id: said.verdict for said in reviews if said.stage == Stage.VERDICT}


def without(reviews, stage):
    return [said for said in reviews if said.stage != stage]


@given(REVIEWS, READERS)
def test_impressions_decide_nothing(reviews, readers):
    assert decide(reviews, readers) == decide(without(reviews, Stage.IMPRESSION), readers)


@given(REVIEWS, READERS, SAID)
def test_an_arbitration_has_the_last_word(reviews, readers, said):
    arbitration = Said(said.reader_id, Stage.ARBITRATION, said.verdict)

    assert decide([*reviews, arbitration], readers) == (State.DONE, said.verdict)
    assert decide([*reviews, arbitration, Said(9, Stage.VERDICT, Verdict.DISMISS)], readers) == (
        State.DONE,
        said.verdict,
    )


@given(REVIEWS, READERS)
def test_without_one_it_is_done_exactly_where_enough_readers_say_the_same_and_are_sure(reviews, readers):
    reviews = without(reviews, Stage.ARBITRATION)
    said = list(verdicts_that_count(reviews).values())

    state, verdict = decide(reviews, readers)

    agreed = len(said) >= readers and len(set(said)) == 1 and Verdict.UNSURE not in said
    assert (state == State.DONE) == agreed
    assert verdict == (said[0] if agreed else None)


@given(REVIEWS, READERS)
def test_it_waits_for_readers_until_there_are_enough_and_then_for_an_arbiter(reviews, readers):
    reviews = without(reviews, Stage.ARBITRATION)
    said = len(verdicts_that_count(reviews))

    state, _ = decide(reviews, readers)

    if said < readers:
        assert state == (State.SECOND if said else State.UNREAD)
    else:
        assert state in (State.ARBITER, State.DONE)


@given(REVIEWS, READERS, st.randoms(use_true_random=False))
def test_only_the_newest_verdict_of_each_reader_counts_in_whatever_order_they_came(reviews, readers, chance):
    reviews = without(reviews, Stage.ARBITRATION)
    newest = [Said(reader, Stage.VERDICT, verdict) for reader, verdict in verdicts_that_count(reviews).items()]
    chance.shuffle(newest)

    assert decide(newest, readers) == decide(reviews, readers)


@given(REVIEWS, READERS)
def test_a_verdict_is_undone_by_saying_the_earlier_one_again(reviews, readers):
    counting = without(reviews, Stage.ARBITRATION)
    for reader, verdict in verdicts_that_count(counting).items():
        changed = [*counting, Said(reader, Stage.VERDICT, Verdict.REPEAT), Said(reader, Stage.VERDICT, verdict)]
        assert decide(changed, readers) == decide(counting, readers)


@pytest.mark.parametrize(
    ("first", "second", "comes_to"),
    [
        (Verdict.CONFIRM, Verdict.CONFIRM, (State.DONE, Verdict.CONFIRM)),
        (Verdict.CONFIRM, Verdict.DISMISS, (State.ARBITER, None)),
        (Verdict.UNSURE, Verdict.UNSURE, (State.ARBITER, None)),
        (Verdict.UNSURE, Verdict.CONFIRM, (State.ARBITER, None)),
        (Verdict.REPEAT, Verdict.REPEAT, (State.DONE, Verdict.REPEAT)),
    ],
)
def test_two_readers_come_to(first, second, comes_to):
    said = [Said(1, Stage.VERDICT, first), Said(2, Stage.VERDICT, second)]

    assert decide(said, 2) == decide(said, 1) == comes_to


@pytest.mark.parametrize("standing", STANDINGS)
def test_a_blind_score_is_seen_only_once_decided_by_who_said_something_or_by_whoever_arbitrates(standing):
    arbitrates = standing.role == Role.ARBITER and standing.state == State.ARBITER

    assert standing.sees_score == (
        not standing.blind or standing.state == State.DONE or standing.mine != frozenset() or arbitrates
    )


@pytest.mark.parametrize("standing", STANDINGS)
def test_what_others_said_is_seen_only_once_nothing_is_open_or_to_decide_between_them(standing):
    decides = standing.role == Role.ARBITER and standing.state == State.ARBITER and Stage.VERDICT not in standing.mine

    assert standing.sees_reviews == (standing.state in (State.DONE, State.WITHDRAWN) or decides)


@pytest.mark.parametrize("standing", STANDINGS)
def test_readers_read_arbiters_arbitrate_and_nobody_judges_their_own_verdict(standing):
    reads = standing.role in (Role.READER, Role.ARBITER)

    assert not standing.may_read or reads
    assert not standing.may_arbitrate or (standing.role == Role.ARBITER and Stage.VERDICT not in standing.mine)
    assert not standing.may_arbitrate or standing.state in (State.ARBITER, State.DONE)
    assert not standing.needs_impression or (standing.blind and standing.may_read and not standing.mine)
    if reads and standing.state in (State.UNREAD, State.SECOND):
        assert standing.may_read
    if standing.role == Role.ARBITER and standing.state == State.ARBITER:
        assert standing.may_arbitrate == (Stage.VERDICT not in standing.mine)
