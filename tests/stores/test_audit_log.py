"""The audit log as a file of lines."""

import json
import stat

from proxy.stores.audit_log import AuditLog

CHANGES = {"name": ["a", "b"]}
ENTRY = {"at": 1_773_576_000.5, "who": "admin:1", "action": "update", "key_id": "0a", "changes": CHANGES}


def test_each_change_is_one_line_that_only_its_owner_reads(tmp_path):
    path = tmp_path / "audit.log"
    log = AuditLog(path)

    log(ENTRY)
    log({**ENTRY, "action": "delete"})

    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0] == {**ENTRY, "at": "2026-03-15T12:00:00.500000Z"}
    assert lines[1]["action"] == "delete"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_is_there_is_never_written_over_and_may_be_moved_away(tmp_path):
    path = tmp_path / "audit.log"
    path.write_text("old\n")
    log = AuditLog(path)
    log(ENTRY)
    path.rename(tmp_path / "audit.log.1")
    log(ENTRY)

    assert (tmp_path / "audit.log.1").read_text().startswith("old\n{")
    assert path.read_text().count("\n") == 1


def test_without_a_file_changes_go_to_the_log(caplog):
    caplog.set_level("INFO")

    AuditLog()(ENTRY)

    (record,) = caplog.records
    assert (record.message, record.who, record.action, record.key_id) == (
        "key changed",
        "admin:1",
        "update",
        "0a",
    )


def test_a_file_that_cannot_be_written_is_said_and_stops_nobody(tmp_path, caplog):
    AuditLog(tmp_path / "nowhere" / "audit.log")(ENTRY)

    assert "cannot be written" in caplog.text
