import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import type { GuestRow } from '../../../common/channel/guest-row.ts';
import { SystemClock } from '../../../common/runtime/clock.ts';
import {
  everyTable,
  FaultyProxy,
  startGuest,
  startHost,
  type Treatment,
} from '../../support/channel-fixture.ts';
import { eventually } from '../../support/eventually.ts';
import { MemoryRowStore } from '../../support/memory-row-store.ts';
import { rawHost } from '../../support/raw-host.ts';
import { RecordingGuestListener } from '../../support/recording-guest-listener.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const timeout = { timeoutMs: 10_000 };
const soonSilent = { keepAliveIntervalMs: 40, silenceMaxMs: 150 };

function numbers(count: number, table = 'users'): Pick<GuestRow, 'table' | 'columns' | 'values'>[] {
  return Array.from({ length: count }, (_, index) => ({
    table,
    columns: ['value'],
    values: [index],
  }));
}

function upTo(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index + 1);
}

/** A guest on a unix socket, behind a proxy if `treat` is given, and a host. */
async function startPair(
  treat?: (connectionIndex: number) => Treatment,
  hostOptions: Partial<Parameters<typeof startHost>[1]> = {},
) {
  const directory = temporaryDirectory();
  const path = join(directory.path, 'guest.sock');
  const proxyPath = join(directory.path, 'proxy.sock');
  const store = new MemoryRowStore();
  const listener = new RecordingGuestListener();
  const server = await startGuest(store, { address: `unix:${path}` });
  const proxy = treat === undefined ? undefined : new FaultyProxy(path, treat);
  await proxy?.listen(proxyPath);
  const address = `unix:${proxy === undefined ? path : proxyPath}`;
  const client = await startHost(listener, { address, ...hostOptions });
  return {
    path,
    store,
    listener,
    server,
    client,
    [Symbol.asyncDispose]: async () => {
      await client.stop();
      await proxy?.[Symbol.asyncDispose]();
      await server.stop();
      directory[Symbol.dispose]();
    },
  };
}

describe('guest channel', () => {
  test('cut at byte n, in either direction, any number of times: each row once, in order', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.record({
            up: fc.integer({ min: 0, max: 900 }),
            down: fc.integer({ min: 0, max: 3_000 }),
          }),
          { minLength: 1, maxLength: 4 },
        ),
        async (cuts) => {
          await using pair = await startPair((index) => {
            const cut = cuts[index];
            return cut === undefined
              ? {}
              : { cutAfterUpBytes: cut.up, cutAfterDownBytes: cut.down };
          });
          for (let commit = 0; commit < 10; commit += 1) pair.store.publish(numbers(5));
          await eventually(() => pair.listener.given.length >= 50, timeout);
          expect(pair.listener.rowIds()).toEqual(upTo(50));
        },
      ),
      { numRuns: 12 },
    );
  });

  test('a stream that arrives byte by byte is the same stream', async () => {
    await using pair = await startPair(() => ({ dribbles: true }));
    pair.store.publish(numbers(50));
    await eventually(() => pair.listener.given.length >= 50, timeout);
    expect(pair.listener.rowIds()).toEqual(upTo(50));
  });

  test('garbage before the hello is skipped', async () => {
    const garbage = Buffer.concat([
      Buffer.from('login: '),
      Buffer.from([0xf5, 0x49, 0x53, 0x42, 1, 2, 3, 0xf5]),
      Buffer.alloc(5_000, 0x20),
    ]);
    await using pair = await startPair(() => ({ garbage }));
    pair.store.publish(numbers(3));
    await eventually(() => pair.listener.given.length === 3, timeout);
    expect(pair.listener.rowIds()).toEqual([1, 2, 3]);
  });

  test('a repeated hello of a session is welcomed again and changes nothing', async () => {
    await using pair = await startPair();
    const host = await rawHost(pair.path);
    host.hello(5);
    host.connection.send({ kind: 'register', notify: true, registrations: [...everyTable] });
    const cursor = { generation: 'generation-1-u', rowId: 0 };
    const limits = { rowsMax: 10, bytesMax: 1_000 };
    host.connection.send({ kind: 'fetch', requestId: 1, area: 'unencrypted', cursor, ...limits });
    await eventually(() => host.kinds().includes('rows'), timeout);
    host.hello(5);
    await eventually(() => host.kinds().filter((kind) => kind === 'welcome').length === 2, timeout);
    pair.store.publish(numbers(1));
    await eventually(() => host.kinds().includes('published'), timeout);
    const published = host.received.find(({ kind }) => kind === 'published');
    expect(published).toMatchObject({ tables: ['users'], throughRowId: 1 });
    host.connection.close();
  });

  test('a newer host replaces the older one', async () => {
    await using pair = await startPair();
    await eventually(() => pair.server.hasHost, timeout);
    const host = await rawHost(pair.path);
    expect(pair.listener.disconnectCount).toBe(0);
    host.hello(9);
    await eventually(() => pair.listener.disconnectCount === 1, timeout);
    // The older one comes back, and is then the newer.
    await eventually(() => host.closeReason() === 'closed-by-peer', timeout);
  });

  test('a frame of a session that the guest does not know is answered with an invite', async () => {
    await using pair = await startPair();
    const host = await rawHost(pair.path);
    host.connection.send({ kind: 'ping' }, 77);
    await eventually(() => host.kinds().filter((kind) => kind === 'invite').length === 2, timeout);
    expect(host.received.findLast(({ kind }) => kind === 'invite')).toEqual({
      kind: 'invite',
      agentInstance: 'agent-1',
      endedSession: 77,
    });
    host.connection.close();
  });

  test('a host that speaks no common version is told so', async () => {
    await using pair = await startPair();
    const host = await rawHost(pair.path);
    const versions = { oldest: 90, newest: 91 };
    host.connection.send({ kind: 'hello', versions, hostInstance: 'future' }, 4);
    await eventually(() => host.kinds().includes('error'), timeout);
    const error = host.received.find(({ kind }) => kind === 'error');
    expect(error).toMatchObject({ code: 'version-unsupported' });
    host.connection.close();
  });

  test('a guest database of another generation begins anew', async () => {
    await using pair = await startPair();
    pair.store.publish(numbers(3));
    await eventually(() => pair.listener.given.length === 3, timeout);
    await pair.server.stop();
    const restored = new MemoryRowStore('generation-2');
    restored.publish(numbers(2));
    const server = await startGuest(restored, {
      address: `unix:${pair.path}`,
      agentInstance: 'agent-2',
    });
    await eventually(() => pair.listener.given.length === 5, timeout);
    expect(pair.listener.events.slice(-3)).toEqual([
      'generation encrypted generation-1-e -> generation-2-e',
      'generation unencrypted generation-1-u -> generation-2-u',
      'rows unencrypted 1,2',
    ]);
    await server.stop();
  });

  test('lost ranges come in their place, and again after a restart until acknowledged', async () => {
    await using pair = await startPair();
    await pair.client.stop();
    pair.store.publish(numbers(9));
    pair.store.prune('unencrypted', 0, 2);
    pair.store.prune('unencrypted', 4, 6);
    const expected = [
      'lost unencrypted 0-2',
      'rows unencrypted 3,4',
      'lost unencrypted 4-6',
      'rows unencrypted 7,8,9',
    ];
    for (let attempt = 0; attempt < 2; attempt += 1) {
      const listener = new RecordingGuestListener();
      const client = await startHost(listener, { address: `unix:${pair.path}` });
      await eventually(() => listener.given.length === 5, timeout);
      expect(listener.events.slice(2)).toEqual(expected);
      await client.stop();
    }
  });

  test('a lost range whose commit fails is reported again, before any row behind it', async () => {
    await using pair = await startPair();
    await pair.client.stop();
    pair.store.publish(numbers(4));
    pair.store.prune('unencrypted', 0, 2);
    const listener = new RecordingGuestListener();
    let refusals = 2;
    listener.onLost = async () => {
      await Promise.resolve();
      refusals -= 1;
      if (refusals >= 0) throw new Error('the disk is full');
    };
    const client = await startHost(listener, { address: `unix:${pair.path}` });
    await eventually(() => listener.given.length === 2, timeout);
    expect(listener.events.slice(2)).toEqual(['lost unencrypted 0-2', 'rows unencrypted 3,4']);
    await client.stop();
  });

  test('a host whose cursor is beyond the head tells the store, which begins a new generation', async () => {
    await using pair = await startPair(undefined, {
      resumeFrom: { unencrypted: { generation: 'generation-1-u', rowId: 7 } },
    });
    await eventually(() => pair.store.acknowledged.unencrypted === 7, timeout);
    expect(pair.listener.given).toEqual([]);
  });

  test('rows that the host already has are not reported as lost', async () => {
    await using pair = await startPair();
    pair.store.publish(numbers(5));
    await eventually(() => pair.listener.given.length === 5, timeout);
    pair.store.prune('unencrypted', 0, 5);
    pair.store.publish(numbers(1));
    await eventually(() => pair.listener.given.length === 6, timeout);
    expect(pair.listener.lostRanges).toEqual([]);
  });

  test('a batch that the listener refuses is given again, and nothing after it before', async () => {
    await using pair = await startPair();
    let refusals = 2;
    pair.listener.onRows = async () => {
      await Promise.resolve();
      refusals -= 1;
      if (refusals >= 0) throw new Error('the disk is full');
    };
    for (let commit = 0; commit < 5; commit += 1) pair.store.publish(numbers(2));
    await eventually(() => pair.listener.given.length === 10, timeout);
    expect(pair.listener.rowIds()).toEqual(upTo(10));
  });

  test('at most N unprocessed batches: a slow listener stops the fetching', async () => {
    await using pair = await startPair(undefined, { batchesInHandMax: 2 });
    const releases: (() => void)[] = [];
    pair.listener.onRows = () =>
      new Promise<void>((resolve) => {
        releases.push(resolve);
      });
    pair.store.publish(numbers(20_000));
    await eventually(() => pair.store.fetchCount === 2, timeout);
    const pings = pair.listener.watermarks.length;
    expect(pings).toBe(0);
    await eventually(() => releases.length === 1, timeout);
    expect(pair.store.fetchCount).toBe(2);
    pair.listener.onRows = undefined;
    releases[0]!();
    await eventually(() => pair.listener.given.length === 20_000, timeout);
    expect(pair.listener.rowIds()).toEqual(upTo(20_000));
  });

  test('a slow or absent host costs bounded memory: one notification until it fetches', async () => {
    await using pair = await startPair();
    const host = await rawHost(pair.path);
    host.hello(3);
    await pair.client.stop();
    host.connection.send({ kind: 'register', notify: true, registrations: [...everyTable] });
    const fetch = {
      kind: 'fetch',
      requestId: 1,
      area: 'unencrypted',
      rowsMax: 9,
      bytesMax: 9,
    } as const;
    host.connection.send({ ...fetch, cursor: { generation: 'generation-1-u', rowId: 0 } });
    await eventually(() => host.kinds().includes('rows'), timeout);
    for (let commit = 0; commit < 1_000; commit += 1) pair.store.publish(numbers(1));
    const watermarks = (): number => host.kinds().filter((kind) => kind === 'watermark').length;
    const before = watermarks();
    await eventually(() => watermarks() >= before + 2, timeout);
    expect(host.kinds().filter((kind) => kind === 'published').length).toBeLessThanOrEqual(2);
    host.connection.close();
  });

  test('fetches again when the store failed', async () => {
    await using pair = await startPair();
    pair.store.failingFetchCount = 2;
    pair.store.publish(numbers(1));
    await eventually(() => pair.listener.given.length === 1, timeout);
    expect(pair.listener.disconnectCount).toBe(0);
  });

  test('asks a store that keeps failing by one bounded backoff, however much is announced meanwhile', async () => {
    await using pair = await startPair();
    await eventually(() => pair.server.hasHost, timeout);
    pair.store.failingFetchCount = 3;
    const beganAtMs = performance.now();
    // Each is announced once the one before was asked for; without a backoff each would be a fetch.
    const announcing = setInterval(() => pair.store.publish(numbers(1)), 1);
    await eventually(() => pair.listener.given.length > 0, timeout);
    clearInterval(announcing);
    expect(pair.store.failingFetchCount).toBe(0);
    const backoffMinMs = 50 + 100 + 200;
    expect(performance.now() - beganAtMs).toBeGreaterThanOrEqual(backoffMinMs);
  });

  test('tells what keeps failing on it, since when and why, until it works again', async () => {
    await using pair = await startPair();
    await eventually(() => pair.server.hasHost, timeout);
    expect(pair.client.trouble).toBeNull();
    const beganAtUs = new SystemClock().wallUs();
    pair.store.failingFetchCount = 5;
    pair.store.publish(numbers(1));
    const trouble = await eventually(() => pair.client.trouble ?? undefined, timeout);
    expect(trouble.failureCount).toBeGreaterThanOrEqual(3);
    expect(trouble.reason).not.toBe('');
    // Two clocks of one process are set by a wall time in milliseconds.
    expect(trouble.sinceUs).toBeGreaterThan(beganAtUs - 1_000);
    await eventually(() => pair.listener.given.length === 1, timeout);
    expect(pair.client.trouble).toBeNull();
    // What the host can't take keeps a channel from working just as well.
    let refusals = 5;
    pair.listener.onRows = async () => {
      await Promise.resolve();
      refusals -= 1;
      if (refusals >= 0) throw new Error('the disk is full');
    };
    pair.store.publish(numbers(2));
    const refused = await eventually(() => pair.client.trouble ?? undefined, timeout);
    expect(refused.reason).toBe('the disk is full');
    await eventually(() => pair.client.counts.forwarded === 3, timeout);
    expect(pair.client.trouble).toBeNull();
    // "accepted = forwarded + dropped + failed" of rows, those that were given again counted each time
    const { accepted, forwarded, dropped, failed } = pair.client.counts;
    expect([forwarded, dropped]).toEqual([3, 0]);
    expect(accepted).toBe(forwarded + failed);
    expect(failed).toBe(10);
  });

  test('begins anew when the store failed at the hello', async () => {
    await using pair = await startPair();
    await eventually(() => pair.server.hasHost, timeout);
    await pair.client.stop();
    await eventually(() => !pair.server.hasHost, timeout);
    pair.store.failingHeadCount = 1;
    pair.store.publish(numbers(1));
    const listener = new RecordingGuestListener();
    const client = await startHost(listener, { address: `unix:${pair.path}` });
    await eventually(() => listener.given.length === 1, timeout);
    expect(pair.store.failingHeadCount).toBe(0);
    await client.stop();
  });

  test('only registered tables come; the cursor passes the others', async () => {
    const registrations = [{ area: 'unencrypted', tables: 'db/**' }] as const;
    await using pair = await startPair(undefined, { registrations });
    await eventually(() => pair.listener.watermarks.length > 0, timeout);
    pair.store.publish(numbers(1, 'db/reads'));
    pair.store.publish(numbers(3, 'other'));
    await eventually(
      () => pair.listener.watermarks.at(-1)?.cursors.unencrypted?.rowId === 4,
      timeout,
    );
    expect(pair.listener.rowIds()).toEqual([1]);
  });

  test('a half-open connection is noticed within the stated time and replaced', async () => {
    await using pair = await startPair((index) => ({ isBlackHole: index === 0 }), {
      timings: soonSilent,
    });
    pair.store.publish(numbers(1));
    await eventually(() => pair.listener.given.length === 1, timeout);
    expect(pair.listener.rowIds()).toEqual([1]);
  });

  test('the guest drops a host that fell silent', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'guest.sock');
    const server = await startGuest(new MemoryRowStore(), {
      address: `unix:${path}`,
      timings: soonSilent,
    });
    const host = await rawHost(path);
    host.hello(3);
    await eventually(() => server.hasHost, timeout);
    await eventually(() => !server.hasHost, timeout);
    await eventually(() => host.closeReason() === 'closed-by-peer', timeout);
    expect(server.hasHost).toBe(false);
    await server.stop();
  });

  test('the socket of an agent that was killed is taken over, a living one is not', async () => {
    using directory = temporaryDirectory();
    const address = `unix:${join(directory.path, 'guest.sock')}`;
    const script = 'require("net").createServer().listen(process.argv[1], () => console.log(1))';
    const path = join(directory.path, 'guest.sock');
    const killed = spawn(process.execPath, ['-e', script, path], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    await once(killed.stdout, 'data');
    killed.kill('SIGKILL');
    await once(killed, 'exit');
    expect(existsSync(path)).toBe(true);
    const server = await startGuest(new MemoryRowStore(), { address });
    await expect(startGuest(new MemoryRowStore(), { address })).rejects.toThrow(
      `cannot listen on ${address}`,
    );
    await server.stop();
  });
});
