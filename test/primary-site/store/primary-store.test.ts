import { rmSync } from 'node:fs';
import { get, type IncomingMessage } from 'node:http';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { ControlServer } from '../../../common/control/control-server.ts';
import { positionHeader, queryAnswerSchema } from '../../../common/control/reader-answer.ts';
import { silentLog } from '../../../common/runtime/log.ts';
import { openDatabase } from '../../../common/sqlite/database.ts';
import { migrate } from '../../../common/sqlite/migrate.ts';
import { kpiDataPoint } from '../../../common/wire/data-point.ts';
import type { Delivery, Window } from '../../../common/wire/delivery.ts';
import { encodeFrame } from '../../../common/wire/frame-codec.ts';
import type { EncodedFrame, FrameRecord } from '../../../common/wire/frame.ts';
import type { Value } from '../../../common/wire/value.ts';
import { createReaderApi, watchersMax } from '../../../primary-site/api/reader-api.ts';
import { jsonTopic } from '../../../primary-site/json-topics.ts';
import {
  primarySiteConfigExample,
  primarySiteConfigSchema,
} from '../../../primary-site/primary-site-config.ts';
import { primaryStoreMigrations } from '../../../primary-site/store/primary-store-schema.ts';
import { PrimaryStore } from '../../../primary-site/store/primary-store.ts';
import { StoreRetention } from '../../../primary-site/store/store-retention.ts';
import { watchReadings } from '../../../primary-site/watch-readings.ts';
import { eventually } from '../../support/eventually.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import {
  chainedFrames,
  dataStream,
  rowRecord,
  sampleEpoch,
  sampleStartUs,
} from '../../support/sample-frames.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const stream = dataStream('vm1');
let clock: ManualClock;
let path: string;
let store: PrimaryStore;
let removeDirectory: () => void;

beforeEach(async () => {
  const directory = temporaryDirectory();
  removeDirectory = () => {
    directory[Symbol.dispose]();
  };
  path = join(directory.path, 'store.db');
  clock = new ManualClock(sampleStartUs);
  await open();
});

afterEach(async () => {
  await store.stop();
  removeDirectory();
});

async function open(seriesMax = 1_000): Promise<void> {
  store = new PrimaryStore({ clock, log: silentLog }, { path, seriesMax });
  await store.start();
}

function status(): ReturnType<Parameters<typeof createReaderApi>[0]['status']> {
  return {
    isLive: true,
    vms: store.vmStatuses(),
    stages: { store: store.counters.snapshot() },
  };
}

function frameOf(seq: number, records: readonly FrameRecord[]): EncodedFrame {
  const header = {
    stream,
    epoch: sampleEpoch,
    seq,
    previousHash: new Uint8Array(32),
    producedAtUs: sampleStartUs,
  };
  return { header, bytes: encodeFrame({ header, records }) };
}

function rawWindow(window: Window, revision: number, values: readonly Value[]): FrameRecord {
  const measurements = values.map((value, index) => ({
    dataPoint: kpiDataPoint('users', 'column1'),
    timeUs: window.startMs * 1_000 + index,
    uncertaintyUs: 0,
    value,
    held: false,
  }));
  const delivery: Delivery = {
    kind: 'raw',
    specifierId: 'w',
    descriptorRevision: 1,
    window,
    revision,
    predicateState: null,
    measurements,
  };
  return { kind: 'delivery', delivery };
}

function processed(window: Window, revision: number, value: number): FrameRecord {
  const delivery: Delivery = {
    kind: 'processed',
    specifierId: 'p',
    descriptorRevision: 1,
    dataPoint: kpiDataPoint('users', 'column1'),
    window,
    revision,
    predicateState: null,
    format: 'mean',
    value,
    timeUs: window.endMs * 1_000 - 1,
    count: 3,
    skippedCount: 0,
  };
  return { kind: 'delivery', delivery };
}

function storedValues(): Value[] {
  return store.reader.query({ pattern: '**' }, 1_000).readings.map(({ value }) => value);
}

describe('PrimaryStore', () => {
  test('stores each (stream, epoch, seq) once, in any order, over restarts', async () => {
    const frames = chainedFrames(stream, 6);
    await store.store([frames[4]!, frames[0]!]);
    await store.store([frames[0]!, frames[1]!, frames[1]!]);
    expect(store.stored(stream)).toEqual([
      { epoch: sampleEpoch, fromSeq: 1, throughSeq: 2 },
      { epoch: sampleEpoch, fromSeq: 5, throughSeq: 5 },
    ]);
    await store.stop();
    await open();
    await store.store(frames);
    expect(store.stored(stream)).toEqual([{ epoch: sampleEpoch, fromSeq: 1, throughSeq: 6 }]);
    expect(storedValues()).toEqual([1, 2, 3, 4, 5, 6]);
  });

  test('keeps every kind of value exactly', async () => {
    const all: Value[] = [
      1,
      -2.5,
      9_007_199_254_740_993n,
      'text',
      null,
      Uint8Array.of(0, 255),
      2 ** 53 - 1,
    ];
    await store.store([frameOf(1, [rowRecord('f', sampleStartUs, all)])]);
    const stored = new Map(
      store.reader
        .query({ pattern: 'kpi/f/*' }, 10)
        .readings.map((reading) => [reading.dataPoint, reading.value]),
    );
    const read = all.map((_, index) => stored.get(`kpi/f/column${index + 1}`));
    expect(
      read.map((value) => (value instanceof Uint8Array ? Uint8Array.from(value) : value)),
    ).toEqual(all);
  });

  test('a higher revision of a window replaces the lower one, in whatever order they come; parts of one add up', async () => {
    const window = { startMs: 1_000, endMs: 2_000 };
    await store.store([
      frameOf(1, [rawWindow(window, 0, [1, 2])]),
      frameOf(2, [rawWindow(window, 0, [3])]),
    ]);
    expect(storedValues().toSorted((left, right) => Number(left) - Number(right))).toEqual([
      1, 2, 3,
    ]);
    await store.store([frameOf(4, [rawWindow(window, 2, [7, 8]), processed(window, 1, 5)])]);
    await store.store([frameOf(3, [rawWindow(window, 1, [4]), processed(window, 0, 6)])]);
    expect(storedValues().toSorted((left, right) => Number(left) - Number(right))).toEqual([
      5, 7, 8,
    ]);
    const [mean] = store.reader
      .query({ pattern: '**' }, 10)
      .readings.filter(({ format }) => format === 'mean');
    expect(mean).toMatchObject({ window, revision: 1, count: 3, specifierId: 'p' });
  });

  test('windows of a store of the schema before are revised as if they had been stored now', async () => {
    await store.stop();
    rmSync(path);
    const before = openDatabase(path);
    migrate(before, primaryStoreMigrations.slice(0, 2));
    before.exec(
      `INSERT INTO series VALUES (1, 'vm1', 'kpi/users/column1', 'w', 'raw');
       INSERT INTO windows VALUES (7, 'vm1', 'w', 'raw', 1000, 2000, 0);
       INSERT INTO readings (position, series_id, time_us, uncertainty_us, held, window_id, value)
         VALUES (1, 1, 1500000, 0, 0, 7, 5)`,
    );
    before.close();
    await open();
    await store.store([frameOf(1, [rawWindow({ startMs: 1_000, endMs: 2_000 }, 1, [6])])]);
    expect(storedValues()).toEqual([6]);
  });

  test('what a processed value does not say is null, never 0: its uncertainty is unknown', async () => {
    const window = { startMs: 1_000, endMs: 2_000 };
    await store.store([frameOf(1, [processed(window, 0, 5), rawWindow(window, 0, [5])])]);
    const { readings } = store.reader.query({ pattern: '**' }, 10);
    expect(readings.map(({ format, uncertaintyUs }) => [format, uncertaintyUs])).toEqual([
      ['raw', 0],
      ['mean', null],
    ]);
    const app = createReaderApi({ store, log: silentLog, status });
    const answer = queryAnswerSchema.parse(await (await app.request('/v1/query')).json());
    expect(answer.readings.map(({ uncertaintyUs }) => uncertaintyUs)).toEqual([0, null]);
  });

  test('a declared loss is durable and withdrawn for the frames that reappear', async () => {
    await store.declareLost(stream, {
      epoch: sampleEpoch,
      fromSeq: 1,
      throughSeq: 9,
      reason: 'log-full',
      declaredAtUs: 1,
      declaredBy: 'a',
      proof: null,
    });
    const lost = (): unknown[] =>
      store.database.prepare('SELECT from_seq, through_seq FROM lost_ranges').raw().all();
    await store.stop();
    await open();
    expect(lost()).toEqual([[1, 9]]);
    await store.store(chainedFrames(stream, 4).slice(2));
    expect(lost()).toEqual([
      [1, 2],
      [5, 9],
    ]);
  });

  test('a transaction that fails leaves nothing behind and can be repeated', async () => {
    const frames = chainedFrames(stream, 3);
    store.database.exec(
      "CREATE TEMP TRIGGER no BEFORE INSERT ON main.frames WHEN new.seq = 3 BEGIN SELECT raise(ABORT, 'full'); END",
    );
    await expect(store.store(frames)).rejects.toThrow('full');
    expect([storedValues(), store.stored(stream)]).toEqual([[], []]);
    store.database.exec('DROP TRIGGER no');
    await store.store(frames);
    expect(storedValues()).toEqual([1, 2, 3]);
    expect(store.counters).toMatchObject({ accepted: 3, forwarded: 3 });
  });

  test('takes readings of at most seriesMax data points and counts the rest', async () => {
    await store.stop();
    await open(2);
    await store.store([frameOf(1, [rowRecord('f', sampleStartUs, [1, 2, 3])])]);
    expect(storedValues()).toHaveLength(2);
    expect(store.counters).toMatchObject({ accepted: 3, forwarded: 2, dropped: 1 });
  });

  test('queries by pattern, VM, time and limit: the newest, ascending', async () => {
    await store.store(chainedFrames(stream, 10));
    await store.store(chainedFrames(dataStream('vm2'), 2));
    const { reader } = store;
    const found = reader.query({ pattern: 'kpi/users/*', vm: 'vm1' }, 3);
    expect(found.readings.map(({ value }) => value)).toEqual([8, 9, 10]);
    expect(found.isTruncated).toBe(true);
    const range = {
      pattern: '**',
      vm: 'vm1',
      sinceUs: sampleStartUs + 3_000,
      untilUs: sampleStartUs + 5_000,
    };
    expect(reader.query(range, 100).readings.map(({ value }) => value)).toEqual([3, 4]);
    expect(reader.query({ pattern: 'infra/**' }, 100)).toEqual({
      readings: [],
      isTruncated: false,
    });
    expect(reader.dataPoints({ pattern: '**' })).toEqual([
      { vm: 'vm1', dataPoint: 'kpi/users/column1', newestTimeUs: sampleStartUs + 10_000 },
      { vm: 'vm2', dataPoint: 'kpi/users/column1', newestTimeUs: sampleStartUs + 2_000 },
    ]);
  });

  test('watches from history, then live, without gap or duplicate at the seam', async () => {
    const frames = chainedFrames(stream, 3_000);
    await store.store(frames.slice(0, 1_500));
    const abort = new AbortController();
    const seen: Value[] = [];
    let stored = 1_500;
    const filter = { pattern: 'kpi/**', sinceUs: sampleStartUs + 11_000 };
    for await (const readings of watchReadings(store, filter, {}, abort.signal)) {
      seen.push(...readings.map(({ value }) => value));
      await store.store(frames.slice(stored, stored + 100));
      stored += 100;
      if (seen.length === 2_990) abort.abort();
    }
    expect(seen).toEqual(Array.from({ length: 2_990 }, (_, index) => index + 11));
  });
});

describe('StoreRetention', () => {
  test('removes what is older than the age bound, and never asks for it again', async () => {
    const frames = chainedFrames(stream, 10);
    await clock.advance(10);
    await store.store(frames);
    await clock.advance(59_996);
    const retention = new StoreRetention({ store, clock }, { ageMaxMs: 60_000, bytesMax: 1e9 });
    expect([retention.prune(), retention.prune()]).toEqual([true, false]);
    expect(storedValues()).toEqual([6, 7, 8, 9, 10]);
    await store.store(frames);
    expect(storedValues()).toEqual([6, 7, 8, 9, 10]);
    await store.stop();
    await open();
    expect(store.stored(stream)).toEqual([{ epoch: sampleEpoch, fromSeq: 1, throughSeq: 10 }]);
  });

  test('a reading of a far-future time, as of a wrong clock, goes by the age of its arrival, and holds nothing else back', async () => {
    const farUs = sampleStartUs * 2;
    const window = { startMs: sampleStartUs / 1_000 + 4e4, endMs: sampleStartUs / 1_000 + 5e4 };
    await store.store([
      frameOf(1, [rowRecord('users', farUs, ['far'])]),
      frameOf(2, [rowRecord('users', sampleStartUs, ['old'])]),
    ]);
    await clock.advance(50_000);
    const nowUs = clock.wallUs();
    await store.store([
      frameOf(3, [rowRecord('users', farUs, ['far again'])]),
      frameOf(4, [rowRecord('users', nowUs, ['new']), rawWindow(window, 1, [])]),
    ]);
    await clock.advance(20_000);
    const retention = new StoreRetention({ store, clock }, { ageMaxMs: 60_000, bytesMax: 1e9 });
    expect([retention.prune(), retention.prune()]).toEqual([true, false]);
    expect(new Set(storedValues())).toEqual(new Set(['far again', 'new']));
    // Windows are not forgotten for it: an older revision that comes late changes nothing.
    await store.store([frameOf(5, [rawWindow(window, 0, ['superseded'])])]);
    expect(storedValues()).not.toContain('superseded');
  });

  test('never gives a position twice, even when everything was removed', async () => {
    const frames = chainedFrames(stream, 6);
    await store.store(frames.slice(0, 5));
    await clock.advance(120_000);
    const options = { ageMaxMs: 60_000, bytesMax: 1e9 };
    expect(new StoreRetention({ store, clock }, options).prune()).toBe(true);
    expect(storedValues()).toEqual([]);
    await store.stop();
    await open();
    await store.store(frames);
    expect(store.reader.query({ pattern: '**' }, 10).readings).toMatchObject([
      { position: 6, value: 6 },
    ]);
  });

  test('removes the oldest when the size bound is reached', async () => {
    await store.store(chainedFrames(stream, 8_000));
    const full = new StoreRetention({ store, clock }, { ageMaxMs: 1e9, bytesMax: 1e9 }).usedBytes();
    const retention = new StoreRetention({ store, clock }, { ageMaxMs: 1e9, bytesMax: full * 0.8 });
    expect(retention.prune()).toBe(true);
    expect(retention.usedBytes()).toBeLessThan(full * 0.8);
    expect(storedValues().at(-1)).toBe(8_000);
    expect(store.reader.query({ pattern: '**' }, 10_000).readings).toHaveLength(3_000);
  });
});

describe('reader API', () => {
  test('answers queries, data points and status, and says what is wrong with a question', async () => {
    await store.store([
      frameOf(1, [rowRecord('f', sampleStartUs, [7, 2n ** 60n, Uint8Array.of(1)])]),
    ]);
    const app = createReaderApi({ store, log: silentLog, status });
    const answer = await (await app.request('/v1/query?pattern=kpi/f/*&limit=5')).json();
    expect(answer).toMatchObject({
      isTruncated: false,
      readings: [
        {
          vm: 'vm1',
          dataPoint: 'kpi/f/column1',
          timeUs: sampleStartUs,
          value: 7,
          specifierId: 'all',
          format: 'raw',
          window: null,
          held: false,
          count: null,
        },
        { value: { integer: String(2n ** 60n) } },
        { value: { base64: 'AQ==' } },
      ],
    });
    expect(await (await app.request('/v1/status')).json()).toMatchObject({
      isLive: true,
      stages: { store: { accepted: 3 } },
    });
    expect(await (await app.request('/v1/data-points')).json()).toHaveProperty(
      'dataPoints.length',
      3,
    );
    const refused = await app.request('/v1/query?limit=0&colour=red');
    expect([refused.status, await refused.json()]).toEqual([
      400,
      { error: { code: 'invalid-query', message: expect.stringContaining('colour') } },
    ]);
  });

  test('GET /v1/watch is NDJSON: history behind a position, then live', async () => {
    const frames = chainedFrames(stream, 4);
    await store.store(frames.slice(0, 2));
    const app = createReaderApi({ store, log: silentLog, status });
    const answer = await app.request('/v1/watch?after=1');
    const lines = readLines(answer);
    expect(JSON.parse((await lines.next()).value ?? '')).toMatchObject({ position: 2, value: 2 });
    await store.store(frames.slice(2));
    expect(JSON.parse((await lines.next()).value ?? '')).toMatchObject({ position: 3, value: 3 });
    expect(JSON.parse((await lines.next()).value ?? '')).toMatchObject({ position: 4, value: 4 });
    await lines.return(undefined);
  });
});

test('the header isobar-position says behind which position a watch begins', async () => {
  const socketPath = join(path, '..', 'api.sock');
  const app = createReaderApi({ store, log: silentLog, status });
  const server = new ControlServer(app, { clock, log: silentLog }, { name: 'reader', socketPath });
  await server.start();
  const position = async (query: string): Promise<unknown> => {
    const answer = await new Promise<IncomingMessage>((resolve, reject) => {
      get({ socketPath, path: `/v1/watch${query}` }, resolve).on('error', reject);
    });
    answer.destroy();
    return answer.headers[positionHeader];
  };
  expect(await position('')).toBe('0');
  await store.store(chainedFrames(stream, 4));
  // From now on; from a time; from a position; from one that the store has never given.
  expect(await position('')).toBe('4');
  expect(await position(`?sinceUs=${sampleStartUs + 3_000}`)).toBe('2');
  expect(await position('?after=1')).toBe('1');
  expect(await position('?after=99')).toBe('4');
  await server.stop();
});

test('a watcher that goes away makes room for another', async () => {
  const socketPath = join(path, '..', 'api.sock');
  const app = createReaderApi({ store, log: silentLog, status });
  const server = new ControlServer(app, { clock, log: silentLog }, { name: 'reader', socketPath });
  await server.start();
  const watch = (): Promise<IncomingMessage> =>
    new Promise((resolve, reject) => {
      get({ socketPath, path: '/v1/watch' }, resolve).on('error', reject);
    });
  const watchers = await Promise.all(Array.from({ length: watchersMax }, watch));
  expect(new Set(watchers.map(({ statusCode }) => statusCode))).toEqual(new Set([200]));
  const refused = await watch();
  expect(refused.statusCode).toBe(503);
  for (const watcher of [...watchers, refused]) watcher.destroy();
  const next = await eventually(
    async () => {
      const answer = await watch();
      answer.destroy();
      return answer.statusCode === 200;
    },
    { timeoutMs: 10_000 },
  );
  expect(next).toBe(true);
  await server.stop();
});

async function* readLines(response: Response): AsyncGenerator<string, void> {
  let text = '';
  const decoder = new TextDecoder();
  for await (const part of response.body!) {
    text += decoder.decode(part as Uint8Array, { stream: true });
    const lines = text.split('\n');
    text = lines.pop() ?? '';
    for (const line of lines.filter((candidate) => candidate !== '')) yield line;
  }
}

describe('jsonTopic', () => {
  test('makes topic levels of letters, digits, _ and - only, and different data points different', () => {
    expect(jsonTopic('vm1', 'infra/cpu/usage_ratio')).toBe('json/vm1/infra/cpu/usage_ratio');
    expect(jsonTopic('vm-1', kpiDataPoint('app/users.csv', 'Größe'))).toBe(
      'json/vm-2D1/kpi/app-2Fusers-2Ecsv/Gr-C3-B6-C3-9Fe',
    );
    const topics = ['a-b', 'a.b', 'a b', 'a#b', 'a+b', 'a$b', 'a-2Eb'].map((file) =>
      jsonTopic('v', kpiDataPoint(file, 'c')),
    );
    expect(new Set(topics).size).toBe(topics.length);
    expect(topics.every((topic) => /^[A-Za-z0-9_/-]+$/.test(topic))).toBe(true);
  });
});

describe('primary site configuration', () => {
  test('the example is valid and every key has a description', () => {
    expect(primarySiteConfigSchema.safeParse(primarySiteConfigExample).success).toBe(true);
    const keys = Object.entries(primarySiteConfigSchema.shape).filter(
      ([key]) => key !== 'retention',
    );
    expect(keys.filter(([, schema]) => schema.description === undefined)).toEqual([]);
  });
});
