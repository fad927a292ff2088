import { z } from 'zod';

import { briefProblem } from '../config/brief-problem.ts';
import { keyStatementSchema } from '../signing/key-statement.ts';
import { lossDeclarationSchema } from '../signing/loss-declaration.ts';
import { streamKinds } from './frame.ts';
import { vmIdSchema } from './vm-descriptor.ts';

/*
 * What a consumer and its producer say to each other beside frames: JSON, one message each, at most
 * `controlMessageBytesMax`. Version 1. Unknown fields are refused: a new field is a new version.
 *
 *   consumer                                   producer
 *     |--- subscribe (session, streams) ---------->|  makes the durable cursor, answers:
 *     |<-- subscribed (instance) ------------------|  or refused (code)
 *     |<-- key-statements (of all epochs' keys) ---|  then of an epoch before its first frame, and with all heads
 *     |<-- heads (every epoch that the log knows) -|  then those that moved, every announceIntervalMs
 *     |<== live: frame batches ====================|  as they are committed, QoS 0, unpaced
 *     |--- query (request, range, credit) -------->|  for each gap
 *     |<== range/<request>: frame batches =========|  never more bytes than credit
 *     |--- credit (request, bytes) --------------->|  as batches are stored
 *     |<-- losses (declared, signed) --------------|  before the range-end that names them; when they are declared
 *     |<-- range-end (request, gone ranges) -------|
 *     |<-- available (ranges that came late) ------|  by a relay, for what it back-filled itself; lost ones are back
 *     |--- stored (by, watermarks) --------------->|  after each commit, coalesced
 *     |--- unsubscribe --------------------------->|  ends the durable cursor
 *
 * A lost message of either direction is healed by the next heads, by the consumer's request time-out, or by the next
 * stored.
 */
export const controlMessageVersion = 1;
export const controlMessageBytesMax = 256 * 1_024;
/** Entries in one heads or stored message; more are sent as several messages. */
export const controlEntriesMax = 512;
/** Statements in one message; with the longest that are valid it still is below `controlMessageBytesMax`. */
export const keyStatementsMax = 128;
/** Losses in one message; with the longest that are valid it still is below `controlMessageBytesMax`. */
export const lossesMax = 128;
/** Characters of a signing certificate in base64; far above any of ours. */
const certificateCharsMax = 16_384;
/** Bytes that a consumer can have under way for one query. */
export const creditBytesMax = 64 * 1_024 * 1_024;

const token = z
  .string()
  .regex(/^[A-Za-z0-9_-]{1,64}$/, 'letters, digits, _ and -, 1 to 64 of them');
const seq = z.int().positive();
const streamSchema = z.strictObject({ vm: vmIdSchema, kind: z.enum(streamKinds) });
const epochSchema = z.strictObject({
  number: z.int().nonnegative(),
  nonce: z.string().regex(/^[0-9a-f]{16}$/, '16 hex digits'),
});
const rangeSchema = z
  .strictObject({ fromSeq: seq, throughSeq: seq })
  .refine((range) => range.fromSeq <= range.throughSeq, 'fromSeq must not exceed throughSeq');
const base = { v: z.literal(controlMessageVersion), session: token };

/** Consumer to producer. `session` names one connection attempt; a later one replaces it. */
const subscribeSchema = z.strictObject({
  ...base,
  kind: z.literal('subscribe'),
  /** `all`: every stream that the producer's policy allows, also those that begin later. */
  streams: z.union([z.literal('all'), z.array(streamSchema).max(controlEntriesMax)]),
});
const unsubscribeSchema = z.strictObject({ ...base, kind: z.literal('unsubscribe') });
const querySchema = z.strictObject({
  ...base,
  kind: z.literal('query'),
  request: token,
  stream: streamSchema,
  epoch: epochSchema,
  range: rangeSchema,
  creditBytes: z.int().positive().max(creditBytesMax),
});
const creditSchema = z.strictObject({
  ...base,
  kind: z.literal('credit'),
  request: token,
  bytes: z.int().positive().max(creditBytesMax),
});
const cancelSchema = z.strictObject({ ...base, kind: z.literal('cancel'), request: token });
const storedSchema = z.strictObject({
  ...base,
  kind: z.literal('stored'),
  /** `next-hop`: durable at this consumer. `final-reader`: durable at the primary site. */
  by: z.enum(['next-hop', 'final-reader']),
  /** Every frame of the epoch up to `throughSeq` is stored, or declared lost. */
  watermarks: z
    .array(z.strictObject({ stream: streamSchema, epoch: epochSchema, throughSeq: seq }))
    .max(controlEntriesMax),
});

/** Producer to consumer. `instance` changes with each start of the producer. */
const subscribedSchema = z.strictObject({
  ...base,
  kind: z.literal('subscribed'),
  instance: token,
  announceIntervalMs: z.int().positive().max(3_600_000),
});
const refusedSchema = z.strictObject({
  ...base,
  kind: z.literal('refused'),
  /** The request that is refused; null for the subscription. */
  request: token.nullable(),
  code: z.enum(['not-authorized', 'not-subscribed', 'too-many-requests', 'invalid']),
});
const headsSchema = z.strictObject({
  ...base,
  kind: z.literal('heads'),
  instance: token,
  heads: z
    .array(
      z.strictObject({
        stream: streamSchema,
        epoch: epochSchema,
        /** The newest frame; frames are 1 to `throughSeq`. */
        throughSeq: seq,
      }),
    )
    .max(controlEntriesMax),
});
const rangeEndSchema = z.strictObject({
  ...base,
  kind: z.literal('range-end'),
  request: token,
  /** Parts of the queried range that the log had to give up, with the text of the reason; `losses` has them signed. */
  lost: z
    .array(z.strictObject({ fromSeq: seq, throughSeq: seq, reason: z.string().max(256) }))
    .max(controlEntriesMax),
});

/** Frames that the consumer may have asked for in vain are in the producer's log by now. */
const availableSchema = z.strictObject({
  ...base,
  kind: z.literal('available'),
  ranges: z
    .array(z.strictObject({ stream: streamSchema, epoch: epochSchema, range: rangeSchema }))
    .max(controlEntriesMax),
});

/**
 * Which keys sign the epochs' frames, said by this neighbour: the claims are the writer's, signatures and certificate are
 * the neighbour's own. A repetition is normal. See common/signing/key-statement.ts.
 */
const keyStatementsSchema = z.strictObject({
  ...base,
  kind: z.literal('key-statements'),
  /** Of the key that signed them, DER in base64; its issuer is the authority that the consumer pinned. */
  certificate: z.base64().min(1).max(certificateCharsMax),
  statements: z.array(keyStatementSchema).max(keyStatementsMax),
});

/**
 * What this neighbour has no more, said under its own signature; in force until one of the frames comes after all. A
 * repetition is normal. See common/signing/loss-declaration.ts.
 */
const lossesSchema = z.strictObject({
  ...base,
  kind: z.literal('losses'),
  /** Of the key that signed them, as in key statements; null from a producer that is no site. */
  certificate: z.base64().min(1).max(certificateCharsMax).nullable(),
  losses: z.array(lossDeclarationSchema).max(lossesMax),
});

export const upstreamMessageSchema = z.discriminatedUnion('kind', [
  subscribeSchema,
  unsubscribeSchema,
  querySchema,
  creditSchema,
  cancelSchema,
  storedSchema,
]);
export type UpstreamMessage = z.output<typeof upstreamMessageSchema>;
export type QueryMessage = z.output<typeof querySchema>;
export type StoredMessage = z.output<typeof storedSchema>;

export const downstreamMessageSchema = z.discriminatedUnion('kind', [
  subscribedSchema,
  refusedSchema,
  headsSchema,
  rangeEndSchema,
  availableSchema,
  keyStatementsSchema,
  lossesSchema,
]);
export type DownstreamMessage = z.output<typeof downstreamMessageSchema>;
export type AvailableMessage = z.output<typeof availableSchema>;
export type KeyStatementsMessage = z.output<typeof keyStatementsSchema>;
export type LossesMessage = z.output<typeof lossesSchema>;
export type HeadEntry = z.output<typeof headsSchema>['heads'][number];

export type DecodedControl<Message> =
  | { readonly ok: true; readonly message: Message }
  | {
      readonly ok: false;
      readonly code: 'too-large' | 'not-json' | 'unknown-version' | 'invalid';
      readonly rule: string;
    };

export function encodeControl(message: UpstreamMessage | DownstreamMessage): Uint8Array {
  return Buffer.from(JSON.stringify(message), 'utf8');
}

/** What a consumer sent, checked; never throws. */
export function decodeUpstream(bytes: Uint8Array): DecodedControl<UpstreamMessage> {
  return decodeControl(upstreamMessageSchema, bytes);
}

/** What a producer sent, checked; never throws. */
export function decodeDownstream(bytes: Uint8Array): DecodedControl<DownstreamMessage> {
  return decodeControl(downstreamMessageSchema, bytes);
}

function decodeControl<Schema extends z.ZodType>(
  schema: Schema,
  bytes: Uint8Array,
): DecodedControl<z.output<Schema>> {
  if (bytes.length > controlMessageBytesMax) {
    return { ok: false, code: 'too-large', rule: `at most ${controlMessageBytesMax} bytes` };
  }
  let document: unknown;
  try {
    document = JSON.parse(Buffer.from(bytes).toString('utf8'));
  } catch (error) {
    return { ok: false, code: 'not-json', rule: error instanceof Error ? error.message : '' };
  }
  const version: unknown =
    typeof document === 'object' && document !== null ? Reflect.get(document, 'v') : undefined;
  if (version !== controlMessageVersion) {
    return { ok: false, code: 'unknown-version', rule: `known: ${controlMessageVersion}` };
  }
  const parsed = schema.safeParse(document);
  if (parsed.success) return { ok: true, message: parsed.data };
  return { ok: false, code: 'invalid', rule: briefProblem(parsed.error) };
}
