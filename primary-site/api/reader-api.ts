import { Hono, type Context } from 'hono';
import { stream } from 'hono/streaming';
import { z } from 'zod';

import { positionHeader } from '../../common/control/reader-answer.ts';
import type { Log } from '../../common/runtime/log.ts';
import type { StageCounts } from '../../common/runtime/stage-counters.ts';
import type { IntegrityRecord } from '../sealing/integrity-records.ts';
import type { PrimaryStore } from '../store/primary-store.ts';
import type { ReadingFilter } from '../store/reading-reader.ts';
import type { VmStatus } from '../store/stream-status.ts';
import { startPosition, watchReadings } from '../watch-readings.ts';
import { readingJson } from './reading-json.ts';

export interface ReaderApiDeps {
  readonly store: PrimaryStore;
  readonly log: Log;
  /** Counters of each stage, each VM's streams, and whether the producer answers. */
  readonly status: () => {
    readonly isLive: boolean;
    readonly vms: readonly VmStatus[];
    /** What was refused or found wrong. */
    readonly integrity?: readonly IntegrityRecord[];
    /** Frames that are here and wait for a key. */
    readonly waitingFrames?: number;
    readonly setAside?: readonly string[];
    readonly stages: Readonly<Record<string, StageCounts>>;
  };
}

/** Readings in one answer of /v1/query. */
const queryLimitMax = 1_000_000;
/** Declarations in one answer of /v1/losses. */
const lossesShownMax = 10_000;
/** Streams of /v1/watch at a time; further ones get 503. */
export const watchersMax = 64;

const timeUs = z.coerce.number().int().nonnegative().max(Number.MAX_SAFE_INTEGER);
const filterShape = {
  /** Over data points: `*` within a segment, `**` for any segments. */
  pattern: z.string().min(1).max(512).default('**'),
  vm: z.string().min(1).max(64).optional(),
  /** Event time, µs of the epoch, inclusive. */
  sinceUs: timeUs.optional(),
};
const querySchema = z.strictObject({
  ...filterShape,
  /** Exclusive. */
  untilUs: timeUs.optional(),
  limit: z.coerce.number().int().min(1).max(queryLimitMax).default(100),
});
const watchSchema = z.strictObject({
  ...filterShape,
  /** Position of the newest reading that the caller has. */
  after: timeUs.optional(),
});
const dataPointsSchema = z.strictObject({ pattern: filterShape.pattern, vm: filterShape.vm });

/**
 * The first reader's HTTP API. Answers are JSON; an error is `{error: {code, message}}` with 400 `invalid-query` or 503
 * `too-many-watchers`.
 *
 *   GET /v1/query        the newest readings that match, by time: {readings, isTruncated}
 *   GET /v1/watch        one reading a line (NDJSON), history first if asked for, then live; never ends by itself;
 *                        the header isobar-position says behind which position it begins
 *   GET /v1/data-points  what there is: {dataPoints: [{vm, dataPoint, newestTimeUs}]}
 *   GET /v1/losses       what neighbours declared lost, with their signatures, the newest first
 *   GET /v1/status       {isLive, watcherCount, vms: [state, epochs with heads, gaps and ends, losses],
 *                         stages: {name: {accepted, forwarded, dropped, failed, lagMs}}}
 */
export function createReaderApi(deps: ReaderApiDeps): Hono {
  const app = new Hono();
  let watchers = 0;
  app.get('/v1/query', (context) => {
    const parsed = querySchema.safeParse(context.req.query());
    if (!parsed.success) return invalid(context, parsed.error);
    const answer = deps.store.reader.query(filterOf(parsed.data), parsed.data.limit);
    return context.json({
      readings: answer.readings.map((reading) => readingJson(reading)),
      isTruncated: answer.isTruncated,
    });
  });
  app.get('/v1/data-points', (context) => {
    const parsed = dataPointsSchema.safeParse(context.req.query());
    if (!parsed.success) return invalid(context, parsed.error);
    return context.json({ dataPoints: deps.store.reader.dataPoints(filterOf(parsed.data)) });
  });
  app.get('/v1/status', (context) => context.json({ ...deps.status(), watcherCount: watchers }));
  app.get('/v1/losses', (context) =>
    context.json({ losses: deps.store.lossEvidence(lossesShownMax) }),
  );
  app.get('/v1/watch', (context) => {
    const parsed = watchSchema.safeParse(context.req.query());
    if (!parsed.success) return invalid(context, parsed.error);
    if (watchers >= watchersMax) {
      const message = `${watchersMax} watchers are connected: end one, or try again later`;
      return context.json({ error: { code: 'too-many-watchers', message } }, 503);
    }
    const { after } = parsed.data;
    const filter = filterOf(parsed.data);
    const position = startPosition(deps.store, filter, after === undefined ? {} : { after });
    context.header(positionHeader, String(position));
    context.header('Content-Type', 'application/x-ndjson');
    watchers += 1;
    return stream(context, async (output) => {
      const abort = new AbortController();
      output.onAbort(() => {
        abort.abort();
      });
      try {
        // The first byte tells the client that it is connected.
        await output.write('\n');
        const watch = watchReadings(deps.store, filter, { after: position }, abort.signal);
        for await (const readings of watch) {
          const lines = readings.map((reading) => `${JSON.stringify(readingJson(reading))}\n`);
          await output.write(lines.join(''));
        }
      } finally {
        watchers -= 1;
      }
    });
  });
  return app;
}

function filterOf(query: {
  readonly pattern: string;
  readonly vm?: string | undefined;
  readonly sinceUs?: number | undefined;
  readonly untilUs?: number | undefined;
}): ReadingFilter {
  const { pattern, vm, sinceUs, untilUs } = query;
  return {
    pattern,
    ...(vm === undefined ? {} : { vm }),
    ...(sinceUs === undefined ? {} : { sinceUs }),
    ...(untilUs === undefined ? {} : { untilUs }),
  };
}

function invalid(context: Context, error: z.ZodError): Response {
  return context.json({ error: { code: 'invalid-query', message: z.prettifyError(error) } }, 400);
}
