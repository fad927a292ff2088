import { z } from 'zod';

import { type Area, areas } from './area.ts';
import type { GuestRow } from './guest-row.ts';
import { patternCharsMax, registrationsMax } from './protocol.ts';

const areaSchema = z.enum(areas);
const nameSchema = z.string().max(256);
const rowIdSchema = z.int().nonnegative();
const timeUsSchema = z.int();
const requestIdSchema = z.int().nonnegative();

function perArea<Schema extends z.ZodType>(schema: Schema) {
  return z.object({ encrypted: schema, unencrypted: schema });
}

/** Where a reader stands in one database: everything up to `rowId`, inclusive, is behind it. */
export const cursorSchema = z.object({
  /** The database's generation id; a row id means nothing in another generation. */
  generation: nameSchema,
  rowId: rowIdSchema,
});
export type Cursor = Readonly<z.output<typeof cursorSchema>>;

/** Rows that the guest store had to prune before the host acknowledged them: (fromRowId, throughRowId]. */
export const lostRangeSchema = z.object({
  /** The last row id before the range. */
  fromRowId: rowIdSchema,
  throughRowId: rowIdSchema,
  /** Rows, not ids: ids have gaps. */
  count: z.int().positive(),
  reason: z.string().max(1_024),
});
export type LostRange = Readonly<z.output<typeof lostRangeSchema>>;

/** Tables that the host wants to hear of. */
export const registrationSchema = z.object({
  area: areaSchema,
  /** A table's name, or a pattern as in data points: `*` within a path segment, `**` for any number of them. */
  tables: z.string().min(1).max(patternCharsMax),
});
export type Registration = Readonly<z.output<typeof registrationSchema>>;

/** What the guest noticed about its clocks. */
export const clockStepSchema = z.object({
  kind: z.literal('clock-step'),
  /** `stepped`: the wall clock was set. `resumed`: the machine slept, and its wall clock is right again. */
  cause: z.enum(['stepped', 'resumed']),
  bootId: nameSchema,
  /** Time since boot, sleep included, at which it was noticed. */
  bootTimeUs: z.int().nonnegative(),
  /** What the wall clock would have shown at that moment, and what it shows. */
  wallBeforeUs: timeUsSchema,
  wallAfterUs: timeUsSchema,
  /** It happened at most this long before it was noticed. */
  noticedWithinUs: z.int().nonnegative(),
});
export type ClockStep = Readonly<z.output<typeof clockStepSchema>>;

const pingSchema = z.object({ kind: z.literal('ping') });

export const errorCodes = ['version-unsupported', 'generation-changed', 'store-failed'] as const;

const schemas = [
  pingSchema,
  z.object({
    kind: z.literal('hello'),
    versions: z.object({ oldest: z.int().positive(), newest: z.int().positive() }),
    hostInstance: nameSchema,
  }),
  z.object({
    kind: z.literal('register'),
    /** False: the host polls, and wants no notifications. */
    notify: z.boolean(),
    registrations: z.array(registrationSchema).max(registrationsMax),
  }),
  z.object({
    kind: z.literal('fetch'),
    requestId: requestIdSchema,
    area: areaSchema,
    cursor: cursorSchema,
    rowsMax: z.int().positive(),
    bytesMax: z.int().positive(),
  }),
  z.object({ kind: z.literal('acknowledge'), area: areaSchema, cursor: cursorSchema }),
  z.object({
    kind: z.literal('clock-request'),
    requestId: requestIdSchema,
    hostSentUs: timeUsSchema,
  }),
  z.object({
    kind: z.literal('invite'),
    agentInstance: nameSchema,
    /** The session that the guest does not know or gave up; null when it has just opened the pipe. */
    endedSession: z.int().nonnegative().nullable(),
  }),
  z.object({
    kind: z.literal('welcome'),
    version: z.int().positive(),
    agentInstance: nameSchema,
    bootId: nameSchema,
    generations: perArea(nameSchema),
    /** The highest published row id of each database. */
    heads: perArea(rowIdSchema),
  }),
  z.object({
    kind: z.literal('published'),
    area: areaSchema,
    /** Tables of the notifying commit, as far as registered; a hint, cut at 64. */
    tables: z.array(z.string().max(4_096)).max(64),
    throughRowId: rowIdSchema,
  }),
  z.object({
    kind: z.literal('watermark'),
    /** Of the guest's wall clock. */
    timeUs: timeUsSchema,
    /**
     * The watermark holds for a reader that stands at `matchedRowId` or beyond, the last row that its registration
     * covers; and such a reader may move on to `headRowId`.
     */
    areas: perArea(z.object({ matchedRowId: rowIdSchema, headRowId: rowIdSchema })),
  }),
  z.object({
    kind: z.literal('clock-response'),
    requestId: requestIdSchema,
    hostSentUs: timeUsSchema,
    guestReceivedUs: timeUsSchema,
    guestSentUs: timeUsSchema,
  }),
  clockStepSchema,
  z.object({
    kind: z.literal('error'),
    code: z.enum(errorCodes),
    message: z.string().max(1_024),
    /** The fetch that it answers; null when it answers none. */
    requestId: requestIdSchema.nullable(),
  }),
] as const;

/** Every message but `rows`, which is too frequent for a schema; see row-block.ts. */
export const controlMessageSchema = z.discriminatedUnion('kind', schemas);
export type ControlMessage = z.output<typeof controlMessageSchema>;

/** The answer to a fetch. */
export interface RowsMessage {
  readonly kind: 'rows';
  readonly requestId: number;
  readonly area: Area;
  readonly generation: string;
  /** Ascending by row id, all after the cursor asked for. */
  readonly rows: readonly GuestRow[];
  /** Ascending; those that end after the cursor asked for and at or before `throughRowId`. */
  readonly lost: readonly LostRange[];
  /** Where the reader stands once it has taken this: nothing that it wants lies between. */
  readonly throughRowId: number;
  /** True when the limits ended the answer before the head. */
  readonly hasMore: boolean;
}

export type ChannelMessage = ControlMessage | RowsMessage;
export type MessageOf<Kind extends ChannelMessage['kind']> = Extract<
  ChannelMessage,
  { readonly kind: Kind }
>;

/** The kinds that this program knows; others are a newer peer's and are ignored. */
export const messageKinds: ReadonlySet<string> = new Set([
  'rows',
  ...schemas.map((schema) => String([...schema.shape.kind.values][0])),
]);
