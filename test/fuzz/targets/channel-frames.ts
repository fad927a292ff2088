import assert from 'node:assert';

import { encodeFrame, FrameDecoder } from '../../../common/channel/frame-codec.ts';
import { MessageCodec } from '../../../common/channel/message-codec.ts';
import { encryptedDataPoint, kpiDataPoint } from '../../../common/wire/data-point.ts';
import { goldenMessages } from '../../support/golden-channel-messages.ts';
import type { FuzzRandom } from '../fuzz-random.ts';
import type { FuzzTarget } from '../fuzz-target.ts';

/** What a log line may hold of it. */
const problemCharsMax = 1_024;
const codec = new MessageCodec();
const payloads = [...goldenMessages.values()].map((message) => codec.encode(message));

/** The guest channel's byte stream: payloads as they are, and as a stream that arrives in two pieces. */
export const channelFrames: FuzzTarget = {
  name: 'channel-frames',
  dictionary: ['\u00f5ISB', 'kind', 'rows', 'block', 'shapes'],
  inputBytesMax: 262_144,
  start: () =>
    Promise.resolve({
      samples: payloads,
      generate: longLists,
      run: (input) => {
        takeMessage(input);
        const stream = Buffer.concat([encodeFrame(7, input), input, encodeFrame(8, input)]);
        takeStream(input, Math.floor(input.length / 2));
        const sessions = takeStream(stream, Math.floor(stream.length / 3));
        assert.equal(sessions[0], 7, 'a whole frame at the beginning is taken');
        assert.equal(sessions.at(-1), 8, 'and one after garbage');
      },
      checkStillWorks: () => {
        for (const payload of payloads) assert.equal(codec.decode(payload).outcome, 'message');
        return Promise.resolve();
      },
      stop: () => Promise.resolve(),
    }),
};

function takeStream(bytes: Uint8Array, seam: number): readonly number[] {
  const sessions: number[] = [];
  const decoder = new FrameDecoder({
    frame: ({ session, payload }) => {
      sessions.push(session);
      takeMessage(payload);
    },
    damage: ({ byteCount }) => {
      assert(byteCount > 0);
    },
  });
  decoder.push(bytes.subarray(0, seam));
  decoder.push(bytes.subarray(seam));
  assert(decoder.pendingBytes <= bytes.length);
  return sessions;
}

function takeMessage(payload: Uint8Array): void {
  const decoded = codec.decode(payload);
  if (decoded.outcome === 'malformed') {
    assert(decoded.problem.length <= problemCharsMax, 'a problem fits a log line');
  }
  if (decoded.outcome !== 'message' || decoded.message.kind !== 'rows') return;
  // What the collector makes of rows.
  for (const { table, columns } of decoded.message.rows) {
    encryptedDataPoint(table);
    for (const column of columns) kpiDataPoint(table, column);
  }
}

/** A short item, so often that the list is far longer than any that is meant. */
function longLists(random: FuzzRandom): Uint8Array {
  const count = random.below(50_000);
  const head = Buffer.from([0x9a, 0, 0, 0, 0]);
  head.writeUInt32BE(count, 1);
  const item = random.pick([[0], [0x80], [0xa0], [0x60], [0xf6]]);
  const list = Buffer.concat([head, ...Array.from({ length: count }, () => Buffer.from(item))]);
  const [key, kind] = random.pick([
    ['registrations', 'register'],
    ['tables', 'published'],
    ['lost', 'rows'],
    ['block', 'rows'],
  ] as const);
  return Buffer.concat([Buffer.from([0xa2]), text('kind'), text(kind), text(key), list]);
}

/** A short text in CBOR. */
function text(word: string): Buffer {
  return Buffer.from([0x60 + word.length, ...Buffer.from(word)]);
}
