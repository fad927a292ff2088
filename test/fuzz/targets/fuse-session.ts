import assert from 'node:assert';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';

import { compiledEntry } from '../../../common/runtime/package-root.ts';
import { RequestActivity } from '../../../guest-agent/fuse/dev-fuse/request-activity.ts';
import { opcode } from '../../../guest-agent/fuse/protocol/opcodes.ts';
import { eventually } from '../../support/eventually.ts';
import type { FuseThreadData } from '../../support/fuse-thread.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';
import { fuseRequest, randomSession, requestsIn, sampleSession } from '../fuse-request.ts';
import type { FuzzTarget, RunningFuzzTarget } from '../fuzz-target.ts';

const timeoutMs = 10_000;
const replyHeaderBytes = 16;
/** A socket passes on so much in one piece. */
const requestBytesMax = 16_384;
/** Of a RequestActivity. */
const endedSlot = 1;
const statfs = fuseRequest(opcode.statfs, 1, Buffer.alloc(0));

/** The loop that reads requests and answers them, on a thread of its own, with a socket in the place of /dev/fuse. */
export const fuseSession: FuzzTarget = {
  name: 'fuse-session',
  start: startSession,
};

async function startSession(): Promise<RunningFuzzTarget> {
  const directory = temporaryDirectory();
  const path = join(directory.path, 'device.sock');
  const activity = RequestActivity.allocate();
  const server = createServer({ pauseOnConnect: true });
  const accepted = new Promise<Socket>((resolve) => {
    server.once('connection', resolve);
  });
  await new Promise<void>((resolve) => {
    server.listen(path, resolve);
  });
  const kernel = new Kernel(connect(path), activity);
  const device = await accepted;
  const workerData: FuseThreadData = {
    descriptor: descriptorOf(device),
    takeover: null,
    refusedNames: [],
    declined2: 0,
    defers: false,
    activity,
  };
  const thread = new Worker(compiledEntry('test/support/fuse-thread.ts'), { workerData });
  let failure: Error | undefined;
  thread.on('error', (error) => {
    failure = new Error('the thread died', { cause: error });
  });
  const send = async (bytes: Buffer): Promise<void> => {
    await kernel.send(bytes);
    if (failure !== undefined) throw failure;
  };
  return {
    samples: [sampleSession(101)],
    generate: randomSession,
    run: async (input) => {
      for (const request of requestsIn(input)) {
        if (request.length > 0 && request.length <= requestBytesMax) await send(request);
      }
    },
    checkStillWorks: () => send(statfs),
    stop: async () => {
      await thread.terminate();
      device.destroy();
      kernel.end();
      server.close();
      directory[Symbol.dispose]();
    },
  };
}

/** Sends one request at a time, as the socket keeps no boundaries. */
class Kernel {
  readonly #socket: Socket;
  readonly #activity: Int32Array;
  #received = Buffer.alloc(0);
  #sentCount = 0;

  constructor(socket: Socket, activity: SharedArrayBuffer) {
    this.#socket = socket;
    this.#activity = new Int32Array(activity);
    socket.on('error', () => {});
    socket.on('data', (chunk: Buffer) => {
      this.#received = Buffer.concat([this.#received, chunk]);
    });
  }

  /** Resolves when the loop is through with it, and has answered where an answer is due. */
  async send(request: Buffer): Promise<void> {
    this.#received = Buffer.alloc(0);
    this.#socket.write(request);
    this.#sentCount += 1;
    const waiting = { timeoutMs, pollMs: 1 };
    await eventually(() => Atomics.load(this.#activity, endedSlot) === this.#sentCount, waiting);
    if (hasNone(request)) return;
    await eventually(() => this.#received.length >= replyHeaderBytes, waiting);
    const replyBytes = this.#received.readUInt32LE(0);
    await eventually(() => this.#received.length >= replyBytes, waiting);
    assert.equal(this.#received.length, replyBytes);
    assert.equal(this.#received.readBigUInt64LE(8), request.readBigUInt64LE(8));
    assert(this.#received.readInt32LE(4) <= 0);
  }

  end(): void {
    this.#socket.destroy();
  }
}

/** FORGET, BATCH_FORGET, and what is no whole request. */
function hasNone(request: Buffer): boolean {
  if (request.length < 40) return true;
  const operation = request.readUInt32LE(4);
  return operation === opcode.forget || operation === opcode.batchForget;
}

/** Node says it of a paused socket's handle only. */
function descriptorOf(socket: Socket): number {
  const handle: unknown = Reflect.get(socket, '_handle');
  const descriptor: unknown =
    typeof handle === 'object' && handle !== null ? Reflect.get(handle, 'fd') : undefined;
  assert(typeof descriptor === 'number' && descriptor >= 0);
  return descriptor;
}
