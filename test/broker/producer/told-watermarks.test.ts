import { describe, expect, test } from 'vitest';

import { LogCursors } from '../../../broker/log/log-cursors.ts';
import { ToldWatermarks } from '../../../broker/producer/told-watermarks.ts';
import { migrateRelayLog } from '../../../broker/relay/relay-log-schema.ts';
import { RelayLog } from '../../../broker/relay/relay-log.ts';
import { silentLog } from '../../../common/runtime/log.ts';
import { openDatabase } from '../../../common/sqlite/database.ts';
import { controlMessageVersion } from '../../../common/wire/control-message.ts';
import { vmIdSchema } from '../../../common/wire/vm-descriptor.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

describe('ToldWatermarks', () => {
  test('what the disk refuses is written when it takes it, and ends nothing', () => {
    using directory = temporaryDirectory();
    const database = openDatabase(`${directory.path}/relay.db`);
    migrateRelayLog(database);
    const clock = new ManualClock();
    const stream = { vm: vmIdSchema.parse('vm1'), kind: 'data' } as const;
    const epoch = { number: 1, nonce: '00'.repeat(8) };
    const range = { fromSeq: 1, throughSeq: 9 };
    const provenance = { declaredAtUs: 0, declaredBy: null, proof: null };
    const lost = { epoch, ...range, reason: 'log-full', ...provenance } as const;
    new RelayLog({ database, clock }).declareLost(stream, lost);
    const cursors = new LogCursors({ database, clock });
    cursors.add('next');
    const told = new ToldWatermarks({ cursors, log: silentLog }, 'next');
    const throughSeq = (): number => cursors.throughSeq('next', 'next-hop', stream, epoch);
    told.note({
      v: controlMessageVersion,
      session: 's',
      kind: 'stored',
      by: 'next-hop',
      watermarks: [{ stream, epoch, throughSeq: 5 }],
    });
    database.pragma('query_only = ON');
    told.write();
    expect(throughSeq()).toBe(0);
    database.pragma('query_only = OFF');
    told.write();
    expect(throughSeq()).toBe(5);
    database.close();
  });
});
