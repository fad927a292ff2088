import assert from 'node:assert';

import { KpiFileSystem } from '../../../guest-agent/files/kpi-file-system.ts';
import { defaultFileSystemOptions } from '../../../guest-agent/files/options.ts';
import { DirectoryHandles } from '../../../guest-agent/fuse/dev-fuse/directory-handles.ts';
import { operationTable } from '../../../guest-agent/fuse/dev-fuse/operation-table.ts';
import { SessionState } from '../../../guest-agent/fuse/dev-fuse/session-state.ts';
import { writeBytesMax } from '../../../guest-agent/fuse/protocol/init.ts';
import { ReplyMessage } from '../../../guest-agent/fuse/protocol/reply-message.ts';
import { RequestMessage } from '../../../guest-agent/fuse/protocol/request-message.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { MemoryStore } from '../../support/memory-store.ts';
import { randomSession, requestsIn, sampleSession } from '../fuse-request.ts';
import type { FuzzTarget } from '../fuzz-target.ts';

const requestBytesMax = 70_000;
const errnoMax = 4_095;
/** Bounds that a session of some requests can meet. */
const options = {
  ...defaultFileSystemOptions,
  filesMax: 8,
  directoriesMax: 4,
  handlesMax: 4,
  fileBytesMax: 65_536,
  scratchBytesMax: 65_536,
  bufferBytesMax: 131_072,
};

const firstNode = 100;
const session = sampleSession(firstNode + 1);

/** An agent's file system and request operations; a store in memory. */
class Agent {
  readonly state: SessionState;
  readonly #store = new MemoryStore();
  readonly #fileSystem: KpiFileSystem;
  readonly #request = new RequestMessage(Buffer.from(new ArrayBuffer(requestBytesMax)));

  constructor() {
    const deps = {
      store: this.#store,
      content: this.#store,
      // Ids of nodes begin here.
      clock: new ManualClock(firstNode),
      storedBytes: () => 0,
    };
    this.#fileSystem = KpiFileSystem.restore(deps, options);
    this.state = new SessionState({
      fileSystem: this.#fileSystem,
      reply: new ReplyMessage(writeBytesMax),
      directories: new DirectoryHandles(),
      incarnation: 0,
      negotiation: undefined,
      declined2: 0,
    });
  }

  /** The error of the reply; undefined when there is none yet. */
  take(bytes: Uint8Array): number | undefined {
    const request = this.#request;
    request.bytes.set(bytes.subarray(0, requestBytesMax));
    if (!request.receive(Math.min(bytes.length, requestBytesMax))) return undefined;
    const operation = operationTable[request.opcode];
    if (operation === undefined) return undefined;
    this.#fileSystem.settle();
    const byteCount = operation(this.state, request);
    this.#store.commit();
    this.#fileSystem.settle();
    if (byteCount === 0) return undefined;
    const reply = this.state.reply.bytes;
    const error = reply.readInt32LE(4);
    assert.equal(reply.readUInt32LE(0), byteCount);
    assert.equal(reply.readBigUInt64LE(8), request.unique);
    assert(error <= 0 && error >= -errnoMax, `errno ${error}`);
    return error;
  }
}

/** Requests as the kernel would never send them, one session of them an input. */
export const fuseRequests: FuzzTarget = {
  name: 'fuse-requests',
  inputBytesMax: requestBytesMax,
  start: () =>
    Promise.resolve({
      samples: [session],
      generate: randomSession,
      run: (input) => {
        const agent = new Agent();
        for (const request of requestsIn(input)) agent.take(request);
      },
      checkStillWorks: () => {
        const agent = new Agent();
        const errors = Array.from(requestsIn(session), (request) => agent.take(request));
        assert.deepEqual(new Set(errors), new Set([0, undefined]));
        return Promise.resolve();
      },
      stop: () => Promise.resolve(),
    }),
};
