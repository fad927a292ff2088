import type { ChannelMessage } from '../../common/channel/message.ts';

const messages: readonly ChannelMessage[] = [
  { kind: 'ping' },
  { kind: 'hello', versions: { oldest: 1, newest: 1 }, hostInstance: 'host-1' },
  {
    kind: 'register',
    notify: true,
    registrations: [{ area: 'unencrypted', tables: 'db/**' }],
  },
  {
    kind: 'fetch',
    requestId: 7,
    area: 'unencrypted',
    cursor: { generation: 'generation-1', rowId: 4_294_967_296 },
    rowsMax: 4_096,
    bytesMax: 1_048_576,
  },
  { kind: 'acknowledge', area: 'encrypted', cursor: { generation: 'generation-2', rowId: 12 } },
  { kind: 'clock-request', requestId: 8, hostSentUs: 1_700_000_000_000_001 },
  { kind: 'invite', agentInstance: 'agent-1', endedSession: 4_294_967_295 },
  {
    kind: 'welcome',
    version: 1,
    agentInstance: 'agent-1',
    bootId: 'boot-1',
    generations: { encrypted: 'generation-2', unencrypted: 'generation-1' },
    heads: { encrypted: 12, unencrypted: 4_294_967_299 },
  },
  { kind: 'published', area: 'unencrypted', tables: ['users', 'db/é'], throughRowId: 99 },
  {
    kind: 'watermark',
    timeUs: 1_700_000_000_000_002,
    areas: {
      encrypted: { matchedRowId: 0, headRowId: 12 },
      unencrypted: { matchedRowId: 98, headRowId: 99 },
    },
  },
  {
    kind: 'clock-response',
    requestId: 8,
    hostSentUs: 1_700_000_000_000_001,
    guestReceivedUs: 1_700_000_000_000_101,
    guestSentUs: 1_700_000_000_000_103,
  },
  {
    kind: 'clock-step',
    cause: 'stepped',
    bootId: 'boot-1',
    bootTimeUs: 5_000_000,
    wallBeforeUs: 1_700_000_000_000_000,
    wallAfterUs: 1_600_000_000_000_000,
    noticedWithinUs: 500_000,
  },
  { kind: 'error', code: 'store-failed', message: 'database is locked', requestId: 7 },
  {
    kind: 'rows',
    requestId: 7,
    area: 'unencrypted',
    generation: 'generation-1',
    rows: [
      {
        area: 'unencrypted',
        table: 'users',
        rowId: 3,
        savedAtUs: 1_700_000_000_000_000,
        columns: ['count', 'ratio', 'name', 'absent'],
        values: [42, 0.5, 'ü', null],
      },
      {
        area: 'unencrypted',
        table: 'big',
        rowId: 5,
        savedAtUs: 1_700_000_000_000_001,
        columns: ['highest', 'lowest', 'bytes'],
        // The bytes hold a magic, which is stuffed.
        values: [
          9_223_372_036_854_775_807n,
          -9_223_372_036_854_775_808n,
          new Uint8Array([0xf5, 0x49, 0x53, 0x42]),
        ],
      },
    ],
    lost: [{ fromRowId: 0, throughRowId: 2, count: 2, reason: 'database-full' }],
    throughRowId: 5,
    hasMore: true,
  },
];

/** One message of each kind; their bytes are in test/golden/channel/v<version>-<kind>.hex. */
export const goldenMessages: ReadonlyMap<string, ChannelMessage> = new Map(
  messages.map((message) => [message.kind, message]),
);
