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
 * Many guests in one process, for bench/growth.ts: guest-fleet.js DIRECTORY FIRST COUNT SAVES_PER_SECOND. Each has the agent's
 * own store (a database of its own, synchronous OFF: the disk of one machine is not that of a thousand) and channel server, at
 * DIRECTORY/<guest>.sock, but no mount. Says "ready" over IPC; saves from "save" to "stop", then says how many saves it made.
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

  save(): void {
    this.#saveCount += 1;
    const location = { area: 'unencrypted', path: kpiPath } as const;
    const savedAtUs = clock.wallUs();
    const request: SaveRequest = {
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
      content: Buffer.from(`sequence\n${this.#saveCount}\n`),
      savedAtUs,
      holdsNewName: false,
      publishes: true,
      replaced: null,
    };
    this.#engine.apply([request]);
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

const [directory = '', firstText = '', countText = '', rateText = ''] = process.argv.slice(2);
const guests: FleetGuest[] = [];
for (let index = 0; index < Number(countText); index += 1) {
  guests.push(await startGuest(directory, Number(firstText) + index));
}

/** Spread over the second, as a thousand applications would be. */
let nextGuest = 0;
let cancelSaving: Cancel = () => {};
const intervalMs = 10;

function startSaving(): void {
  const startMs = clock.monotonicMs();
  let madeCount = 0;
  const perSecond = guests.length * Number(rateText);
  cancelSaving = clock.every(intervalMs, () => {
    const dueCount = Math.floor(((clock.monotonicMs() - startMs) / 1_000) * perSecond);
    for (; madeCount < dueCount; madeCount += 1) {
      guests[nextGuest]?.save();
      nextGuest = (nextGuest + 1) % guests.length;
    }
  });
}

process.on('message', (message) => {
  if (message === 'save') startSaving();
  if (message === 'stop') {
    cancelSaving();
    process.send?.(guests.reduce((total, guest) => total + guest.saveCount, 0));
  }
});
process.once('disconnect', () => {
  process.kill(process.pid, 'SIGKILL');
});
process.send?.('ready');
