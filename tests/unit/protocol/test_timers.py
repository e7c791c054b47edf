"""The deadline table: exact for every owner, cheap to move, and no larger than it must be."""

import random
from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.operations import Operations
from tunnel.protocol.timers import NEVER, Timed, Timer, TimerTable


class Owner(Timed):
    __slots__ = ("name",)

    def __init__(self, name: int) -> None:
        super().__init__()
        self.name = name


def arm(table: TimerTable[Owner], owner: Owner, timer: int, deadline: float) -> None:
    owner.deadlines[timer] = deadline
    if deadline < owner.wake:
        table.push(owner, deadline)


def run(table: TimerTable[Owner], now: float, limit: int = 10**6) -> list[tuple[int, Timer]]:
    ran: list[tuple[int, Timer]] = []
    table.run(now, limit, lambda owner, timer: ran.append((owner.name, timer)))
    return ran


def test_timers_of_one_owner_run_in_the_order_of_the_enum() -> None:
    table: TimerTable[Owner] = TimerTable()
    owner = Owner(1)
    for timer in reversed(Timer):
        arm(table, owner, timer, 5.0 - timer / 10)
    assert run(table, 4.4) == []
    assert run(table, 10.0) == [(1, timer) for timer in Timer]
    assert table.next_deadline() is None


def test_an_owner_s_timer_can_stop_and_set_the_next() -> None:
    table: TimerTable[Owner] = TimerTable()
    owner = Owner(1)
    arm(table, owner, Timer.ERASE_KEYS, 1.0)
    arm(table, owner, Timer.NEW_HANDSHAKE, 1.0)
    ran = []

    def expire(owner: Owner, timer: Timer) -> None:
        ran.append(timer)
        owner.deadlines[Timer.NEW_HANDSHAKE] = NEVER
        arm(table, owner, Timer.SEND_KEEPALIVE, 1.5)

    table.run(1.0, 10, expire)
    assert ran == [Timer.ERASE_KEYS]
    assert table.next_deadline() == 1.5


def test_an_owner_removed_by_its_own_timer_runs_no_more() -> None:
    table: TimerTable[Owner] = TimerTable()
    owner = Owner(1)
    for timer in Timer:
        arm(table, owner, timer, 1.0)
    ran = []

    def expire(owner: Owner, timer: Timer) -> None:
        ran.append(timer)
        table.remove(owner)

    table.run(1.0, 10, expire)
    assert len(ran) == 1
    arm(table, owner, Timer.ERASE_KEYS, 2.0)
    assert table.next_deadline() is None
    assert owner.wake == -inf


def test_a_limit_leaves_the_rest_due() -> None:
    table: TimerTable[Owner] = TimerTable()
    owners = [Owner(number) for number in range(100)]
    for owner in owners:
        arm(table, owner, Timer.SEND_KEEPALIVE, 1.0)
    assert len(run(table, 2.0, limit=30)) == 30
    deadline = table.next_deadline()
    assert deadline is not None
    assert deadline <= 2.0
    assert len(run(table, 2.0, limit=1000)) == 70


def test_looking_in_vain_is_limited_too() -> None:
    table: TimerTable[Owner] = TimerTable()
    owners = [Owner(number) for number in range(1000)]
    for owner in owners:
        arm(table, owner, Timer.SEND_KEEPALIVE, 1.0)
        arm(table, owner, Timer.SEND_KEEPALIVE, 9.0)
    assert run(table, 2.0, limit=10) == []
    assert table.next_deadline() == 1.0
    while (deadline := table.next_deadline()) is not None and deadline <= 2.0:
        run(table, 2.0, limit=10)
    assert table.next_deadline() == 9.0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["arm", "cancel", "remove", "run", "run one"]),
            st.integers(0, 4),
            st.sampled_from(list(Timer)),
            st.integers(0, 50),
        ),
        max_size=120,
    )
)
@settings(max_examples=300, deadline=None)
def test_agrees_with_looking_at_every_deadline(steps: list[tuple[str, int, Timer, int]]) -> None:
    table: TimerTable[Owner] = TimerTable()
    owners = [Owner(number) for number in range(5)]
    oracle: dict[tuple[int, Timer], float] = {}
    gone: set[int] = set()
    now = 0.0
    for what, number, timer, delay in steps:
        owner = owners[number]
        if what == "arm":
            arm(table, owner, timer, now + delay)
            if number not in gone:
                oracle[number, timer] = now + delay
        elif what == "cancel":
            owner.deadlines[timer] = NEVER
            oracle.pop((number, timer), None)
        elif what == "remove":
            table.remove(owner)
            gone.add(number)
            oracle = {key: when for key, when in oracle.items() if key[0] != number}
        else:
            now += delay
            limit = 1 if what == "run one" else 100
            ran = run(table, now, limit)
            due = {key for key, when in oracle.items() if when <= now}
            if limit == 100:
                assert set(ran) == due
            else:
                assert set(ran) <= due
                assert len({name for name, _ in ran}) == min(1, len({name for name, _ in due}))
            assert len(set(ran)) == len(ran)
            for key in ran:
                del oracle[key]
        deadline = table.next_deadline()
        if oracle:
            assert deadline is not None
            assert deadline <= min(oracle.values())


def test_ten_thousand_busy_peers_stay_small_and_quick() -> None:
    table: TimerTable[Owner] = TimerTable()
    owners = [Owner(number) for number in range(10_000)]
    draw = random.Random(1)
    moves = spent = 0
    for second in range(60):
        busy = [(owner, second + draw.random()) for owner in draw.choices(owners, k=5_000)]
        with Operations() as counted:
            for owner, now in busy:
                # Data sent and received: one timer moves on, one stops and starts again.
                arm(table, owner, Timer.PERSISTENT_KEEPALIVE, now + 25)
                owner.deadlines[Timer.SEND_KEEPALIVE] = NEVER
                arm(table, owner, Timer.SEND_KEEPALIVE, now + 10)
                arm(table, owner, Timer.ERASE_KEYS, now + 540)
            run(table, float(second))
        moves += 4 * len(busy)
        spent += counted.count
        assert len(table) <= 2 * len(owners) + 256
    assert spent / moves < 6
    assert owners[0].deadlines[Timer.RETRANSMIT_HANDSHAKE] == NEVER
