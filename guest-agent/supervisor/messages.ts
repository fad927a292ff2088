import { z } from 'zod';

import { incarnationsMax } from '../fuse/dev-fuse/kernel-handle.ts';
import type { Negotiation } from '../fuse/protocol/init.ts';

/*
 * Between the supervisor (s) and the agent (a) it has started, over Node's IPC channel:
 *
 *   s -> a  serve       at once: the descriptor, and on a connection that had an agent before, how to go on
 *   a -> s  negotiated  a new connection's INIT; the supervisor remembers it for the agent's successors
 *   a -> s  ready       the agent serves the mount
 *   a -> s  ended       the connection is gone (unmounted by someone else, aborted): it needs a new mount
 *   s -> a  ping        now and then, from ready on
 *   a -> s  pong        its answer, from an agent whose threads move
 *   s -> a  stop        drain and exit; the mount is gone already or is about to go
 *
 * The channel's end means that the supervisor died: the agent unmounts, drains and exits.
 */

const negotiationSchema: z.ZodType<Negotiation> = z.strictObject({
  kernelMinor: z.int().min(0),
  flags: z.int(),
  flags2: z.int(),
});

export const serveSchema = z.strictObject({
  type: z.literal('serve'),
  /** Where the agent finds its /dev/fuse. */
  descriptor: z.int().min(0),
  mountPath: z.string().min(1),
  takeover: z
    .strictObject({
      negotiation: negotiationSchema,
      incarnation: z
        .int()
        .min(1)
        .max(incarnationsMax - 1),
    })
    .nullable(),
});
export type ServeMessage = z.infer<typeof serveSchema>;

export const toAgentSchema = z.discriminatedUnion('type', [
  serveSchema,
  z.strictObject({ type: z.literal('ping') }),
  z.strictObject({ type: z.literal('stop') }),
]);
export type ToAgent = z.infer<typeof toAgentSchema>;

export const toSupervisorSchema = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('negotiated'), negotiation: negotiationSchema }),
  z.strictObject({ type: z.literal('ready') }),
  z.strictObject({ type: z.literal('pong') }),
  z.strictObject({ type: z.literal('ended'), end: z.enum(['unmounted', 'aborted']) }),
]);
export type ToSupervisor = z.infer<typeof toSupervisorSchema>;
