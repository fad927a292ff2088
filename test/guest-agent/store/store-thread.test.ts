import { MessageChannel } from 'node:worker_threads';

import { describe, expect, test } from 'vitest';

import { DatabaseContentReader } from '../../../guest-agent/store/database-content-reader.ts';
import type { StoreMessage } from '../../../guest-agent/store/store-loop.ts';
import { defaultStoreOptions } from '../../../guest-agent/store/store-options.ts';
import { StoreReader } from '../../../guest-agent/store/store-reader.ts';
import type { StoreOutcome } from '../../../guest-agent/store/store-request.ts';
import { StoreSignal, StoreThreadClient } from '../../../guest-agent/store/store-rings.ts';
import { StoreThreadService } from '../../../guest-agent/store/store-thread-service.ts';
import { eventually } from '../../support/eventually.ts';
import { saveOf } from '../../support/store-fixture.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

describe('StoreThreadService', () => {
  test('a request through the ring is durable, its outcome is there before its reply, and its row can be fetched', async () => {
    using directory = temporaryDirectory();
    const messages: StoreMessage[] = [];
    const failures: unknown[] = [];
    const { port1, port2 } = new MessageChannel();
    const thread = new StoreThreadService(
      {
        onMessage: (message) => void messages.push(message),
        onFailure: (error) => void failures.push(error),
      },
      {
        store: { ...defaultStoreOptions, directory: directory.path },
        replyDescriptor: null,
        replyPort: port2,
        logLevel: 'error',
      },
    );
    await thread.start();
    const client = new StoreThreadClient(thread.memory);
    const outcomes: StoreOutcome[] = [];
    const outcomeCountAtReply: number[] = [];
    port1.on('message', () => {
      client.drain((outcome) => void outcomes.push(outcome));
      outcomeCountAtReply.push(outcomes.length);
    });
    thread.watch('unencrypted', ['user*']);
    await eventually(() => messages.some(({ kind }) => kind === 'watched'), { timeoutMs: 5_000 });
    client.submit(saveOf('users', '9007199254740993,5.0,x\n', { token: 7n, file: 12 }));
    await eventually(() => outcomeCountAtReply.length === 1, { timeoutMs: 5_000 });
    expect(outcomeCountAtReply).toEqual([1]);
    expect(outcomes).toEqual([{ kind: 'save', file: 12, handle: 1, result: 0, sizeBytes: 23 }]);
    await eventually(() => messages.some(({ kind }) => kind === 'published'), { timeoutMs: 5_000 });
    expect(messages.find(({ kind }) => kind === 'published')).toEqual({
      kind: 'published',
      area: 'unencrypted',
      throughRowId: 1,
      tables: ['users'],
    });
    const reader = new StoreReader(directory.path);
    const fetched = reader.fetch({
      area: 'unencrypted',
      afterRowId: 0,
      throughRowId: thread.progress.frontier('unencrypted'),
      rowsMax: 10,
      bytesMax: 1_000,
    });
    expect(fetched).toEqual({
      rows: [
        {
          area: 'unencrypted',
          table: 'users',
          rowId: 1,
          savedAtUs: 1_000,
          columns: ['column1', 'column2', 'column3'],
          values: [9_007_199_254_740_993n, 5, 'x'],
        },
      ],
      throughRowId: 1,
      hasMore: false,
    });
    reader.close();
    const contents = new DatabaseContentReader(directory.path);
    expect(Buffer.from(contents.content('unencrypted', 12)).toString()).toBe(
      '9007199254740993,5.0,x\n',
    );
    expect(contents.list()).toMatchObject([{ file: 12, sizeBytes: 23, isDirectory: false }]);
    contents.close();
    await thread.stop();
    port1.close();
    expect(failures).toEqual([]);
    expect(messages.at(-1)).toEqual({ kind: 'stopped' });
  });

  test('a full ring blocks and goes on: small and large saves many times around it, needless rings of the bell, none lost', async () => {
    using directory = temporaryDirectory();
    const fileBytesMax = 60_000;
    const { port1, port2 } = new MessageChannel();
    const thread = new StoreThreadService(
      { onMessage: () => {}, onFailure: () => {} },
      {
        store: {
          ...defaultStoreOptions,
          directory: directory.path,
          synchronous: 'OFF',
          fileBytesMax,
        },
        replyDescriptor: null,
        replyPort: port2,
        logLevel: 'error',
      },
    );
    await thread.start();
    const client = new StoreThreadClient(thread.memory);
    const bell = new StoreSignal(thread.memory.signal);
    const saveCount = 600;
    const expected: number[] = [];
    for (let number = 0; number < saveCount; number += 1) {
      const content = `${number},${'x'.repeat((number * 7_919) % (fileBytesMax - 10))}\n`;
      expected.push(content.length);
      const ids = { token: BigInt(number + 1), handle: number + 1, file: number + 2 };
      client.submit(saveOf(`a${number}`, content, ids));
      bell.ring();
    }
    const outcomes: StoreOutcome[] = [];
    await eventually(
      () => {
        client.drain((outcome) => void outcomes.push(outcome));
        return outcomes.length === saveCount;
      },
      { timeoutMs: 15_000 },
    );
    expect(outcomes.map(({ handle }) => handle)).toEqual(expected.map((_, index) => index + 1));
    expect(outcomes.map(({ sizeBytes }) => sizeBytes)).toEqual(expected);
    expect(outcomes.every(({ result }) => result === 0)).toBe(true);
    await thread.stop();
    port1.close();
  });
});
