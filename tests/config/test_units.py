import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.units import parse_duration, parse_size, show_duration, show_size

DURATIONS = [
    ("250ms", 0.25),
    ("30s", 30.0),
    ("1.5s", 1.5),
    ("10m", 600.0),
    ("1h", 3600.0),
    ("1h30m", 5400.0),
    ("2d", 172800.0),
    ("500us", 0.0005),
    ("500µs", 0.0005),
    (" 7 ", 7.0),
    ("0.5", 0.5),
    ("0", 0.0),
]
SIZES = [
    ("0", 0),
    ("17", 17),
    ("17b", 17),
    ("1k", 1024),
    ("64KiB", 65536),
    ("64 kib", 65536),
    ("1MB", 1_000_000),
    ("1.5KiB", 1536),
    ("100MiB", 104857600),
    ("2G", 2147483648),
    ("1GB", 1_000_000_000),
]


@pytest.mark.parametrize(("text", "seconds"), DURATIONS)
def test_durations_are_read_as_people_write_them(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "s", "1 m", "10 parsecs", "-1s", "1s2", "1e3", "1,5s", "٣s", "nan", "inf"]
)
def test_other_durations_are_refused(text):
    with pytest.raises(ValueError):
        parse_duration(text)


@pytest.mark.parametrize(("text", "size"), SIZES)
def test_sizes_are_read_as_people_write_them(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "KiB", "-1", "1 mile", "0.3b", "1.0001k", "1e3", "٣k"])
def test_other_sizes_are_refused(text):
    with pytest.raises(ValueError):
        parse_size(text)


@given(st.integers(0, 10**7))
def test_a_shown_duration_is_read_back_the_same(milliseconds):
    seconds = milliseconds / 1000

    assert parse_duration(show_duration(seconds)) == pytest.approx(seconds, rel=1e-5)


@given(st.integers(0, 2**40))
def test_a_shown_size_is_read_back_the_same(size):
    assert parse_size(show_size(size)) == size
