"""Lines of the log, from records as the standard library makes them."""

import json
import logging

from proxy.logs import JsonLines


def test_trouble_without_an_exception_is_a_line_like_any_other() -> None:
    """asyncio tells of it with exc_info=False, which is neither None nor a triple."""
    record = logging.LogRecord("asyncio", logging.ERROR, "base_events.py", 1, "left open", (), None)
    record.exc_info = False

    assert json.loads(JsonLines().format(record))["event"] == "left open"
