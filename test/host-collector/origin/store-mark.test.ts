import { copyFileSync, cpSync, rmSync } from 'node:fs';
import { join } from 'node:path';

import { describe, expect, test } from 'vitest';

import { migrateStreamLog } from '../../../broker/log/stream-log-schema.ts';
import { StreamLog } from '../../../broker/log/stream-log.ts';
import { silentLog } from '../../../common/runtime/log.ts';
import { SystemRandom } from '../../../common/runtime/random.ts';
import { openDatabase, type Database } from '../../../common/sqlite/database.ts';
import { decodeFrame } from '../../../common/wire/frame-codec.ts';
import type { EncodedFrame } from '../../../common/wire/frame.ts';
import { vmDescriptorSchema } from '../../../common/wire/vm-descriptor.ts';
import { migrateCollector } from '../../../host-collector/origin/collector-schema.ts';
import { Origin } from '../../../host-collector/origin/origin.ts';
import { StoreMark } from '../../../host-collector/origin/store-mark.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const descriptor = vmDescriptorSchema.parse({
  apiVersion: 'isobar/v1',
  kind: 'VirtualMachine',
  id: 'vm1',
  monitoring: { specifiers: [{ id: 'all', dataPoints: 'kpi/**' }] },
});

/** A collector's own files, and everything that its runs have forwarded. */
class Host {
  readonly directory: string;
  readonly forwarded: EncodedFrame[] = [];
  #database: Database | null = null;
  #origin: Origin | null = null;
  #rowId = 0;

  constructor(directory: string) {
    this.directory = directory;
  }

  get path(): string {
    return join(this.directory, 'collector.db');
  }

  /** Without VMs it is as if the process had ended before it came to them. */
  async start(vms: readonly (typeof descriptor)[] = [descriptor]): Promise<void> {
    const database = openDatabase(this.path);
    migrateStreamLog(database);
    migrateCollector(database);
    const clock = new ManualClock();
    const random = new SystemRandom();
    const origin = new Origin({
      database,
      appender: new StreamLog({ database, clock, random }),
      forwarder: { forward: (frames) => void this.forwarded.push(...frames) },
      clock,
      log: silentLog,
      mark: new StoreMark(
        { database, random, log: silentLog },
        join(this.directory, 'collector.mark'),
      ),
    });
    await origin.start();
    for (const vm of vms) origin.add(vm);
    this.#database = database;
    this.#origin = origin;
  }

  async save(): Promise<void> {
    this.#rowId += 1;
    const row = {
      area: 'unencrypted' as const,
      table: 'users',
      rowId: this.#rowId,
      savedAtUs: 1_700_000_000_000_000 + this.#rowId,
      columns: ['n'],
      values: [this.#rowId],
    };
    const batch = { area: row.area, generation: 'g', rows: [row], lost: [] };
    await this.#origin?.guestListener(descriptor.id)?.rows({ ...batch, throughRowId: this.#rowId });
  }

  async stop(): Promise<void> {
    await this.#origin?.stop();
    this.#database?.close();
  }

  /** As after kill -9: nothing is folded, nothing closed in order. */
  kill(): void {
    this.#database?.close();
  }

  copyTo(path: string): void {
    this.#database?.prepare('VACUUM INTO ?').run(path);
  }

  restore(copy: string): void {
    for (const suffix of ['', '-wal', '-shm']) rmSync(`${this.path}${suffix}`, { force: true });
    copyFileSync(copy, this.path);
  }

  /** Why each epoch of the data stream began, in order. */
  reasons(): string[] {
    return this.forwarded.flatMap(({ bytes, header }) => {
      const decoded = decodeFrame(bytes);
      if (!decoded.ok) throw new Error('what is forwarded can be decoded');
      return header.stream.kind === 'status'
        ? []
        : decoded.frame.records.flatMap((record) =>
            record.kind === 'epoch-opened' ? [record.reason] : [],
          );
    });
  }

  /** Places in the streams that were given to more than one content. */
  reused(): string[] {
    const contents = new Map<string, string>();
    return this.forwarded.flatMap(({ header, bytes }) => {
      const { stream, epoch, seq } = header;
      const place = `${stream.kind} ${epoch.number} ${epoch.nonce} ${seq}`;
      const content = Buffer.from(bytes).toString('hex');
      const before = contents.get(place) ?? content;
      contents.set(place, content);
      return before === content ? [] : [place];
    });
  }
}

describe('StoreMark', () => {
  test('a restart, in order or not, goes on in the same epoch', async () => {
    using directory = temporaryDirectory();
    const host = new Host(directory.path);
    for (const isOrderly of [true, false, true, false]) {
      await host.start();
      await host.save();
      await host.save();
      if (isOrderly) await host.stop();
      else host.kill();
    }
    expect(host.reasons()).toEqual(['created']);
    expect(host.reused()).toEqual([]);
  });

  test.each([
    ['made while it was in use, put back after kill -9', true, false],
    ['made while it was in use, put back after a stop', true, true],
    ['made between two runs', false, true],
  ])(
    'an old collector.db put back by hand opens a new epoch and gives no seq twice: %s',
    async (_when, isHot, isOrderly) => {
      using directory = temporaryDirectory();
      const host = new Host(directory.path);
      const copy = join(directory.path, 'copy.db');
      await host.start();
      await host.save();
      if (isHot) host.copyTo(copy);
      else {
        await host.stop();
        copyFileSync(host.path, copy);
        await host.start();
      }
      await host.save();
      await host.save();
      if (isOrderly) await host.stop();
      else host.kill();
      host.restore(copy);
      await host.start();
      await host.save();
      await host.stop();
      await host.start();
      await host.save();
      await host.stop();
      expect(host.reasons()).toEqual(['created', 'store-lost']);
      expect(host.reused()).toEqual([]);
    },
  );

  test('a data directory put back whole, from elsewhere, opens a new epoch too', async () => {
    using directory = temporaryDirectory();
    using elsewhere = temporaryDirectory();
    const host = new Host(join(directory.path));
    await host.start();
    await host.save();
    await host.stop();
    cpSync(directory.path, elsewhere.path, { recursive: true });
    await host.start();
    await host.save();
    await host.stop();
    const other = new Host(elsewhere.path);
    other.forwarded.push(...host.forwarded);
    await other.start();
    await other.save();
    await other.stop();
    expect(other.reasons()).toEqual(['created', 'store-lost']);
    expect(other.reused()).toEqual([]);
  });

  test('a run that ends before it comes to a VM leaves the new epoch of that VM to the next', async () => {
    using directory = temporaryDirectory();
    const host = new Host(directory.path);
    const copy = join(directory.path, 'copy.db');
    await host.start();
    host.copyTo(copy);
    await host.save();
    await host.stop();
    host.restore(copy);
    await host.start([]);
    host.kill();
    await host.start();
    await host.save();
    await host.stop();
    expect(host.reasons()).toEqual(['created', 'store-lost']);
    expect(host.reused()).toEqual([]);
  });
});
