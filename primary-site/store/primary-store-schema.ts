import { lossEvidenceTable, reasonTextsToCodes } from '../../broker/log/loss-evidence.ts';
import type { Migration } from '../../common/sqlite/migrate.ts';

/**
 * The primary site's store. Frames are kept whole (they are the evidence), and decoded once into readings, which is what
 * queries read.
 *
 *   stored_ranges  every frame that was ever stored, so that retention does not make anyone ask for it again
 *   series         one data point of one VM as one specifier delivers it
 *   readings       a measurement, or a window's processed value; position rises in order of arrival
 *   loss_totals    what reported_losses add up to, also those that retention removed
 *   epoch_keys     the key that signs an epoch, as the neighbour stated it; the first statement counts
 *   content_keys   envelopes of the keys that bodies are sealed under, whether they can be opened or not
 *   lost_ranges    what is lost now, by whom (null: found here), with the signed declaration if there was one
 *   loss_evidence  what neighbours signed as lost, also what came after all: for a dispute
 *   integrity      what was refused or found wrong, counted for each epoch
 *   windows        the revision of each window that is in force; a higher one replaces its readings. A window is known by
 *                  both its ends: a run of empty windows is another one than its first, which a late row revises
 */
export const primaryStoreMigrations: readonly Migration[] = [
  {
    name: 'frames, readings, windows, losses, status',
    up: `
      CREATE TABLE epochs (
        epoch_id INTEGER PRIMARY KEY,
        vm TEXT NOT NULL, kind TEXT NOT NULL, number INTEGER NOT NULL, nonce TEXT NOT NULL,
        closed_seq INTEGER,
        UNIQUE (vm, kind, number, nonce)
      ) STRICT;
      CREATE TABLE frames (
        frame_id INTEGER PRIMARY KEY,
        epoch_id INTEGER NOT NULL REFERENCES epochs,
        seq INTEGER NOT NULL,
        last_position INTEGER NOT NULL,
        bytes BLOB NOT NULL,
        UNIQUE (epoch_id, seq)
      ) STRICT;
      CREATE TABLE stored_ranges (
        epoch_id INTEGER NOT NULL REFERENCES epochs,
        from_seq INTEGER NOT NULL, through_seq INTEGER NOT NULL,
        PRIMARY KEY (epoch_id, from_seq)
      ) STRICT, WITHOUT ROWID;
      CREATE TABLE lost_ranges (
        epoch_id INTEGER NOT NULL REFERENCES epochs,
        from_seq INTEGER NOT NULL, through_seq INTEGER NOT NULL,
        reason TEXT NOT NULL, recorded_at_us INTEGER NOT NULL,
        PRIMARY KEY (epoch_id, from_seq)
      ) STRICT, WITHOUT ROWID;
      CREATE TABLE reported_losses (
        loss_id INTEGER PRIMARY KEY,
        vm TEXT NOT NULL, place TEXT NOT NULL, count INTEGER NOT NULL, reason TEXT NOT NULL,
        produced_at_us INTEGER NOT NULL
      ) STRICT;
      CREATE TABLE vm_status (
        vm TEXT PRIMARY KEY,
        state TEXT NOT NULL, watermark_us INTEGER, produced_at_us INTEGER NOT NULL
      ) STRICT, WITHOUT ROWID;
      CREATE TABLE series (
        series_id INTEGER PRIMARY KEY,
        vm TEXT NOT NULL, data_point TEXT NOT NULL, specifier_id TEXT NOT NULL, format TEXT NOT NULL,
        UNIQUE (vm, data_point, specifier_id, format)
      ) STRICT;
      CREATE TABLE windows (
        window_id INTEGER PRIMARY KEY,
        vm TEXT NOT NULL, specifier_id TEXT NOT NULL, subject TEXT NOT NULL,
        start_ms INTEGER NOT NULL, end_ms INTEGER NOT NULL, revision INTEGER NOT NULL,
        UNIQUE (vm, specifier_id, subject, start_ms)
      ) STRICT;
      CREATE TABLE readings (
        position INTEGER PRIMARY KEY,
        series_id INTEGER NOT NULL,
        time_us INTEGER NOT NULL,
        uncertainty_us INTEGER NOT NULL,
        held INTEGER NOT NULL,
        window_id INTEGER,
        count INTEGER,
        value ANY
      ) STRICT;
      CREATE INDEX readings_by_series ON readings (series_id, time_us);
      CREATE INDEX readings_by_window ON readings (window_id) WHERE window_id IS NOT NULL;
    `,
  },
  {
    name: 'what epochs and deliveries say of themselves, totals of losses',
    up: `
      ALTER TABLE epochs ADD COLUMN opened_reason TEXT;
      ALTER TABLE epochs ADD COLUMN head_seq INTEGER NOT NULL DEFAULT 0;
      ALTER TABLE readings ADD COLUMN skipped_count INTEGER;
      ALTER TABLE readings ADD COLUMN held_count INTEGER;
      ALTER TABLE readings ADD COLUMN relative_error_max REAL;
      ALTER TABLE readings ADD COLUMN predicate_state TEXT;
      CREATE TABLE loss_totals (
        vm TEXT NOT NULL, place TEXT NOT NULL, count INTEGER NOT NULL,
        PRIMARY KEY (vm, place)
      ) STRICT, WITHOUT ROWID;
      INSERT INTO loss_totals SELECT vm, place, sum(count) FROM reported_losses GROUP BY vm, place;
      CREATE INDEX lost_ranges_by_age ON lost_ranges (recorded_at_us);
    `,
  },
  {
    // A run of empty windows begins where its first window does, and is another one.
    name: 'a window is known by both its ends',
    up: `
      CREATE TABLE windows_by_ends (
        window_id INTEGER PRIMARY KEY,
        vm TEXT NOT NULL, specifier_id TEXT NOT NULL, subject TEXT NOT NULL,
        start_ms INTEGER NOT NULL, end_ms INTEGER NOT NULL, revision INTEGER NOT NULL,
        UNIQUE (vm, specifier_id, subject, start_ms, end_ms)
      ) STRICT;
      INSERT INTO windows_by_ends
        SELECT window_id, vm, specifier_id, subject, start_ms, end_ms, revision FROM windows;
      DROP TABLE windows;
      ALTER TABLE windows_by_ends RENAME TO windows;
    `,
  },
  {
    name: 'keys of epochs and contents, sealed frames that wait for a key, what was found wrong',
    up: `
      CREATE TABLE epoch_keys (
        vm TEXT NOT NULL, kind TEXT NOT NULL, number INTEGER NOT NULL, nonce TEXT NOT NULL,
        public_key BLOB NOT NULL,
        PRIMARY KEY (vm, kind, number, nonce)
      ) STRICT, WITHOUT ROWID;
      CREATE TABLE content_keys (
        epoch_id INTEGER NOT NULL, key_id BLOB NOT NULL, envelope BLOB NOT NULL,
        PRIMARY KEY (epoch_id, key_id)
      ) STRICT, WITHOUT ROWID;
      ALTER TABLE frames ADD COLUMN waits_for_key BLOB;
      CREATE INDEX frames_that_wait ON frames (epoch_id, waits_for_key) WHERE waits_for_key IS NOT NULL;
      CREATE TABLE integrity (
        vm TEXT NOT NULL, kind TEXT NOT NULL, number INTEGER NOT NULL, nonce TEXT NOT NULL, finding TEXT NOT NULL,
        count INTEGER NOT NULL,
        first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL,
        first_at_us INTEGER NOT NULL, last_at_us INTEGER NOT NULL,
        PRIMARY KEY (vm, kind, number, nonce, finding)
      ) STRICT, WITHOUT ROWID;
    `,
  },
  {
    // An event time may be far ahead; frames of earlier programs arrived before the first that says when.
    name: 'when frames arrived',
    up: `
      ALTER TABLE frames ADD COLUMN arrived_at_us INTEGER;
      CREATE INDEX frames_by_position ON frames (last_position);
    `,
  },
  {
    name: 'who declared what lost, signed',
    up: `
      ALTER TABLE lost_ranges ADD COLUMN declared_by TEXT;
      ALTER TABLE lost_ranges ADD COLUMN evidence_id INTEGER;
      ${reasonTextsToCodes('lost_ranges')}
      ${lossEvidenceTable}
    `,
  },
  {
    name: 'stated keys in the order of their statements, findings by age',
    up: `
      CREATE TABLE stated_keys (
        key_id INTEGER PRIMARY KEY,
        vm TEXT NOT NULL, kind TEXT NOT NULL, number INTEGER NOT NULL, nonce TEXT NOT NULL,
        public_key BLOB NOT NULL,
        UNIQUE (vm, kind, number, nonce)
      ) STRICT;
      INSERT INTO stated_keys (vm, kind, number, nonce, public_key)
        SELECT vm, kind, number, nonce, public_key FROM epoch_keys ORDER BY number;
      DROP TABLE epoch_keys;
      ALTER TABLE stated_keys RENAME TO epoch_keys;
      CREATE INDEX integrity_by_age ON integrity (last_at_us);
    `,
  },
  {
    // The source's clock may be set back: within an epoch the later status is the one with the higher seq.
    name: 'the place of the newest status in its stream, and when it arrived',
    up: `
      ALTER TABLE vm_status ADD COLUMN epoch_id INTEGER;
      ALTER TABLE vm_status ADD COLUMN epoch_number INTEGER NOT NULL DEFAULT 0;
      ALTER TABLE vm_status ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;
      ALTER TABLE vm_status ADD COLUMN arrived_at_us INTEGER;
    `,
  },
];
