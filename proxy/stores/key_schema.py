"""The tables of the built-in key database."""

# Raised with every change of the tables; a newer one is left alone.
VERSION = 1

# Lists and mappings are JSON text, times Unix seconds. A key has one digest, and a second
# one while it is being exchanged; none of the tables ever holds a key.
TABLES = """
CREATE TABLE keys (
    key_id TEXT PRIMARY KEY,
    name TEXT NOT NULL DEFAULT '',
    user_id TEXT NOT NULL DEFAULT '',
    status TEXT NOT NULL DEFAULT 'active',
    starts_at REAL,
    expires_at REAL,
    allowed_models TEXT NOT NULL DEFAULT '[]',
    allowed_ips TEXT NOT NULL DEFAULT '[]',
    denied_ips TEXT NOT NULL DEFAULT '[]',
    limits TEXT,
    labels TEXT NOT NULL DEFAULT '{}',
    total_quota INTEGER NOT NULL DEFAULT 0,
    used_quota INTEGER NOT NULL DEFAULT 0,
    quota_unit TEXT NOT NULL DEFAULT 'tokens',
    quota_reset_period TEXT NOT NULL DEFAULT 'never',
    last_reset_at REAL,
    balance REAL,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL
) STRICT;

CREATE INDEX keys_by_age ON keys (created_at);

CREATE TABLE digests (
    digest BLOB PRIMARY KEY,
    key_id TEXT NOT NULL REFERENCES keys ON DELETE CASCADE,
    expires_at REAL,
    created_at REAL NOT NULL
) STRICT;

CREATE INDEX digests_by_key ON digests (key_id);

CREATE TABLE audit (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    who TEXT NOT NULL,
    action TEXT NOT NULL,
    key_id TEXT NOT NULL,
    changes TEXT NOT NULL
) STRICT;

CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;

CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;

CREATE TABLE file_use (
    key_id TEXT PRIMARY KEY,
    seed TEXT NOT NULL,
    used_quota INTEGER NOT NULL,
    last_reset_at REAL
) STRICT;
"""
