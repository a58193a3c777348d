"""The contract that every store of budgets keeps; each test is given a store that is empty.

Not collected by itself: `test_stores.py` runs it for memory and SQLite, `tests/stack/test_budget_redis.py` for Redis.
"""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING

import pytest

from tollspan.budget.habits import merged
from tollspan.budget.policy.enforcement import CUT, HARD, SOFT, USUAL
from tollspan.budget.stores import Charge, CounterState, CounterUpdate

if TYPE_CHECKING:
    from tollspan.budget.stores import Store

NOW = 1_790_000_000.0
UNTIL = NOW + 900
DOLLAR = 10**18


def update(amount: int, limit: int | None = DOLLAR, **more: object) -> CounterUpdate:
    """Return an update of the counter `a`, of the budget `A`."""
    return CounterUpdate(**{"key": "a", "name": "A", "amount": amount, "limit": limit, **more})  # type: ignore[arg-type]


def amounts(store: Store, now: float = NOW, key: str = "a") -> tuple[int, int]:
    """Return what is spent and reserved on a counter."""
    ((spent, reserved, _),) = store.states([update(0, key=key)], now)
    return spent, reserved


class StoreContract:
    """What every store does."""

    shares_habits = True

    def test_reserves_and_settles(self, store: Store) -> None:
        """A reservation counts at once, and is replaced by what was really spent."""
        verdict = store.reserve("1", [update(600)], NOW, UNTIL)
        assert verdict == (None, (CounterState(0, 600, DOLLAR),), (600,))
        settled = store.settle("1", [Charge("a", 0, 250)], NOW)
        assert settled is not None
        assert settled[0][:2] == (250, 0)
        assert amounts(store) == (250, 0)

    def test_limit_is_reached_and_not_passed(self, store: Store) -> None:
        """Exactly the limit can be reserved, and not one atto-dollar more."""
        assert store.reserve("1", [update(DOLLAR)], NOW, UNTIL).refused is None
        refused = store.reserve("2", [update(1)], NOW, UNTIL)
        assert refused.refused == 0
        assert refused.states == (CounterState(0, DOLLAR, DOLLAR),)
        assert amounts(store) == (0, DOLLAR)

    def test_all_or_nothing(self, store: Store) -> None:
        """Where one of several budgets cannot pay, none of them reserves anything."""
        lines = [update(500), update(500, limit=499, key="b", name="B"), update(500, key="c", name="C")]
        assert store.reserve("1", lines, NOW, UNTIL).refused == 1
        assert [amounts(store, key=key) for key in "abc"] == [(0, 0)] * 3

    def test_amounts_are_exact(self, store: Store) -> None:
        """Amounts far beyond 64 bits add up to the last atto-dollar."""
        big = 123_456_789_012_345_678_901_234_567
        store.reserve("1", [update(big, limit=None)], NOW, UNTIL)
        store.settle("1", [Charge("a", 0, big - 1)], NOW)
        for number in range(20):
            store.reserve(f"x{number}", [update(999_999_999_999_999, limit=None)], NOW, UNTIL)
            store.settle(f"x{number}", [Charge("a", 0, 999_999_999_999_999)], NOW)
        assert amounts(store) == (big - 1 + 20 * 999_999_999_999_999, 0)
        just = update(1, limit=big + 20 * 999_999_999_999_999)
        assert store.reserve("2", [just], NOW, UNTIL).refused is None
        assert store.reserve("3", [just], NOW, UNTIL).refused == 0

    def test_settles_once(self, store: Store) -> None:
        """An attempt is charged once, however often it is settled; one never reserved is not charged at all."""
        store.reserve("1", [update(600)], NOW, UNTIL)
        store.settle("1", [Charge("a", 0, 250)], NOW)
        assert store.settle("1", [Charge("a", 0, 250)], NOW) is None
        assert store.settle("2", [Charge("a", 0, 250)], NOW) is None
        assert amounts(store) == (250, 0)

    def test_reserves_once(self, store: Store) -> None:
        """An attempt that asks again, because the first answer was lost, is reserved once."""
        store.reserve("1", [update(600)], NOW, UNTIL)
        assert store.reserve("1", [update(600)], NOW, UNTIL).refused is None
        assert amounts(store) == (0, 600)
        store.reserve("2", [update(DOLLAR - 600)], NOW, UNTIL)
        assert store.reserve("1", [update(600)], NOW, UNTIL).refused is None
        assert amounts(store) == (0, DOLLAR)

    def test_release(self, store: Store) -> None:
        """A call that was never sent frees its reservation and is charged nothing."""
        store.reserve("1", [update(600), update(600, key="b", name="B")], NOW, UNTIL)
        store.settle("1", (), NOW)
        assert amounts(store) == amounts(store, key="b") == (0, 0)

    def test_ended_lease_is_charged(self, store: Store) -> None:
        """A reservation whose lease ends is spent, for the call may have been made, and is marked as uncertain."""
        store.reserve("1", [update(600)], NOW, UNTIL)
        assert amounts(store, UNTIL - 1) == (0, 600)
        assert amounts(store, UNTIL) == (600, 0)
        (counter,) = store.counters(UNTIL)
        assert (counter.spent, counter.uncertain, counter.reserved) == (600, 600, 0)

    def test_late_settling_puts_the_real_cost(self, store: Store) -> None:
        """A call that ends after its lease is charged what it cost, in the place of its reservation, once."""
        store.reserve("1", [update(600)], NOW, UNTIL)
        assert amounts(store, UNTIL + 1) == (600, 0)
        store.settle("1", [Charge("a", 0, 250)], UNTIL + 2)
        assert amounts(store, UNTIL + 3) == (250, 0)
        assert store.settle("1", [Charge("a", 0, 250)], UNTIL + 4) is None
        (counter,) = store.counters(UNTIL + 5)
        assert counter.uncertain == 0

    def test_uncertain_charges_are_kept_apart(self, store: Store) -> None:
        """What was charged without being known is part of spent, and shown as uncertain."""
        store.reserve("1", [update(600)], NOW, UNTIL)
        store.settle("1", [Charge("a", 0, 600, 350)], NOW)
        (counter,) = store.counters(NOW)
        assert (counter.name, counter.spent, counter.uncertain) == ("A", 600, 350)

    def test_soft_budget_only_counts(self, store: Store) -> None:
        """A budget that warns reserves past its limit."""
        assert store.reserve("1", [update(DOLLAR + 5, mode=SOFT)], NOW, UNTIL).refused is None
        assert amounts(store) == (0, DOLLAR + 5)

    def test_cut_takes_what_is_left(self, store: Store) -> None:
        """A budget that cuts streams reserves what is left, and refuses where nothing is."""
        store.reserve("1", [update(DOLLAR - 7)], NOW, UNTIL)
        assert store.reserve("2", [update(100, mode=CUT)], NOW, UNTIL).amounts == (7,)
        assert store.reserve("3", [update(100, mode=CUT)], NOW, UNTIL).refused == 0
        store.settle("2", (), NOW)
        assert amounts(store) == (0, DOLLAR - 7)

    def test_least_takes_what_is_left(self, store: Store) -> None:
        """What is left is reserved in place of the amount, if that is no less than the update allows."""
        store.reserve("1", [update(DOLLAR - 7)], NOW, UNTIL)
        assert store.reserve("2", [update(100, mode=HARD, least=8)], NOW, UNTIL).refused == 0
        assert store.reserve("3", [update(100, mode=HARD, least=7)], NOW, UNTIL).amounts == (7,)
        assert store.reserve("4", [update(100, mode=HARD, least=1)], NOW, UNTIL).refused == 0

    def test_usual_takes_what_is_left_if_nothing_is_under_way(self, store: Store) -> None:
        """Less than the limit is spent, and nothing is under way: a call is admitted, whatever it may cost."""
        store.charge([update(DOLLAR - 7)], NOW)
        assert store.reserve("1", [update(100, mode=USUAL, least=50)], NOW, UNTIL).amounts == (7,)
        assert store.reserve("2", [update(100, mode=USUAL, least=50)], NOW, UNTIL).refused == 0
        store.settle("1", [Charge("a", 0, 7)], NOW)
        assert store.reserve("3", [update(1, mode=USUAL)], NOW, UNTIL).refused == 0

    def test_charge_goes_past_the_limit(self, store: Store) -> None:
        """A call that was not checked is counted, whatever the limit is."""
        (after,) = store.charge([update(DOLLAR + 1)], NOW)
        assert after == CounterState(DOLLAR + 1, 0, DOLLAR)
        assert store.reserve("1", [update(1)], NOW, UNTIL).refused == 0

    def test_own_limit(self, store: Store) -> None:
        """A limit that is set applies to the next reservation, and taken back the configured one does."""
        store.set_limit("A", 100)
        assert store.limits() == {"A": 100}
        assert store.reserve("1", [update(101)], NOW, UNTIL).refused == 0
        store.set_limit("A", 2 * DOLLAR)
        assert store.reserve("2", [update(DOLLAR + 1)], NOW, UNTIL).refused is None
        store.set_limit("A", None)
        assert store.reserve("3", [update(1)], NOW, UNTIL).states == (CounterState(0, DOLLAR + 1, DOLLAR),)

    def test_reset_keeps_what_is_under_way(self, store: Store) -> None:
        """A reset forgets what was spent; a call that is under way is charged when it ends."""
        store.charge([update(500)], NOW)
        store.reserve("1", [update(600)], NOW, UNTIL)
        store.reset(["a"])
        assert amounts(store) == (0, 600)
        store.settle("1", [Charge("a", 0, 250)], NOW)
        assert amounts(store) == (250, 0)

    def test_reset_between_lease_and_late_settling(self, store: Store) -> None:
        """What a reset has forgotten is not taken back a second time by a call that ends after it."""
        store.reserve("1", [update(600)], NOW, UNTIL)
        assert amounts(store, UNTIL) == (600, 0)
        store.reset(["a"])
        store.charge([update(70)], UNTIL)
        store.settle("1", [Charge("a", 0, 250)], UNTIL)
        assert amounts(store, UNTIL) == (320, 0)

    def test_window_rolls(self, store: Store) -> None:
        """In a rolling window what was spent frees itself slot by slot; what is reserved stays until it is settled."""
        store.charge([update(400, slot=10, first=1)], NOW)
        store.charge([update(500, slot=20, first=1)], NOW)
        store.reserve("1", [update(50, slot=20, first=1)], NOW, UNTIL)
        assert store.states([update(0, slot=60, first=1)], NOW)[0][:2] == (900, 50)
        assert store.states([update(0, slot=75, first=15)], NOW)[0][:2] == (500, 50)
        assert store.states([update(0, slot=85, first=25)], NOW)[0][:2] == (0, 50)
        store.settle("1", [Charge("a", 20, 50)], NOW)
        assert store.states([update(0, slot=85, first=25)], NOW)[0][:2] == (0, 0)

    def test_clock_that_is_set_back(self, store: Store) -> None:
        """What is counted at a moment before the window's last one counts in it: no limit is passed, nothing lost."""
        for number in range(2):
            store.reserve(f"a{number}", [update(1, limit=5, slot=100, first=91)], NOW, UNTIL)
            store.settle(f"a{number}", [Charge("a", 100, 1)], NOW)
        passed = 0
        for number in range(20):
            if store.reserve(f"b{number}", [update(1, limit=5, slot=50, first=41)], NOW, UNTIL).refused is None:
                store.settle(f"b{number}", [Charge("a", 50, 1)], NOW)
                passed += 1
        store.charge([update(1, limit=5, slot=50, first=41)], NOW)
        spent, reserved, _ = store.states([update(0, slot=100, first=41)], NOW)[0]
        assert (passed, spent, reserved) == (3, 6, 0)

    def test_a_part_is_settled_and_the_rest_stays(self, store: Store) -> None:
        """A part is charged, the reservation shrinks by what is released, and the end releases what is left."""
        store.reserve("1", [update(600), update(2, limit=9, key="b", name="B")], NOW, UNTIL)
        states = store.settle_part("1", "p1", [Charge("a", 0, 250), Charge("b", 0, 1)], [250, 1], NOW)
        assert states is not None
        assert [state[:2] for state in states] == [(250, 350), (1, 1)]
        again = store.settle_part("1", "p1", [Charge("a", 0, 250), Charge("b", 0, 1)], [250, 1], NOW)
        assert again == ()  # a part counts once
        store.settle_part("1", "p2", [Charge("a", 0, 5)], [10**30], NOW)  # no more is released than is left
        assert (amounts(store), amounts(store, key="b")) == ((255, 0), (1, 1))
        store.settle("1", [], NOW)
        assert (amounts(store), amounts(store, key="b")) == ((255, 0), (1, 0))
        assert store.settle_part("1", "p3", [Charge("a", 0, 5)], [5], NOW) is None

    def test_a_part_that_is_settled_after_its_lease(self, store: Store) -> None:
        """A lease that has ended is charged; each part that is read later, up to a month, corrects that."""
        later = UNTIL + 30 * 86_400
        store.reserve("1", [update(10**20, limit=None)], NOW, UNTIL)
        assert amounts(store, UNTIL) == (10**20, 0)
        states = store.settle_part("1", "p3", [Charge("a", 0, 10**18)], [10**18], later)
        assert states is not None
        assert states[0][:2] == (10**20, 0)
        states = store.settle("1", [Charge("a", 0, 0)], later)
        assert states is not None
        assert states[0][:2] == (10**18, 0)

    def test_a_part_that_is_settled_after_a_reset(self, store: Store) -> None:
        """A reset has cleared the charge of a lease that had ended: only what is read later counts."""
        store.reserve("1", [update(600)], NOW, UNTIL)
        assert amounts(store, UNTIL) == (600, 0)
        store.reset(["a"])
        store.settle_part("1", "p3", [Charge("a", 0, 40)], [40], UNTIL)
        store.settle("1", [], UNTIL)
        assert amounts(store, UNTIL) == (40, 0)

    def test_a_part_in_a_rolling_window(self, store: Store) -> None:
        """A part counts in the slot of its reservation, and what has left the window is charged to no other slot."""
        store.reserve("1", [update(600, slot=50, first=41)], NOW, UNTIL)
        store.settle_part("1", "p3", [Charge("a", 50, 100)], [100], NOW)
        assert store.states([update(0, slot=55, first=46)], NOW)[0][:2] == (100, 500)
        assert store.states([update(0, slot=70, first=61)], NOW)[0][:2] == (0, 500)
        store.settle("1", [], NOW)
        assert store.states([update(0, slot=70, first=61)], NOW)[0][:2] == (0, 0)

    def test_notes(self, store: Store) -> None:
        """A note is kept by kind and name until its time is over; a later one replaces it."""
        for text in ("old", 'new "text" \u00e9'):
            store.note("file", "openai f-1", text, NOW + 10, NOW)
        store.note("batch", "openai f-1", "other", NOW + 20, NOW)
        assert store.noted("file", "openai f-1", NOW) == 'new "text" \u00e9'
        assert store.noted("file", "f-2", NOW) is None
        assert store.noted("nothing", "f-1", NOW) is None
        assert store.notes("batch", NOW) == {"openai f-1": "other"}
        assert (store.noted("file", "openai f-1", NOW + 11), store.notes("file", NOW + 11)) == (None, {})
        store.note("file", "f-3", "x", NOW + 30, NOW + 12)
        assert store.notes("file", NOW + 12) == {"f-3": "x"}

    def test_marks_are_set_once(self, store: Store) -> None:
        """A warning is given by whoever marks it first; a reset lets it be given again."""
        store.charge([update(1)], NOW)
        assert store.mark("a", "0.5")
        assert not store.mark("a", "0.5")
        assert store.mark("a", "0.8")
        store.reset(["a"])
        assert store.mark("a", "0.5")

    def test_marks_for_a_time(self, store: Store) -> None:
        """A mark whose time is over, or that was removed, can be set by the next; one that is set forever cannot."""
        store.charge([update(1)], NOW)
        assert store.mark("a", "0.5", NOW, NOW + 60)
        assert not store.mark("a", "0.5", NOW + 59, NOW + 100)  # and extends it
        assert not store.mark("a", "0.5", NOW + 99, NOW + 100)
        assert store.mark("a", "0.5", NOW + 100, NOW + 160)
        store.unmark("a", "0.5")
        assert store.mark("a", "0.5", NOW + 101, NOW + 160)
        assert not store.mark("a", "0.5", NOW + 102)  # forever
        assert not store.mark("a", "0.5", NOW + 10_000, NOW + 10_001)
        store.unmark("a", "0.8")
        assert store.mark("a", "0.8", NOW)

    def test_budgets_can_be_listed(self, store: Store) -> None:
        """What a process has registered another can list."""
        store.register({"A": "5.00 USD/day", "B": "3 calls/run"})
        store.register({"A": "6.00 USD/day"})
        assert store.registered() == {"A": "6.00 USD/day", "B": "3 calls/run"}

    def test_a_budget_that_is_no_more(self, store: Store) -> None:
        """A description can be dropped, and the limit that was set with it; others stay."""
        store.register({"A": "5.00 USD/day", "B": "3 calls/run"})
        store.set_limit("A", 7)
        store.set_limit("B", 8)
        store.unregister("A")
        store.unregister("nobody's")
        assert (store.registered(), store.limits()) == ({"B": "3 calls/run"}, {"B": 8})

    def test_forgotten_counters_are_gone(self, store: Store) -> None:
        """A counter that is dropped starts at zero, and a call that was under way does not bring it back."""
        store.reserve("1", [update(600)], NOW, UNTIL)
        store.forget(["a"])
        store.settle("1", [Charge("a", 0, 250)], NOW)
        assert amounts(store) == (0, 0)

    def test_what_was_learned_fades_and_adds_up(self, store: Store) -> None:
        """What a store was taught first weighs less with each call since; some share nothing with other processes."""
        first, second = {"calls": 2.0, "o8": 1.98, "input": 300.0}, {"calls": 50.0, "o9": 30.0}
        store.learn({"k": first, "other": {"calls": 1.0}}, NOW)
        known = store.learn({"k": second}, NOW)
        if not self.shares_habits:
            assert store.habits() == known == {}
            return
        assert known == {"k": store.habits()["k"]}
        assert store.habits() == {"k": pytest.approx(merged(first, second)), "other": {"calls": 1.0}}

    def test_threads_never_pass_the_limit(self, store: Store) -> None:
        """Sixteen threads that reserve and settle at random never pass a limit, and leave nothing reserved."""
        limit, passed = 20_000, []

        def work(seed: int) -> None:
            chance = random.Random(seed)  # noqa: S311 - costs, no secrets
            for number in range(25):
                attempt, amount = f"{seed}.{number}", chance.randrange(1, 300)
                if store.reserve(attempt, [update(amount, limit=limit)], NOW, UNTIL).refused is None:
                    cost = chance.randrange(0, amount + 1)
                    after = store.settle(attempt, [Charge("a", 0, cost)], NOW)
                    if after is None or after[0].spent + after[0].reserved > limit:
                        passed.append(after)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not passed
        spent, reserved = amounts(store)
        assert limit - 300 < spent <= limit
        assert reserved == 0
