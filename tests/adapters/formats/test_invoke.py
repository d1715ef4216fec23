# ruff: noqa: E501  # a vector reads best on one line
import pytest
from kit.scans import Answer, Called, call, run, same_however_cut, scanner

READ = '<invoke name="read"><parameter name="path">a</parameter></invoke>'
READ_CALL = call("read", '{"path": "a"}')

CALLS = [
    (READ, "", [READ_CALL]),
    (f"<function_calls>\n{READ}\n</function_calls>", "", [READ_CALL]),
    (f"<function_calls>\n{READ}", "", [READ_CALL]),
    (f"So: {READ}</function_calls> Done.", "So:  Done.", [READ_CALL]),
    (f"{READ}\n<invoke name='now'>\n</invoke>", "", [READ_CALL, call("now")]),
    ("<invoke name=now></invoke>", "", [call("now")]),
    ('<invoke name="READ"><parameter name="path">a</parameter></invoke>', "", [READ_CALL]),
    (
        '<invoke name="write"><parameter name="force">\ntrue\n</parameter><parameter name="line"> 3</parameter></invoke>',
        "",
        [call("write", '{"force": true, "line": 3}')],
    ),
    (
        f'<invoke name="read"><parameter name="path">{READ} & <b></parameter></invoke>',
        "",
        [call("read", '{"path": "<invoke name=\\"read\\"><parameter name=\\"path\\">a</parameter></invoke> & <b>"}')],
    ),
    (
        '<function_calls><invoke name="read"><parameter name="path">a </function_calls> b</parameter></invoke>'
        "</function_calls>",
        "",
        [call("read", '{"path": "a </function_calls> b"}')],
    ),
    # A tool that nobody declared, and prose.
    ('<invoke name="rm"><parameter name="x">1</parameter></invoke>', '<invoke name="rm"><parameter name="x">1</parameter></invoke>', []),
    ("Before <function_calls>prose</function_calls> after", "Before <function_calls>prose</function_calls> after", []),
    ('Use <invoke name="read"> for it.', 'Use <invoke name="read"> for it.', []),
]  # fmt: skip


@pytest.mark.parametrize(("text", "content", "calls"), CALLS)
def test_claudes_calls_and_content_are_told_apart(text: str, content: str, calls: list[Called]) -> None:
    assert same_however_cut("anthropic_xml", text) == Answer(content, "", calls)


def test_unknown_tools_are_forwarded_where_that_is_asked_for() -> None:
    text = '<invoke name="rm"><parameter name="x">1</parameter></invoke>'

    answer = same_however_cut("anthropic_xml", text, unknown_tools="forward")

    assert answer.calls == [call("rm", '{"x": "1"}')]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("minimax_m2", f"<minimax:tool_call>\n{READ}\n<invoke name='now'></invoke>\n</minimax:tool_call>"),
        ("minimax_m2", f"{READ}<invoke name=now></invoke></minimax:tool_call>"),
        ("dots", f'<dots_function_call>{READ}<invoke name="now"></invoke></dots_function_call>'),
        (
            "minicpm5_xml",
            '<function name="read"><param name="path">a</param></function>\n<function name="now"></function>',
        ),
        (
            "step3",
            '<steptml:invoke name="read"><steptml:parameter name="path">a</steptml:parameter></steptml:invoke>\n'
            '<｜tool_call_begin｜><steptml:invoke name="now"></steptml:invoke><｜tool_call_end｜><｜tool_calls_end｜>',
        ),
        (
            "step3",
            '<｜tool_calls_begin｜><｜tool_call_begin｜>function<｜tool_sep｜><steptml:invoke name="read">'
            '<steptml:parameter name="path">a</steptml:parameter></steptml:invoke><｜tool_call_end｜>'
            '<｜tool_call_begin｜>function<｜tool_sep｜><steptml:invoke name="now"></steptml:invoke>'
            "<｜tool_call_end｜><｜tool_calls_end｜>",
        ),
    ],
)
def test_relatives_differ_in_their_tags(name: str, text: str) -> None:
    assert same_however_cut(name, text) == Answer("", "", [READ_CALL, call("now")])


def test_a_stray_end_of_dots_is_no_content() -> None:
    assert same_however_cut("dots", "text </dots_function_call>") == Answer("text ")


def dsml(wrap: str, blank: str = "") -> str:
    tag = f"｜DSML｜{blank}"
    return (
        f'<｜DSML｜{wrap}>\n<{tag}invoke name="write">\n<{tag}parameter name="path" string="true">5</{tag}parameter>\n'
        f'<{tag}parameter name="line" string="false">5</{tag}parameter>\n<{tag}parameter name="note">{{x</{tag}parameter>\n'
        f"</{tag}invoke>\n</｜DSML｜{wrap}>"
    )


@pytest.mark.parametrize(
    "text",
    [
        dsml("function_calls"),
        dsml("tool_calls"),
        dsml(" calls", " "),
        dsml("toolcalls"),
        dsml("tool"),
        dsml("function_calls").split("\n", 1)[1],
        dsml("function_calls") + "<｜end▁of▁sentence｜>",
    ],
)
def test_in_dsml_the_tag_says_what_is_a_string(text: str) -> None:
    assert same_however_cut("dsml", text) == Answer(
        "", "", [call("write", '{"path": "5", "line": 5, "note": "{x"}')]
    )


@pytest.mark.parametrize(
    ("inner", "arguments"),
    [
        (
            '<｜DSML｜parameter name="arguments" string="false">{"path": "a"}</｜DSML｜parameter>',
            '{"path": "a"}',
        ),
        ('<｜DSML｜parameter name="input" string="true">{"path": "a"}</｜DSML｜parameter>', '{"path": "a"}'),
        ('<｜DSML｜parameter name="input" string="true">text</｜DSML｜parameter>', '{"input": "text"}'),
        (
            '<｜DSML｜parameter name="input" string="true">{}</｜DSML｜parameter>'
            '<｜DSML｜parameter name="path" string="true">a</｜DSML｜parameter>',
            '{"input": "{}", "path": "a"}',
        ),
    ],
)
def test_a_lone_argument_may_hold_them_all(inner: str, arguments: str) -> None:
    text = f'<｜DSML｜invoke name="read">{inner}</｜DSML｜invoke>'

    assert same_however_cut("dsml", text).calls == [call("read", arguments)]


P = "]<]minimax[>["
TREES = [
    (f"{P}<path>a <b> {{c}}{P}</path>", '{"path": "a <b> {c}"}'),
    (f"{P}<line>5{P}</line>{P}<force>false{P}</force>", '{"line": 5, "force": false}'),
    (f"{P}<tags>{P}<item>a{P}</item>{P}<item>b{P}</item>{P}</tags>", '{"tags": ["a", "b"]}'),
    (f"{P}<tags>{P}</tags>{P}<meta>{P}</meta>", '{"tags": [], "meta": {}}'),
    (f"{P}<tags>a{P}</tags>{P}<tags>b{P}</tags>", '{"tags": ["a", "b"]}'),
    (
        f"{P}<meta>{P}<k-y>1{P}</k-y>{P}<in>{P}<x>2{P}</x>{P}</in>{P}</meta>",
        '{"meta": {"k-y": "1", "in": {"x": "2"}}}',
    ),
    (f"{P}<meta>so {P}<k>1{P}</k>{P}</meta>", '{"meta": {"k": "1", "$text": "so"}}'),
    (f"{P}<path>a{P}</line>{P}</path>", '{"path": "a"}'),
    (f"{P}<meta>{P}<k>{P}<l>1{P}</meta>{P}<line>5{P}</line>", '{"meta": {"k": {"l": "1"}}, "line": 5}'),
    (f"{P}<path>a", '{"path": "a"}'),
]


@pytest.mark.parametrize(("inner", "arguments"), TREES)
def test_minimax_m3_writes_trees(inner: str, arguments: str) -> None:
    text = f'Well. {P}<tool_call>\n{P}<invoke name="write">{inner}{P}</invoke>\n{P}</tool_call>'

    assert same_however_cut("minimax_m3", text) == Answer("Well. ", "", [call("write", arguments)])


def test_a_tree_without_end_is_read_as_far_as_it_goes() -> None:
    text = f'{P}<invoke name="write">{P}<path>a'

    assert same_however_cut("minimax_m3", text).calls == [call("write", '{"path": "a"}')]
    assert same_however_cut("minimax_m3", text, truncated=True).calls == [Called("write")]


def test_a_tree_too_large_to_hold_is_given_up() -> None:
    text = f'{P}<invoke name="write">{P}<path>' + "x" * (8 * 1024 * 1024)

    answer = run(scanner("minimax_m3"), [text, "y"])

    assert answer == Answer("y", "", [Called("write")])


def test_a_tree_has_a_deepest_branch() -> None:
    text = f'{P}<invoke name="write">' + f"{P}<a>" * 300 + f"{P}</invoke>"

    answer = run(scanner("minimax_m3"), [text])

    assert answer.calls[0].arguments.count('"a"') == 128
