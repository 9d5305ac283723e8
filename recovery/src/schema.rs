//! The tables, as the list of changes that made them.
//!
//! Invariants:
//! * A migration that was released is never edited; a new one is added at the end.
//! * `user_version` is the number of migrations applied; each is applied with its number in one
//!   transaction.

/// The format that this program writes.
pub(crate) const VERSION: u32 = MIGRATIONS.len() as u32;

/// "SkSv": tells our database from any other program's (SQLite's `application_id`).
pub(crate) const APPLICATION_ID: i32 = 0x536b_5376;

/// The statements of each migration, in order.
pub(crate) const MIGRATIONS: [&[&str]; 3] = [
    &[
        "PRAGMA application_id = 0x536b5376",
        // One row: who may write, and which incarnation the next service gets.
        "CREATE TABLE meta (
        only             INTEGER NOT NULL PRIMARY KEY CHECK (only = 1),
        epoch            INTEGER NOT NULL CHECK (epoch >= 0),
        next_incarnation INTEGER NOT NULL CHECK (next_incarnation > 0)
    ) STRICT",
        "INSERT INTO meta (only, epoch, next_incarnation) VALUES (1, 0, 1)",
        // `replica_id_used_max` outlives the replicas' rows, so that no id is ever used twice.
        "CREATE TABLE services (
        name                TEXT NOT NULL PRIMARY KEY,
        incarnation         INTEGER NOT NULL,
        version             INTEGER NOT NULL,
        created_at          INTEGER NOT NULL,
        listen              TEXT NOT NULL,
        endpoint_confirmed  INTEGER NOT NULL CHECK (endpoint_confirmed IN (0, 1)),
        next_replica_id     INTEGER NOT NULL CHECK (next_replica_id > replica_id_used_max),
        replica_id_used_max INTEGER NOT NULL DEFAULT 0,
        ready_since         INTEGER,
        ever_ready          INTEGER NOT NULL CHECK (ever_ready IN (0, 1)),
        failures_in_a_row   INTEGER NOT NULL,
        launch_not_before   INTEGER NOT NULL,
        given_up            TEXT,
        shutdown_since      INTEGER,
        shutdown_purge      INTEGER CHECK (shutdown_purge IN (0, 1)),
        CHECK ((shutdown_since IS NULL) = (shutdown_purge IS NULL)),
        FOREIGN KEY (name, version) REFERENCES versions (service, version) DEFERRABLE INITIALLY DEFERRED
    ) STRICT, WITHOUT ROWID",
        "CREATE TABLE versions (
        service TEXT NOT NULL REFERENCES services (name) ON DELETE CASCADE,
        version INTEGER NOT NULL,
        rules   TEXT NOT NULL,
        source  TEXT NOT NULL,
        PRIMARY KEY (service, version)
    ) STRICT",
        "CREATE TABLE replicas (
        service              TEXT NOT NULL REFERENCES services (name) ON DELETE CASCADE,
        id                   INTEGER NOT NULL,
        uid                  TEXT NOT NULL UNIQUE,
        version              INTEGER NOT NULL,
        status               TEXT NOT NULL,
        status_since         INTEGER NOT NULL,
        reason               TEXT,
        address              TEXT,
        launched_at          INTEGER NOT NULL,
        first_ready_at       INTEGER,
        operation_kind       TEXT,
        operation_attempt    INTEGER,
        operation_not_before INTEGER,
        operation_purge      INTEGER CHECK (operation_purge IN (0, 1)),
        PRIMARY KEY (service, id),
        CHECK ((operation_kind IS NULL) = (operation_attempt IS NULL)),
        CHECK ((operation_kind IS NULL) = (operation_not_before IS NULL)),
        CHECK ((operation_kind IS NULL) = (operation_purge IS NULL)),
        FOREIGN KEY (service, version) REFERENCES versions (service, version) DEFERRABLE INITIALLY DEFERRED
    ) STRICT, WITHOUT ROWID",
    ],
    &[
        // `update`: the version that goes on serving until the newest was ready.
        "ALTER TABLE services ADD COLUMN proven_version INTEGER",
        "ALTER TABLE services ADD COLUMN proven_failures_in_a_row INTEGER
        CHECK ((proven_failures_in_a_row IS NULL) = (proven_version IS NULL))",
        "ALTER TABLE services ADD COLUMN proven_launch_not_before INTEGER
        CHECK ((proven_launch_not_before IS NULL) = (proven_version IS NULL))",
    ],
    &[
        // Checksums (see `seal`), and how many transactions there were (see `marks`).
        "ALTER TABLE meta ADD COLUMN transactions INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE meta ADD COLUMN schema INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE meta ADD COLUMN seals INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE meta ADD COLUMN seal INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE services ADD COLUMN seal INTEGER NOT NULL DEFAULT 0",
        "CREATE TRIGGER services_sealed AFTER UPDATE OF seal ON services
        BEGIN UPDATE meta SET seals = seals - OLD.seal + NEW.seal; END",
        "CREATE TRIGGER services_removed AFTER DELETE ON services
        BEGIN UPDATE meta SET seals = seals - OLD.seal; END",
        "ALTER TABLE versions ADD COLUMN seal INTEGER NOT NULL DEFAULT 0",
        "CREATE TRIGGER versions_sealed AFTER UPDATE OF seal ON versions
        BEGIN UPDATE meta SET seals = seals - OLD.seal + NEW.seal; END",
        "CREATE TRIGGER versions_removed AFTER DELETE ON versions
        BEGIN UPDATE meta SET seals = seals - OLD.seal; END",
        "ALTER TABLE replicas ADD COLUMN seal INTEGER NOT NULL DEFAULT 0",
        "CREATE TRIGGER replicas_sealed AFTER UPDATE OF seal ON replicas
        BEGIN UPDATE meta SET seals = seals - OLD.seal + NEW.seal; END",
        "CREATE TRIGGER replicas_removed AFTER DELETE ON replicas
        BEGIN UPDATE meta SET seals = seals - OLD.seal; END",
    ],
];

/// The first format whose rows are sealed.
pub(crate) const SEALED_SINCE: u32 = 3;
