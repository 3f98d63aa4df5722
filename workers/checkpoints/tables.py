"""The catalogue's tables."""

from __future__ import annotations

import sqlite3

APPLICATION = 0x53534D50  # "SSMP"
VERSION = 4
"""The version of the tables. In version 1 there were no seals, and the row of a name did not name its object. Version 2
had a table of holds, and its seals and a view were slow. In version 3 steps had no digest of the text.
"""

TABLES = """
-- Each `seal` is a checksum of its row: see `seals`. A row is written and then sealed, in one transaction.
CREATE TABLE meta (
    key TEXT PRIMARY KEY, value TEXT NOT NULL, seal BLOB NOT NULL DEFAULT x''
) STRICT, WITHOUT ROWID;

CREATE TABLE identities (
    number INTEGER PRIMARY KEY,
    fingerprint TEXT NOT NULL, architecture TEXT NOT NULL, layout TEXT NOT NULL, dtype TEXT NOT NULL,
    seal BLOB NOT NULL DEFAULT x'',
    UNIQUE (fingerprint, architecture, layout, dtype)
) STRICT;

-- A parent is inserted before its children, so its number is smaller than theirs.
CREATE TABLE steps (
    number INTEGER PRIMARY KEY,
    object BLOB NOT NULL UNIQUE CHECK (length(object) = 32),
    parent INTEGER REFERENCES steps,
    root INTEGER NOT NULL,          -- the number of its lineage's root
    depth INTEGER NOT NULL,         -- steps from the root, itself included
    tokens INTEGER NOT NULL,        -- since the root
    text_bytes INTEGER NOT NULL,    -- since the root
    text_digest BLOB NOT NULL CHECK (length(text_digest) = 32),  -- of the text since the root: see `textdigest`
    step_tokens INTEGER NOT NULL,
    step_bytes INTEGER NOT NULL,
    stored INTEGER NOT NULL,        -- whether the object's file is kept
    bytes INTEGER NOT NULL,         -- of the object's file
    opaque INTEGER NOT NULL,        -- whether its root came without tokens
    exact INTEGER NOT NULL,
    identity INTEGER NOT NULL REFERENCES identities,
    seed INTEGER,
    created REAL NOT NULL,          -- for display only
    kind TEXT NOT NULL,
    settings TEXT NOT NULL,
    lineage BLOB NOT NULL CHECK (length(lineage) = 32),
    seal BLOB NOT NULL DEFAULT x''
) STRICT;
CREATE INDEX steps_by_parent ON steps (parent);
CREATE INDEX steps_by_root ON steps (root);

-- A step as it is read and sealed: with its parent's id and its identity, and shown even where these are missing.
-- Of one table with subqueries, not of a join: SQLite would make all of its rows before it joined it to a name.
CREATE VIEW entries AS
SELECT
    s.number, s.object, s.parent AS parent_number, (SELECT p.object FROM steps p WHERE p.number = s.parent) AS parent,
    s.root, s.depth, s.tokens, s.text_bytes, s.text_digest, s.step_tokens, s.step_bytes, s.stored, s.bytes,
    s.opaque, s.exact, s.seed, s.created, s.kind, s.settings, s.lineage,
    (SELECT i.fingerprint FROM identities i WHERE i.number = s.identity) AS fingerprint,
    (SELECT i.dtype FROM identities i WHERE i.number = s.identity) AS dtype, s.seal
FROM steps s;

-- Apart from `steps`, so that walking a lineage reads no text.
CREATE TABLE reads (
    step INTEGER PRIMARY KEY REFERENCES steps ON DELETE CASCADE,
    tokens BLOB NOT NULL,
    text BLOB NOT NULL,
    seal BLOB NOT NULL DEFAULT x''
) STRICT;

CREATE TABLE names (
    name TEXT PRIMARY KEY,
    step INTEGER NOT NULL REFERENCES steps,
    object BLOB NOT NULL,           -- the step's, so that a name is worth something where the step is lost
    pinned TEXT NOT NULL DEFAULT '',
    created REAL NOT NULL,
    updated REAL NOT NULL,
    seal BLOB NOT NULL DEFAULT x''
) STRICT, WITHOUT ROWID;
CREATE INDEX names_by_step ON names (step);
CREATE INDEX names_pinned ON names (name) WHERE pinned <> '';

-- Heads that a name left without a child of its own: what an overwrite would lose.
CREATE TABLE history (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL REFERENCES names ON DELETE CASCADE,
    step INTEGER NOT NULL REFERENCES steps,
    seal BLOB NOT NULL DEFAULT x''
) STRICT;
CREATE INDEX history_by_name ON history (name, number);
CREATE INDEX history_by_step ON history (step);

-- `until` is on the clock of `boot`; a row of another boot goes when this one is older than `lasts`.
CREATE TABLE outcomes (
    request BLOB PRIMARY KEY,
    answer BLOB NOT NULL,
    boot TEXT NOT NULL,
    until REAL NOT NULL,
    lasts REAL NOT NULL,
    seal BLOB NOT NULL DEFAULT x''
) STRICT;
CREATE INDEX outcomes_by_boot ON outcomes (boot, until);

-- Objects whose rows are gone and whose files are about to be.
CREATE TABLE trash (object BLOB PRIMARY KEY) STRICT, WITHOUT ROWID;
"""


def statements(script: str = TABLES) -> list[str]:
    """The statements one by one: a whole script would end the transaction that it runs in."""
    found, statement = [], ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            found.append(statement)
            statement = ""
    return found
