import assert from 'node:assert';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';

import { encodeFrame, FrameDecoder } from '../../../common/channel/frame-codec.ts';
import { MessageCodec } from '../../../common/channel/message-codec.ts';
import { SystemClock } from '../../../common/runtime/clock.ts';
import type { Log } from '../../../common/runtime/log.ts';
import { SystemRandom } from '../../../common/runtime/random.ts';
import { GuestChannelClient } from '../../../host-collector/guests/guest-channel-client.ts';
import { NotifiedArrival } from '../../../host-collector/guests/row-arrival.ts';
import { everyTable } from '../../support/channel-fixture.ts';
import { eventually } from '../../support/eventually.ts';
import { goldenMessages } from '../../support/golden-channel-messages.ts';
import { RecordingGuestListener } from '../../support/recording-guest-listener.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';
import { CountingLog } from '../counting-log.ts';
import type { FuzzTarget, RunningFuzzTarget } from '../fuzz-target.ts';
import { joinParts, partsIn } from '../parts.ts';

const timeoutMs = 10_000;
const codec = new MessageCodec();
const payloads = [...goldenMessages.values()].map((message) => codec.encode(message));
const welcome = payloadOf('welcome');
const clockResponse = payloadOf('clock-response');
const invite = codec.encode({ kind: 'invite', agentInstance: 'the next', endedSession: null });

function payloadOf(name: string): Uint8Array {
  const message = goldenMessages.get(name);
  assert(message !== undefined);
  return codec.encode(message);
}

/** The host's end of the channel: messages, and bytes, of a guest that is not one of ours. */
export const hostOfHostileGuest: FuzzTarget = {
  name: 'host-of-hostile-guest',
  dictionary: ['\u00f5ISB', 'rows', 'hasMore'],
  start: startHost,
};

async function startHost(): Promise<RunningFuzzTarget> {
  const directory = temporaryDirectory();
  const path = join(directory.path, 'guest.sock');
  const counting = new CountingLog();
  let onConnection = destroy;
  const server = createServer((socket) => {
    onConnection(socket);
  });
  await new Promise<void>((resolve) => {
    server.listen(path, resolve);
  });
  const converse = async (parts: readonly Uint8Array[]): Promise<void> => {
    const guest = new Promise<HostileGuest>((resolve) => {
      onConnection = (socket) => {
        onConnection = destroy;
        resolve(new HostileGuest(socket));
      };
    });
    const client = newClient(path, counting.log);
    await client.start();
    try {
      await (await guest).say(parts);
    } finally {
      await client.stop();
    }
  };
  return {
    samples: [...payloads.map((each) => joinParts([each])), joinParts(payloads)],
    run: (input) => converse([...partsIn(input)]),
    checkStillWorks: async () => {
      await converse([clockResponse]);
      counting.check();
    },
    stop: async () => {
      await new Promise((resolve) => {
        server.close(resolve);
      });
      directory[Symbol.dispose]();
    },
  };
}

function destroy(socket: Socket): void {
  socket.destroy();
}

function newClient(path: string, log: Log): GuestChannelClient {
  return new GuestChannelClient(
    {
      clock: new SystemClock(),
      log,
      random: new SystemRandom(),
      arrival: new NotifiedArrival(),
      listener: new RecordingGuestListener(),
    },
    { hostInstance: 'host', registrations: everyTable, address: `unix:${path}` },
  );
}

/** A guest that welcomes its host, and then says whatever it is told to. */
class HostileGuest {
  readonly #socket: Socket;
  readonly #sessions: number[] = [];
  #isClosed = false;

  constructor(socket: Socket) {
    this.#socket = socket;
    const decoder = new FrameDecoder({
      frame: ({ session, payload }) => {
        const decoded = codec.decode(payload);
        if (decoded.outcome === 'message' && decoded.message.kind === 'hello') {
          this.#sessions.push(session);
        }
      },
      damage: () => {},
    });
    socket.on('data', (chunk: Buffer) => {
      decoder.push(chunk);
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      this.#isClosed = true;
    });
  }

  /** A part that begins as a frame does goes out as it is, others framed. Whatever was said, an invite makes the host greet anew. */
  async say(parts: readonly Uint8Array[]): Promise<void> {
    const [session = 0] = await eventually(() => this.#sessions.length > 0 && this.#sessions, {
      timeoutMs,
      pollMs: 1,
    });
    this.#socket.write(encodeFrame(session, welcome));
    for (const part of parts) {
      const isRaw = part[0] === 0xf5;
      this.#socket.write(isRaw ? part : encodeFrame(session, part));
    }
    const before = this.#sessions.length;
    this.#socket.write(encodeFrame(0, invite));
    const hasAnswer = (): boolean => this.#isClosed || this.#sessions.length > before;
    await eventually(hasAnswer, { timeoutMs, pollMs: 1 });
  }
}
