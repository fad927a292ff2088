import type { Database } from '../../common/sqlite/database.ts';
import { migrate, type Migration } from '../../common/sqlite/migrate.ts';
import { lossEvidenceTable } from '../log/loss-evidence.ts';
import { migrateStreamLog } from '../log/stream-log-schema.ts';

/**
 * A relay's log is a stream log whose frames come from elsewhere, in any order, so it keeps beside it which frames it
 * has or had (pruned ones must not be asked for again), which neighbour each epoch comes from, the key that it stated, what
 * had to make room and may be asked for again (relay_evicted), and what neighbours signed as lost.
 */
const migrations: readonly Migration[] = [
  {
    name: 'ranges and sources',
    up: `CREATE TABLE relay_stored_ranges (
           epoch_id INTEGER NOT NULL REFERENCES stream_log_epochs ON DELETE CASCADE,
           from_seq INTEGER NOT NULL,
           through_seq INTEGER NOT NULL,
           PRIMARY KEY (epoch_id, from_seq)
         ) STRICT, WITHOUT ROWID;
         CREATE TABLE relay_sources (
           epoch_id INTEGER PRIMARY KEY REFERENCES stream_log_epochs ON DELETE CASCADE,
           relation TEXT NOT NULL
         ) STRICT;`,
  },
  {
    name: 'subscriptions on demand',
    up: `CREATE TABLE relay_subscriptions (
           relation TEXT NOT NULL,
           vm TEXT NOT NULL,
           kind TEXT NOT NULL,
           hop_count INTEGER NOT NULL,
           PRIMARY KEY (relation, vm, kind)
         ) STRICT, WITHOUT ROWID;`,
  },
  {
    name: 'keys of epochs, as the neighbour stated them',
    up: `CREATE TABLE relay_epoch_keys (
           epoch_id INTEGER PRIMARY KEY REFERENCES stream_log_epochs ON DELETE CASCADE,
           public_key BLOB NOT NULL,
           predecessor_number INTEGER,
           predecessor_nonce TEXT
         ) STRICT;`,
  },
  {
    // Whoever subscribed before has an hour to ask again.
    name: 'subscriptions that end',
    up: `ALTER TABLE relay_subscriptions ADD COLUMN expires_at_us INTEGER NOT NULL DEFAULT 0;
         UPDATE relay_subscriptions SET expires_at_us = (unixepoch() + 3600) * 1000000;`,
  },
  {
    name: 'evicted frames, and what neighbours declared lost',
    up: `CREATE TABLE relay_evicted (
           epoch_id INTEGER NOT NULL REFERENCES stream_log_epochs ON DELETE CASCADE,
           from_seq INTEGER NOT NULL,
           through_seq INTEGER NOT NULL,
           reason TEXT NOT NULL,
           PRIMARY KEY (epoch_id, from_seq)
         ) STRICT, WITHOUT ROWID;
         ${lossEvidenceTable}`,
  },
];

/**
 * Brings a relay's database to the newest schema.
 * @throws DatabaseError `database-newer` when a newer program wrote it; it is left untouched.
 */
export function migrateRelayLog(database: Database): void {
  migrateStreamLog(database);
  migrate(database, migrations);
}
