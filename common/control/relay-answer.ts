import { z } from 'zod';

import { streamKinds } from '../wire/frame.ts';
import { stageStatusSchema } from './stage-answer.ts';

/** What was over a quota when it came, and was asked for later, since the relay started. */
const delaysSchema = z.object({
  delayedFrames: z.int().nonnegative(),
  delayedBytes: z.int().nonnegative(),
});

/** One VM as a site on its way sees it, from the clear status stream. */
export const relayedVmSchema = z.object({
  vm: z.string(),
  /** The neighbour that it comes from. */
  from: z.string().nullable(),
  /** running, suspended, silent, dead; ended: its streams were closed in order; unknown before the status stream spoke. */
  state: z.string(),
  /** When the status stream said so, by the clock of the VM's host, µs of the epoch. */
  reportedAtUs: z.int().nullable(),
  /** The newest data frame that the origin has told of, and the newest one here. */
  originHead: z.int().nullable(),
  epoch: z.int().nullable(),
  head: z.int().nonnegative(),
  delays: delaysSchema.nullable(),
});
export type RelayedVm = z.output<typeof relayedVmSchema>;

/** GET /v1/status of a relay. */
export const relayStatusSchema = stageStatusSchema.extend({
  /** `mqtt(s)://HOST:PORT` of our own broker; null when there is none. */
  listens: z.string().nullable(),
  /** `https://HOST:PORT` where neighbours ask; null when nowhere. */
  control: z.string().nullable(),
  neighbours: z.array(
    z.object({
      relation: z.string(),
      direction: z.enum(['upstream', 'downstream']),
      /** Of one upstream: it answers. Of one downstream: it has subscribed, and is connected. */
      isLive: z.boolean(),
      /** Why one that we dial can't be reached. */
      failure: z.string().nullable().default(null),
      /** Of one upstream. */
      delays: delaysSchema.nullable(),
    }),
  ),
  vms: z.array(relayedVmSchema),
  /** What neighbours asked for on demand, of one VM or (null) of each, until when. */
  subscriptions: z
    .array(
      z.object({
        relation: z.string(),
        vm: z.string().nullable(),
        kind: z.enum(streamKinds),
        expiresAtUs: z.int(),
      }),
    )
    .default([]),
  /** Frames in the log. */
  logBytes: z.number().nonnegative(),
  /** What neighbours that dial us have not taken yet. */
  bufferedBytes: z.number().nonnegative(),
  /** Damaged databases that were replaced; they stay in the data directory until someone removes them. */
  setAside: z.array(z.string()).default([]),
});
export type RelayStatus = z.output<typeof relayStatusSchema>;

export const relayPaths = { status: '/v1/status' } as const;
