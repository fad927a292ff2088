import { beforeEach, describe, expect, onTestFinished, test } from 'vitest';

import type { Watermark } from '../../../broker/consumer/consumer-options.ts';
import { LogCursors } from '../../../broker/log/log-cursors.ts';
import { EmbeddedBroker } from '../../../broker/mqtt/embedded-broker.ts';
import { FinalWatermarks } from '../../../broker/relay/final-watermarks.ts';
import { migrateRelayLog } from '../../../broker/relay/relay-log-schema.ts';
import { RelayLog } from '../../../broker/relay/relay-log.ts';
import type { DownstreamLink } from '../../../broker/relay/relay-options.ts';
import { SystemClock } from '../../../common/runtime/clock.ts';
import { silentLog } from '../../../common/runtime/log.ts';
import { openDatabase, type Database } from '../../../common/sqlite/database.ts';
import { controlMessageVersion, type StoredMessage } from '../../../common/wire/control-message.ts';
import type { Epoch, StreamId } from '../../../common/wire/frame.ts';
import { dataStream, sampleEpoch } from '../../support/sample-frames.ts';

const stream = dataStream('vm1');
const clock = new SystemClock();

let database: Database;
let log: RelayLog;
beforeEach(() => {
  database = openDatabase(':memory:');
  onTestFinished(() => {
    database.close();
  });
  migrateRelayLog(database);
  log = new RelayLog({ database, clock });
});

/** A neighbour on the way to the primary site that may have one VM's data. */
function link(relation: string, vm: string): DownstreamLink {
  return {
    relation,
    transport: new EmbeddedBroker({ log: silentLog }),
    may: { vms: new Set([vm]), kinds: new Set(['data']) },
    isStanding: true,
  };
}

function stored(of: StreamId, epoch: Epoch, throughSeq: number): StoredMessage {
  return {
    v: controlMessageVersion,
    session: 'session',
    kind: 'stored',
    by: 'final-reader',
    watermarks: [{ stream: of, epoch, throughSeq }],
  };
}

describe('what a neighbour says that the final reader stored', () => {
  let raised: Watermark[];
  let finals: FinalWatermarks;
  beforeEach(() => {
    raised = [];
    finals = new FinalWatermarks(
      {
        cursors: new LogCursors({ database, clock }),
        onRaised: (watermark) => {
          raised.push(watermark);
        },
        knows: (...place) => log.knows(...place),
      },
      [link('way', 'vm1'), link('elsewhere', 'vm2')],
    );
    log.claim('source', stream, sampleEpoch);
  });

  test('counts for streams that it may have: another neighbour’s it neither raises nor holds back', () => {
    const nobodys = dataStream('vm3');
    log.claim('source', nobodys, sampleEpoch);
    finals.note('elsewhere', stored(nobodys, sampleEpoch, 9));
    expect(raised).toEqual([]);
    finals.note('elsewhere', stored(stream, sampleEpoch, 1));
    finals.note('way', stored(stream, sampleEpoch, 5));
    expect(raised).toEqual([{ stream, epoch: sampleEpoch, throughSeq: 5 }]);
  });

  test('counts for epochs that somebody brought', () => {
    finals.note('way', stored(stream, { ...sampleEpoch, number: Number.MAX_SAFE_INTEGER }, 5));
    expect(raised).toEqual([]);
  });
});
