import assert from 'node:assert';
import { once } from 'node:events';
import { connect } from 'node:net';
import { join } from 'node:path';

import { encodeFrame, FrameDecoder } from '../../../common/channel/frame-codec.ts';
import { MessageCodec } from '../../../common/channel/message-codec.ts';
import { SystemClock } from '../../../common/runtime/clock.ts';
import { ChannelServer } from '../../../guest-agent/channel/channel-server.ts';
import { eventually } from '../../support/eventually.ts';
import { goldenMessages } from '../../support/golden-channel-messages.ts';
import { MemoryRowStore } from '../../support/memory-row-store.ts';
import { rawHost } from '../../support/raw-host.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';
import { CountingLog } from '../counting-log.ts';
import type { FuzzTarget, RunningFuzzTarget } from '../fuzz-target.ts';

const timeoutMs = 10_000;
const session = 5;
const codec = new MessageCodec();
const hello = encodeFrame(session, payload('hello'));
const lastHello = encodeFrame(1_234, payload('hello'));
const conversation = [...goldenMessages.values()].map((message) =>
  encodeFrame(session, codec.encode(message)),
);

function payload(name: string): Uint8Array {
  const message = goldenMessages.get(name);
  assert(message !== undefined);
  return codec.encode(message);
}

/** The guest's end of the channel: bytes of a host that is not one of ours. */
export const guestOfHostileHost: FuzzTarget = {
  name: 'guest-of-hostile-host',
  dictionary: ['\u00f5ISB'],
  start: startGuest,
};

async function startGuest(): Promise<RunningFuzzTarget> {
  const directory = temporaryDirectory();
  const path = join(directory.path, 'guest.sock');
  const store = new MemoryRowStore();
  const row = { table: 'users', columns: ['value'], values: [1] };
  store.publish(Array.from({ length: 500 }, () => row));
  const counting = new CountingLog();
  const clock = new SystemClock();
  const bootClock = { bootId: 'boot', bootTimeUs: () => Math.round(clock.monotonicMs() * 1_000) };
  const server = new ChannelServer(
    { clock, bootClock, log: counting.log, store },
    { address: `unix:${path}`, agentInstance: 'agent', watermarkIntervalMs: 20 },
  );
  await server.start();
  return {
    samples: [
      ...conversation.map((frame) => Buffer.concat([hello, frame])),
      Buffer.concat([hello, ...conversation]),
      Buffer.concat(Array.from({ length: 200 }, () => hello)),
    ],
    run: async (input) => {
      const failedBefore = server.counts.failed;
      await converse(path, input);
      if (hasNoMessage(input)) assert(server.counts.failed > failedBefore, 'a refusal is counted');
    },
    checkStillWorks: async () => {
      const host = await rawHost(path);
      host.hello(9);
      await eventually(() => host.kinds().includes('welcome'), { timeoutMs });
      host.connection.close();
      counting.check();
    },
    stop: async () => {
      await server.stop();
      directory[Symbol.dispose]();
    },
  };
}

/** Whether something of it can't be read, up to the hello that follows. */
function hasNoMessage(input: Uint8Array): boolean {
  let isUnreadable = false;
  const decoder = new FrameDecoder({
    frame: (frame) => {
      isUnreadable ||= codec.decode(frame.payload).outcome === 'malformed';
    },
    damage: () => {
      isUnreadable = true;
    },
  });
  decoder.push(input);
  decoder.push(lastHello);
  return isUnreadable;
}

/** Whatever came, a new hello behind it is welcomed, unless the guest has ended the connection. */
async function converse(path: string, input: Uint8Array): Promise<void> {
  const socket = connect(path);
  socket.on('error', () => {});
  let isClosed = false;
  let welcomes = 0;
  socket.on('close', () => {
    isClosed = true;
  });
  socket.on('data', (chunk: Buffer) => {
    if (chunk.includes('welcome')) welcomes += 1;
  });
  await once(socket, 'connect');
  const seam = Math.floor(input.length / 2);
  socket.write(input.subarray(0, seam));
  socket.write(input.subarray(seam));
  const before = welcomes;
  socket.write(lastHello);
  await eventually(() => isClosed || welcomes > before, { timeoutMs, pollMs: 1 });
  socket.destroy();
}
