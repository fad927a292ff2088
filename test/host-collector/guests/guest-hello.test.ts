import { join } from 'node:path';

import { describe, expect, test } from 'vitest';

import { startGuest } from '../../support/channel-fixture.ts';
import { eventually } from '../../support/eventually.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { MemoryRowStore } from '../../support/memory-row-store.ts';
import { rawHost } from '../../support/raw-host.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const timeout = { timeoutMs: 10_000 };
const registrations = [{ area: 'unencrypted', tables: 'db/**' }] as const;

describe('a guest to its host', () => {
  test('"the hello carries protocol version, database generation, boot id"; "registrations are sent again at each hello"', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'guest.sock');
    const store = new MemoryRowStore();
    const server = await startGuest(store, { address: `unix:${path}` }, { bootId: 'boot-7' });
    for (const session of [3, 4]) {
      const host = await rawHost(path);
      host.hello(session);
      await eventually(() => host.kinds().includes('welcome'), timeout);
      expect(host.received.find(({ kind }) => kind === 'welcome')).toMatchObject({
        version: 1,
        bootId: 'boot-7',
        generations: { encrypted: 'generation-1-e', unencrypted: 'generation-1-u' },
      });
      // Nothing of the session before is remembered.
      expect(store.registrations).toEqual([]);
      host.connection.send({ kind: 'register', notify: true, registrations: [...registrations] });
      await eventually(() => store.registrations.length === 1, timeout);
      host.connection.close();
      await eventually(() => !server.hasHost && store.registrations.length === 0, timeout);
    }
    await server.stop();
  });

  test('"the agent sends its clock steps (boot id, boot time, real time), and answers 4-timestamp clock exchanges"', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'guest.sock');
    const clock = new ManualClock();
    const server = await startGuest(
      new MemoryRowStore(),
      { address: `unix:${path}` },
      { clock, bootId: 'boot-7' },
    );
    const host = await rawHost(path);
    host.hello(3);
    await eventually(() => host.kinds().includes('welcome'), timeout);
    const beforeUs = clock.wallUs();
    clock.stepWall(-5_000_000);
    host.connection.send({ kind: 'clock-request', requestId: 9, hostSentUs: 123 });
    await eventually(() => host.kinds().includes('clock-response'), timeout);
    const said = host.received.filter(({ kind }) => kind.startsWith('clock-'));
    // The step first: what was read after it means another time.
    expect(said).toMatchObject([
      {
        kind: 'clock-step',
        bootId: 'boot-7',
        bootTimeUs: expect.any(Number),
        wallBeforeUs: beforeUs,
        wallAfterUs: beforeUs - 5_000_000,
      },
      {
        kind: 'clock-response',
        requestId: 9,
        hostSentUs: 123,
        guestReceivedUs: beforeUs - 5_000_000,
        guestSentUs: beforeUs - 5_000_000,
      },
    ]);
    host.connection.close();
    await server.stop();
  });
});
