import assert from 'node:assert';
import { randomBytes } from 'node:crypto';

import { newContentKey, openBody } from '../../../common/sealing/content-key.ts';
import { decodeFrameBatch, encodeFrameBatch } from '../../../common/wire/frame-batch.ts';
import {
  decodeFrame,
  decodeFrameEnvelope,
  decodeFrameHeader,
  encodeFrame,
} from '../../../common/wire/frame-codec.ts';
import { chainedFrames, dataStream } from '../../support/sample-frames.ts';
import type { FuzzTarget } from '../fuzz-target.ts';
import { goldenBytes } from '../golden-files.ts';

const key = newContentKey(randomBytes);
const frames = chainedFrames(dataStream('vm1'), 3).map(({ bytes }) => bytes);

/** Frames and batches of them, as neighbours send them and logs hold them. */
export const frameBytes: FuzzTarget = {
  name: 'frames',
  start: () =>
    Promise.resolve({
      samples: [
        ...goldenBytes('wire', /^frame-v\d.*\.hex$/),
        ...goldenBytes('wire', /^frame-batch.*\.hex$/),
        ...frames,
        encodeFrameBatch(frames),
      ],
      run: decode,
      checkStillWorks: () => {
        for (const bytes of frames) assert(decodeFrame(bytes).ok);
        return Promise.resolve();
      },
      stop: () => Promise.resolve(),
    }),
};

function decode(input: Uint8Array): void {
  const batch = decodeFrameBatch(input);
  for (const bytes of batch.ok ? batch.frames : [input]) {
    const header = decodeFrameHeader(bytes);
    const envelope = decodeFrameEnvelope(bytes);
    const decoded = decodeFrame(bytes, (sealed) => openBody(key, sealed));
    if (envelope.ok) assert(header.ok, 'what has an envelope has a header');
    if (!decoded.ok) continue;
    assert(envelope.ok, 'what is a frame has an envelope');
    // What was taken can be passed on, and says the same there.
    const again = decodeFrame(encodeFrame(decoded.frame));
    assert(again.ok);
    assert.deepStrictEqual(again.frame, decoded.frame);
  }
}
