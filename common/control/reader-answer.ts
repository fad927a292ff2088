import { z } from 'zod';

import { formats } from '../wire/monitoring-specifier.ts';
import { jsonValueSchema } from './json-value.ts';
import { stageStatusSchema } from './stage-answer.ts';

/** Header of /v1/watch: the position behind which this stream begins; `after=` it misses nothing. */
export const positionHeader = 'isobar-position';

/** One measurement, or one window's processed value, as the reader's API gives it: a line of /v1/watch. */
export const readingSchema = z.object({
  /** Where the reader's store has it; `after=` goes on behind it. Rises in order of arrival. */
  position: z.int().nonnegative(),
  vm: z.string(),
  dataPoint: z.string(),
  /** Event time, µs of the epoch, corrected by the guest's clock offset. */
  timeUs: z.int(),
  /** Half the width of the interval that the true time lies in; null: unknown, as of processed values. */
  uncertaintyUs: z.int().nonnegative().nullable().default(null),
  value: jsonValueSchema,
  held: z.boolean().default(false),
  specifierId: z.string(),
  format: z.enum(formats),
  window: z.object({ startMs: z.int(), endMs: z.int() }).nullable().default(null),
  /** Above 0: late rows changed this window. */
  revision: z.int().nonnegative().default(0),
  /** Measurements that took part; null for raw ones. */
  count: z.int().nonnegative().nullable().default(null),
  /** Measurements that are no numbers; null for raw ones. */
  skippedCount: z.int().nonnegative().nullable().default(null),
  /** How many of `count` repeat an older value; null for raw ones. */
  heldCount: z.int().nonnegative().nullable().default(null),
  /** Bound of the relative error of a median over very many values; 0: exact. */
  relativeErrorMax: z.number().nonnegative().default(0),
  predicateState: z.string().nullable().default(null),
});
export type Reading = z.output<typeof readingSchema>;

/** GET /v1/query */
export const queryAnswerSchema = z.object({
  readings: z.array(readingSchema),
  /** True when there are more than the limit. */
  isTruncated: z.boolean(),
});

/** GET /v1/data-points */
export const dataPointsAnswerSchema = z.object({
  dataPoints: z.array(
    z.object({ vm: z.string(), dataPoint: z.string(), newestTimeUs: z.int().nullable() }),
  ),
});

const countSchema = z.int().nonnegative();

/** One VM as its streams show it. */
export const readerVmStatusSchema = z.object({
  vm: z.string(),
  /** `ended` after the VM was removed; `unknown` also when the status stream is not heard any more. */
  state: z.string(),
  reportedAtUs: z.int().nullable(),
  watermarkUs: z.int().nullable(),
  /** Of the data stream, newest first. */
  epochs: z.array(
    z.object({
      number: z.int(),
      reason: z.string().nullable(),
      /** `unknown`: never closed, and no longer written. */
      end: z.enum(['open', 'closed', 'unknown']),
      headSeq: countSchema,
      gaps: z.array(z.object({ fromSeq: z.int(), throughSeq: z.int() })),
      missingFrames: countSchema,
      lostFrames: countSchema,
      /** The oldest of them: who declared them lost, why, and whether under a signature that was verified and is kept. */
      lost: z
        .array(
          z.object({
            fromSeq: z.int(),
            throughSeq: z.int(),
            reason: z.string(),
            /** A relation; null: the reader itself found them out of order for good. */
            declaredBy: z.string().nullable(),
            isSigned: z.boolean(),
          }),
        )
        .default([]),
    }),
  ),
  /** Rows of the guest's store, or frames of a log, that are lost for ever. */
  losses: z.array(z.object({ place: z.string(), count: countSchema })),
});
export type ReaderVmStatus = z.output<typeof readerVmStatusSchema>;

export const integrityRecordSchema = z.object({
  /** Empty: of all VMs that are not told apart any more. */
  vm: z.string(),
  stream: z.string(),
  /** 0: of all epochs that are not told apart any more. */
  epoch: z.int(),
  /** forged, unsigned, key-not-stated, altered, contradicting, key-contradicting, loss-unsigned, loss-forged. */
  finding: z.string(),
  count: countSchema,
  firstSeq: countSchema,
  lastSeq: countSchema,
  firstAtUs: z.int(),
  lastAtUs: z.int(),
});
export type IntegrityRecord = z.output<typeof integrityRecordSchema>;

/** GET /v1/losses: what neighbours declared lost, each as they signed it. */
export const lossesAnswerSchema = z.object({
  losses: z.array(
    z.object({
      /** The neighbour. */
      relation: z.string(),
      stream: z.object({ vm: z.string(), kind: z.string() }),
      epoch: z.object({ number: z.int(), nonce: z.string() }),
      fromSeq: z.int(),
      throughSeq: z.int(),
      reason: z.string(),
      /** By the clock of who gave the frames up first; when it came here by ours. µs of the epoch. */
      declaredAtUs: z.int(),
      receivedAtUs: z.int(),
      /** Of the neighbour's signing key, DER in base64, and what that key signed with, base64url. */
      certificate: z.string(),
      signature: z.string(),
      /** Frames of it that came after all. */
      returnedCount: countSchema,
    }),
  ),
});

/** GET /v1/status */
export const readerStatusSchema = stageStatusSchema.extend({
  /** False while the producer does not answer: what is stored can be read, nothing new comes. */
  isLive: z.boolean().default(true),
  /** Why the producer can't be reached, where we dial it. */
  failure: z.string().nullable().default(null),
  /** Streams of /v1/watch that are open. */
  watcherCount: countSchema.default(0),
  vms: z.array(readerVmStatusSchema).default([]),
  /** Frames that were refused or found wrong, by VM, stream, epoch and kind of finding; newest first. */
  integrity: z.array(integrityRecordSchema).default([]),
  /** Frames that are stored and wait for the key that opens them. */
  waitingFrames: countSchema.default(0),
  /** Damaged databases that were replaced; they stay in the data directory until someone removes them. */
  setAside: z.array(z.string()).default([]),
});
