"""Which keys are one patient, whatever the order in which merges come."""

from datetime import UTC, datetime, timedelta
from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from services.fusion.merges import Merge, survivors

START = datetime(2025, 1, 1, tzinfo=UTC)


def merge(merged, surviving, hour, undone=None):
    return Merge(START + timedelta(hours=hour), merged, surviving, undone)


def test_chains_are_followed_in_any_order():
    for order in permutations([merge("a", "b", 1), merge("b", "c", 2), merge("d", "a", 3)]):
        assert survivors(order) == {"a": "c", "b": "c", "d": "c"}


def test_a_later_merge_the_other_way_turns_it_round():
    assert survivors([merge("a", "b", 1), merge("b", "a", 2)]) == {"b": "a"}


def test_an_undone_merge_counts_for_nothing():
    assert survivors([merge("a", "b", 1, undone=START), merge("c", "b", 2)]) == {"c": "b"}


merges = st.lists(
    st.builds(merge, st.sampled_from("abcde"), st.sampled_from("abcde"), st.integers(0, 5), st.none() | st.just(START)),
    max_size=8,
)


@given(merges, st.randoms())
def test_a_survivor_is_never_merged_and_order_does_not_matter(links, random):
    final = survivors(links)
    assert not set(final.values()) & set(final)
    shuffled = links * 2
    random.shuffle(shuffled)
    assert survivors(shuffled) == final
