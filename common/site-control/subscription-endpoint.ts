import { z } from 'zod';

import { streamKinds, type StreamId } from '../wire/frame.ts';
import { vmIdSchema } from '../wire/vm-descriptor.ts';
import { serve, type BoundEndpoint, type Endpoint } from './endpoint.ts';

/** Sites between a VM and whoever reads it, at most; a longer chain is a mistake or a loop. */
export const hopsMax = 16;
/** Streams that one request may name. */
export const subscribedStreamsMax = 1_000;

const streamSchema = z.strictObject({ vm: vmIdSchema, kind: z.enum(streamKinds) });

/** What a consumer wants of its producer. */
export const subscriptionRequestSchema = z.strictObject({
  /** `standing`: along the chain of a delegation, until it is revoked. `on-demand`: for an extra consumer. */
  kind: z.enum(['standing', 'on-demand']),
  streams: z.union([z.literal('all'), z.array(streamSchema).min(1).max(subscribedStreamsMax)]),
  /** Relays between the asking site and the final reader, the asking one included: 0 for the reader itself. */
  hopCount: z.int().min(0).max(255),
});
export type SubscriptionRequest = z.output<typeof subscriptionRequestSchema>;

/** How long a subscription lasts that is not asked for again, at most: a neighbour's clock decides nothing. */
export const subscriptionLifeMsMax = 30 * 86_400_000;

/** What becomes of it. A refusal names no reason beyond its code. */
const subscriptionAnswerSchema = z.strictObject({
  outcome: z.enum([
    /** Now, or since before: asking again is harmless. */
    'subscribed',
    /** The asked site gets one of these streams from the asking site: a loop. */
    'already-relayed',
    /** The chain would be too long. */
    'hop-limit',
    /** One of the streams is unknown here, or not for this neighbour; which of both is not told. */
    'not-authorized',
  ]),
  /** With `subscribed`: it ends so long after this unless it is asked for again, ms. */
  lifeMs: z.int().positive().max(subscriptionLifeMsMax).optional(),
});
export type SubscriptionAnswer = z.output<typeof subscriptionAnswerSchema>;
export type SubscriptionOutcome = z.output<typeof subscriptionAnswerSchema>['outcome'];

/** `POST /v1/subscriptions` */
export const subscriptionEndpoint = {
  method: 'POST',
  path: '/v1/subscriptions',
  requestSchema: subscriptionRequestSchema,
  answerSchema: subscriptionAnswerSchema,
  isIdempotent: true,
} as const satisfies Endpoint;

/** What goes on: every other stream that the asking site asked for ends. It may be nothing. */
const subscriptionEndRequestSchema = z.strictObject({
  keep: z.array(streamSchema).max(subscribedStreamsMax),
});

/** `POST /v1/subscriptions/end` */
export const subscriptionEndEndpoint = {
  method: 'POST',
  path: '/v1/subscriptions/end',
  requestSchema: subscriptionEndRequestSchema,
  answerSchema: z.strictObject({ outcome: z.literal('ended') }),
  isIdempotent: true,
} as const satisfies Endpoint;

/** Who keeps subscriptions: the relay of a site. */
export interface SubscriptionKeeper {
  /** Idempotent: a subscription that is there already is `subscribed`, and its life begins anew. */
  subscribe(
    relation: string,
    request: SubscriptionRequest,
    signal: AbortSignal,
  ): Promise<SubscriptionAnswer>;
  /** Ends what the neighbour asked for but `keep`; nothing is sent to it or kept for it any more. Idempotent. */
  end(relation: string, keep: readonly StreamId[]): void;
}

/** Answers both endpoints; chains longer than {@link hopsMax} never reach the keeper. */
export function serveSubscriptions(keeper: SubscriptionKeeper): readonly BoundEndpoint[] {
  return [
    serve(
      subscriptionEndpoint,
      async (relation, request, { signal }) => {
        if (request.hopCount >= hopsMax) return { outcome: 'hop-limit' as const };
        return keeper.subscribe(relation, request, signal);
      },
      ({ kind, streams }) => `${kind} ${streams === 'all' ? 'all' : namesOf(streams)}`,
    ),
    serve(
      subscriptionEndEndpoint,
      (relation, { keep }) => {
        keeper.end(relation, keep);
        return Promise.resolve({ outcome: 'ended' as const });
      },
      ({ keep }) => `all but ${keep.length === 0 ? 'nothing' : namesOf(keep)}`,
    ),
  ];
}

function namesOf(streams: readonly StreamId[]): string {
  return streams.map(({ vm, kind }) => `${vm}/${kind}`).join(' ');
}
