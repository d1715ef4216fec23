"""The order within one key, and who waits with the most."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.limiters.lines import MAIN_IN_A_ROW, Lengths, Line

requests = st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=30)


def line_of(*items):
    """Each item is its session, then any mark; an item in capitals is a sub-agent's."""
    line = Line()
    for item in items:
        line.append(item, item[0], is_subagent=item.isupper())
    return line


def emptied(line):
    return [line.popleft() for _ in range(len(line))]


def test_sessions_take_turns():
    assert emptied(line_of("a1", "a2", "a3", "b1", "c1", "b2")) == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_main_requests_go_before_those_of_sub_agents():
    assert emptied(line_of("X1", "Y1", "a1", "a2", "b1")) == ["a1", "b1", "a2", "X1", "Y1"]


def test_every_now_and_then_a_sub_agent_goes_first():
    order = emptied(line_of("X1", "X2", *(f"a{number}" for number in range(2 * MAIN_IN_A_ROW + 1))))

    assert [item for item in order if item.isupper()] == ["X1", "X2"]
    assert order.index("X1") == MAIN_IN_A_ROW
    assert order.index("X2") == 2 * MAIN_IN_A_ROW + 1


def test_main_requests_from_before_a_sub_agent_came_do_not_count_against_the_main():
    line = line_of(*(f"a{number}" for number in range(9)))
    for _ in range(5):
        line.popleft()
    line.append("X1", "X", is_subagent=True)

    assert emptied(line).index("X1") == MAIN_IN_A_ROW


def test_the_newest_of_the_session_that_is_last_in_line_could_be_missed_best():
    assert line_of("a1", "b1", "b2").last() == "b2"
    assert line_of("a1", "X1", "X2", "b1").last() == "X2"


@given(requests, st.integers(0, 12), st.data())
def test_the_place_told_is_the_place_got(items, taken, data):
    line = Line()
    waiting = {}
    for number, (session, is_subagent) in enumerate(items):
        line.append(number, session, is_subagent=is_subagent)
        waiting[number] = session, is_subagent
    for _ in range(min(taken, len(waiting))):
        del waiting[line.popleft()]
    if waiting:
        gone = data.draw(st.sampled_from(sorted(waiting)))
        session, is_subagent = waiting.pop(gone)
        line.remove(gone, session, is_subagent=is_subagent)

    told = {
        number: line.place(number, session, is_subagent=is_subagent)
        for number, (session, is_subagent) in waiting.items()
    }

    assert len(line) == len(waiting)
    assert told == {number: place for place, number in enumerate(emptied(line), start=1)}


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=60))
def test_the_longest_is_always_known(steps):
    lengths = Lengths()
    plain = dict.fromkeys("abcd", 0)

    for key, is_more in steps:
        if not is_more and not plain[key]:
            continue
        before = plain[key]
        plain[key] += 1 if is_more else -1
        lengths.changed(key, before, plain[key])

        assert lengths.longest == max(plain.values())
        if lengths.longest:
            assert plain[lengths.longest_key()] == lengths.longest
