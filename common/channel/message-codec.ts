import { Encoder } from 'cbor-x';
import { z } from 'zod';

import { briefProblem } from '../config/brief-problem.ts';
import { areas } from './area.ts';
import { isPlainCbor } from './cbor-shape.ts';
import {
  controlMessageSchema,
  lostRangeSchema,
  messageKinds,
  type ChannelMessage,
  type LostRange,
} from './message.ts';
import { packRows, unpackRows } from './row-block.ts';

/** `unknown`: a kind of a newer peer, to be ignored. `malformed`: the peer is broken; the connection must end. */
export type MessageDecoding =
  | { readonly outcome: 'message'; readonly message: ChannelMessage }
  | { readonly outcome: 'unknown'; readonly kind: string }
  | { readonly outcome: 'malformed'; readonly problem: string };

const rowsHeadSchema = z.object({
  requestId: z.int().nonnegative(),
  area: z.enum(areas),
  generation: z.string().max(256),
  lost: z.array(z.unknown()),
  throughRowId: z.int().nonnegative(),
  hasMore: z.boolean(),
});

/** Messages as CBOR maps (RFC 8949) without tags; 64-bit integers, bytes and null are what CBOR has for them. */
export class MessageCodec {
  readonly #cbor = new Encoder({ useRecords: false, mapsAsObjects: true, tagUint8Array: false });

  /** The payload of a frame; the receiver may keep it. */
  encode(message: ChannelMessage): Uint8Array {
    if (message.kind !== 'rows') return this.#cbor.encode(message);
    const { rows, ...head } = message;
    return this.#cbor.encode({ ...head, block: packRows(rows) });
  }

  /** Never throws, whatever the bytes. */
  decode(payload: Uint8Array): MessageDecoding {
    if (!isPlainCbor(payload)) return malformed('not one plain CBOR item');
    let item: unknown;
    try {
      item = this.#cbor.decode(payload);
    } catch (error) {
      return malformed(error instanceof Error ? error.message : String(error));
    }
    if (typeof item !== 'object' || item === null || !('kind' in item)) return malformed('no kind');
    const { kind } = item;
    if (typeof kind !== 'string') return malformed('the kind is no text');
    if (!messageKinds.has(kind)) return { outcome: 'unknown', kind };
    return kind === 'rows' ? decodeRows(item) : decodeControl(item);
  }
}

function decodeControl(item: object): MessageDecoding {
  const parsed = controlMessageSchema.safeParse(item);
  if (!parsed.success) return malformed(briefProblem(parsed.error));
  return { outcome: 'message', message: parsed.data };
}

function decodeRows(item: object): MessageDecoding {
  const head = rowsHeadSchema.safeParse(item);
  if (!head.success) return malformed(briefProblem(head.error));
  const rows = unpackRows('block' in item ? item.block : undefined, head.data.area);
  if (typeof rows === 'string') return malformed(rows);
  const { throughRowId } = head.data;
  const lost: LostRange[] = [];
  // One by one, as there may be many, and the first that is wrong ends it.
  for (const each of head.data.lost) {
    const range = lostRangeSchema.safeParse(each);
    if (!range.success) return malformed(briefProblem(range.error));
    lost.push(range.data);
  }
  if ((rows.at(-1)?.rowId ?? 0) > throughRowId) return malformed('a row beyond throughRowId');
  let lastRowId = -1;
  for (const range of lost) {
    if (range.fromRowId < lastRowId || range.throughRowId <= range.fromRowId) {
      return malformed('lost ranges do not rise');
    }
    lastRowId = range.throughRowId;
  }
  if (lastRowId > throughRowId) return malformed('a lost range beyond throughRowId');
  return { outcome: 'message', message: { kind: 'rows', ...head.data, lost, rows } };
}

function malformed(problem: string): MessageDecoding {
  return { outcome: 'malformed', problem };
}
