import pytest

from proxy.config.expand import Expander, ExpansionError


def read_file(path):
    files = {"/run/key": "s3cret\n", "/run/dir/key": "deep", "/run/multi": "a\nb\r\n"}
    if path == "/run/latin1":
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    if path not in files:
        raise FileNotFoundError(2, "No such file or directory", path)
    return files[path]


EXPANDER = Expander(
    {"A": "one", "EMPTY": "", "DIR": "/run/dir", "TRICKY": "${A} $$ ${file:/run/key}"}, read_file
)

CASES = [
    ("", ""),
    ("plain", "plain"),
    ("${A}", "one"),
    ("x${A}y${A}z", "xoneyonez"),
    ("${A:-other}", "one"),
    ("${NOPE:-other}", "other"),
    ("${NOPE:-}", ""),
    ("${EMPTY}", ""),
    ("${EMPTY:-other}", "other"),
    ("${NOPE:-${A}}", "one"),
    ("${NOPE:-a:-b}", "a:-b"),
    ("${file:/run/key}", "s3cret"),
    ("${file:/run/multi}", "a\nb"),
    ("${file:${DIR}/key}", "deep"),
    ("$$", "$"),
    ("$${A}", "${A}"),
    ("$$$$", "$$"),
    ("pa$word$", "pa$word$"),
    ("$A", "$A"),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_variables_and_files_are_put_in(text, expected):
    assert EXPANDER.expand(text) == expected


def test_what_was_put_in_is_not_looked_at_again():
    assert EXPANDER.expand("${TRICKY}") == "${A} $$ ${file:/run/key}"


FAILURES = [
    ("${NOPE}", "the environment variable NOPE is not set"),
    ("${NOPE:-${ALSO}}", "the environment variable ALSO is not set"),
    ("${A", "a ${ has no closing brace"),
    ("${file:${DIR}", "a ${ has no closing brace"),
    ("${}", "write ${NAME}"),
    ("${A-b}", "write ${NAME}"),
    ("${1}", "write ${NAME}"),
    ("${file:/run/nope}", "cannot read the file /run/nope: No such file or directory"),
    ("${file:/run/latin1}", "cannot read the file /run/latin1: it is not UTF-8 text"),
]


@pytest.mark.parametrize(("text", "message"), FAILURES)
def test_what_cannot_be_put_in_is_named(text, message):
    with pytest.raises(ExpansionError) as error:
        EXPANDER.expand(text)

    assert message in str(error.value)
