import { mkdirSync } from 'node:fs';
import { join } from 'node:path';

import type { Area, PerArea } from '../common/channel/area.ts';
import type { Registration } from '../common/channel/message.ts';
import { type Cancel, SystemClock } from '../common/runtime/clock.ts';
import { silentLog } from '../common/runtime/log.ts';
import { SystemRandom } from '../common/runtime/random.ts';
import { SystemBootClock } from '../guest-agent/channel/boot-clock.ts';
import { ChannelServer } from '../guest-agent/channel/channel-server.ts';
import type {
  FetchedRows,
  FetchLimits,
  Publication,
  RowStore,
} from '../guest-agent/channel/row-store.ts';
import { StoreEngine } from '../guest-agent/store/store-engine.ts';
import { defaultStoreOptions } from '../guest-agent/store/store-options.ts';
import { StoreReader } from '../guest-agent/store/store-reader.ts';
import type { SaveRequest } from '../guest-agent/store/store-request.ts';

/*
 * Many guests in one process: guest-fleet.js DIRECTORY FIRST COUNT SAVES_PER_SECOND COLUMNS INTERVAL_MS. Each has the agent's
 * own store (a database of its own, synchronous OFF: the disk of one machine is not that of a thousand) and channel server, at
 * DIRECTORY/<guest>.sock, but no mount. Says "ready" over IPC; saves from "save" to "stop", then says how many saves it made;
 * a number is a new rate. Of several columns the second is the monotonic time of the save in µs, the others are random doubles.
 */

const clock = new SystemClock();
const kpiPath = 'growth';
const fileId = 2;

/** The store of one guest as its channel sees it; saves are applied on the same thread. */
class FleetGuest implements RowStore {
  readonly #engine: StoreEngine;
  readonly #reader: StoreReader;
  readonly #listeners = new Set<(publication: Publication) => void>();
  #saveCount = 0;

  constructor(directory: string) {
    mkdirSync(directory, { recursive: true });
    this.#engine = new StoreEngine(
      { clock, random: new SystemRandom(), log: silentLog, reachCrashPoint: () => {} },
      { ...defaultStoreOptions, directory, synchronous: 'OFF' },
    );
    this.#reader = new StoreReader(directory);
  }

  get saveCount(): number {
    return this.#saveCount;
  }

  /** Makes `count` saves in one batch, as the agent commits those that come at once. */
  save(count: number): void {
    this.#engine.apply(Array.from({ length: count }, () => this.#request()));
    this.#engine.tick();
    for (const event of this.#engine.takeEvents()) {
      if (event.kind !== 'published') continue;
      for (const listener of this.#listeners) listener(event);
    }
  }

  generations(): PerArea<string> {
    return {
      encrypted: this.#engine.generation('encrypted'),
      unencrypted: this.#engine.generation('unencrypted'),
    };
  }

  head(area: Area): number {
    return this.#engine.frontier(area);
  }

  fetch(
    area: Area,
    afterRowId: number,
    limits: FetchLimits,
    isWanted: (table: string) => boolean,
  ): FetchedRows {
    const throughRowId = this.head(area);
    const fetched = this.#reader.fetch({ area, afterRowId, throughRowId, isWanted, ...limits });
    return { ...fetched, lost: [] };
  }

  registerTables(registrations: readonly Registration[]): Promise<void> {
    const isWatching = registrations.some(({ area }) => area === 'unencrypted');
    this.#engine.watch('unencrypted', isWatching ? ['**'] : []);
    return Promise.resolve();
  }

  acknowledge(area: Area, throughRowId: number): void {
    this.#engine.acknowledge(area, this.#engine.generation(area), throughRowId);
  }

  watermarkUs(): number {
    const watermarkUs = clock.wallUs();
    this.#engine.promiseWatermark(watermarkUs);
    return watermarkUs;
  }

  onPublished(listener: (publication: Publication) => void): Cancel {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  /** Nothing is pruned: a run stays far below the size bound. */
  onLost(): Cancel {
    return () => {};
  }

  #request(): SaveRequest {
    this.#saveCount += 1;
    const location = { area: 'unencrypted', path: kpiPath } as const;
    const savedAtUs = clock.wallUs();
    return {
      kind: 'save',
      token: null,
      handle: this.#saveCount,
      file: fileId,
      location,
      filePath: kpiPath,
      attributes: {
        mode: 0o100644,
        uid: 0,
        gid: 0,
        accessedAtUs: savedAtUs,
        modifiedAtUs: savedAtUs,
      },
      content: contentOf(this.#saveCount),
      savedAtUs,
      holdsNewName: false,
      publishes: true,
      replaced: null,
    };
  }
}

async function startGuest(directory: string, guest: number): Promise<FleetGuest> {
  const store = new FleetGuest(join(directory, String(guest)));
  const server = new ChannelServer(
    { clock, bootClock: new SystemBootClock(), log: silentLog, store },
    { address: `unix:${join(directory, `${guest}.sock`)}`, agentInstance: `fleet-${guest}` },
  );
  await server.start();
  return store;
}

const [
  directory = '',
  firstText = '',
  countText = '',
  rateText = '',
  columnsText = '1',
  intervalText = '10',
] = process.argv.slice(2);

/** Measured columns that repeat: to make random ones for each save would cost more than the save. */
const measuredColumns = Array.from({ length: 997 }, () =>
  Array.from({ length: Math.max(0, Number(columnsText) - 2) }, () =>
    String(Math.random() * 1_000),
  ).join(','),
);
const header = ['sequence', 'at', ...Array.from({ length: 98 }, (_, index) => `c${index}`)]
  .slice(0, Number(columnsText))
  .join(',');

function contentOf(sequence: number): Buffer {
  if (Number(columnsText) === 1) return Buffer.from(`sequence\n${sequence}\n`);
  const atUs = Number(process.hrtime.bigint() / 1_000n);
  const measured = measuredColumns[sequence % measuredColumns.length] ?? '';
  return Buffer.from(`${header}\n${sequence},${atUs}${measured === '' ? '' : `,${measured}`}\n`);
}

const guests: FleetGuest[] = [];
for (let index = 0; index < Number(countText); index += 1) {
  guests.push(await startGuest(directory, Number(firstText) + index));
}

/** Spread over the second, as a thousand applications would be. */
let nextGuest = 0;
let cancelSaving: Cancel = () => {};
const intervalMs = Number(intervalText);

function startSaving(savesPerSecond: number): void {
  cancelSaving();
  const startMs = clock.monotonicMs();
  let madeCount = 0;
  const perSecond = guests.length * savesPerSecond;
  cancelSaving = clock.every(intervalMs, () => {
    const dueCount = Math.floor(((clock.monotonicMs() - startMs) / 1_000) * perSecond);
    const shares = new Map<FleetGuest | undefined, number>();
    for (; madeCount < dueCount; madeCount += 1) {
      const guest = guests[nextGuest];
      shares.set(guest, (shares.get(guest) ?? 0) + 1);
      nextGuest = (nextGuest + 1) % guests.length;
    }
    for (const [guest, share] of shares) guest?.save(share);
  });
}

process.on('message', (message) => {
  if (message === 'save') startSaving(Number(rateText));
  if (typeof message === 'number') startSaving(message);
  if (message === 'stop') {
    cancelSaving();
    process.send?.(guests.reduce((total, guest) => total + guest.saveCount, 0));
  }
});
process.once('disconnect', () => {
  process.kill(process.pid, 'SIGKILL');
});
process.send?.('ready');
