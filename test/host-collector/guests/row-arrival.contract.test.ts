import { join } from 'node:path';

import { describe, expect, test } from 'vitest';

import { SystemClock } from '../../../common/runtime/clock.ts';
import { NotifiedArrival, PolledArrival } from '../../../host-collector/guests/row-arrival.ts';
import {
  CertificateAuthority,
  hasPython,
  startGuest,
  startHost,
  startPtyPair,
  writeCertificates,
} from '../../support/channel-fixture.ts';
import { eventually } from '../../support/eventually.ts';
import { MemoryRowStore } from '../../support/memory-row-store.ts';
import { RecordingGuestListener } from '../../support/recording-guest-listener.ts';
import { describeUnless } from '../../support/requirements.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

interface Addresses extends AsyncDisposable {
  readonly guest: { readonly address: string; readonly tlsDirectory?: string };
  /** Where the host dials; undefined: where the server says. */
  readonly host: { readonly address?: string; readonly tlsDirectory?: string };
}

const arrivals = {
  notification: () => new NotifiedArrival(),
  polling: () => new PolledArrival({ clock: new SystemClock() }, { intervalMs: 5 }),
};

const nothing = () => Promise.resolve();

const transports: Record<string, (directory: string) => Promise<Addresses>> = {
  'a unix socket': (directory) => {
    const address = `unix:${join(directory, 'guest.sock')}`;
    return Promise.resolve({ guest: { address }, host: {}, [Symbol.asyncDispose]: nothing });
  },
  'TCP with mutual TLS 1.3': (directory) => {
    const authority = new CertificateAuthority('test authority');
    writeCertificates(join(directory, 'guest'), authority);
    writeCertificates(join(directory, 'host'), authority);
    return Promise.resolve({
      guest: { address: 'tcp:127.0.0.1:0', tlsDirectory: join(directory, 'guest') },
      host: { tlsDirectory: join(directory, 'host') },
      [Symbol.asyncDispose]: nothing,
    });
  },
  'a character device (pty pair)': async (directory) => {
    const socketPath = join(directory, 'chardev.sock');
    const pty = await startPtyPair(socketPath);
    return {
      guest: { address: `virtio:${pty.devicePath}` },
      host: { address: `virtio:${socketPath}` },
      [Symbol.asyncDispose]: () => pty[Symbol.asyncDispose](),
    };
  },
};

const row = (table: string, value: number) => ({ table, columns: ['value'], values: [value] });

for (const [transport, open] of Object.entries(transports)) {
  const obstacle =
    transport.includes('pty') && !hasPython
      ? 'python3, which makes the pty pair, is missing: apt-get install python3'
      : undefined;

  describeUnless(obstacle, `rows over ${transport}`, () => {
    describe.each(Object.entries(arrivals))('by %s', (_, newArrival) => {
      test('come in row_id order per area, each once, through restarts of guest and host', async () => {
        using directory = temporaryDirectory();
        await using addresses = await open(directory.path);
        const store = new MemoryRowStore();
        const listener = new RecordingGuestListener();
        const registrations = [
          { area: 'unencrypted', tables: '**' },
          { area: 'encrypted', tables: '**' },
        ] as const;
        const startAll = async (resumeFrom = {}) => {
          const server = await startGuest(store, addresses.guest);
          const options = {
            address: server.address!,
            ...addresses.host,
            registrations,
            resumeFrom,
          };
          return { server, client: await startHost(listener, options, newArrival()) };
        };
        const isComplete = (count: number) => () =>
          listener.rowIds().length === count && listener.rowIds('encrypted').length === count;
        const publish = (count: number): void => {
          for (let index = 0; index < count; index += 1) {
            store.publish([row('users', index)]);
            store.publish([row('secret', index)], 'encrypted');
          }
        };

        publish(50);
        const first = await startAll();
        await eventually(isComplete(50), { timeoutMs: 10_000 });
        publish(50);
        await eventually(isComplete(100), { timeoutMs: 10_000 });
        await first.server.stop();
        publish(50);
        await first.client.stop();

        const cursors = {
          encrypted: { generation: 'generation-1-e', rowId: 100 },
          unencrypted: { generation: 'generation-1-u', rowId: 100 },
        };
        const second = await startAll(cursors);
        await eventually(isComplete(150), { timeoutMs: 10_000 });
        expect(listener.rowIds()).toEqual(Array.from({ length: 150 }, (__, index) => index + 1));
        expect(listener.rowIds('encrypted')).toEqual(listener.rowIds());
        expect(listener.events.filter((event) => event.startsWith('generation'))).toHaveLength(2);
        second.client.acknowledge('unencrypted', { ...cursors.unencrypted, rowId: 150 });
        await eventually(() => store.acknowledged.unencrypted === 150, { timeoutMs: 5_000 });
        await second.client.stop();
        await second.server.stop();
      });

      test('come before the watermark that speaks of them', async () => {
        using directory = temporaryDirectory();
        await using addresses = await open(directory.path);
        const store = new MemoryRowStore();
        const listener = new RecordingGuestListener();
        const server = await startGuest(store, addresses.guest);
        const options = { address: server.address!, ...addresses.host };
        const client = await startHost(listener, options, newArrival());
        for (let index = 1; index <= 20; index += 1) {
          store.publish([row('users', index)], 'unencrypted', index);
          store.watermarkTimeUs = index;
          const newest = () => listener.watermarks.at(-1);
          await eventually(() => newest()?.timeUs === index, { timeoutMs: 5_000, pollMs: 1 });
          expect(listener.given.length).toBe(index);
          expect(newest()?.cursors.unencrypted?.rowId).toBe(index);
        }
        await client.stop();
        await server.stop();
      });
    });
  });
}
