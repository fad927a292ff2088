import { z } from 'zod';

import { streamKinds } from '../wire/frame.ts';
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

/** What becomes of it. A refusal names no reason beyond its code. */
export const subscriptionAnswerSchema = z.strictObject({
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
});
export type SubscriptionOutcome = z.output<typeof subscriptionAnswerSchema>['outcome'];

/** `POST /v1/subscriptions` */
export const subscriptionEndpoint = {
  method: 'POST',
  path: '/v1/subscriptions',
  requestSchema: subscriptionRequestSchema,
  answerSchema: subscriptionAnswerSchema,
  isIdempotent: true,
} as const satisfies Endpoint;

/** Who keeps subscriptions: the relay of a site. */
export interface SubscriptionKeeper {
  /** Idempotent: a subscription that is there already is `subscribed`. */
  subscribe(
    relation: string,
    request: SubscriptionRequest,
  ): Promise<Exclude<SubscriptionOutcome, 'hop-limit'>>;
}

/** Answers {@link subscriptionEndpoint}; chains longer than {@link hopsMax} never reach the keeper. */
export function serveSubscriptions(keeper: SubscriptionKeeper): BoundEndpoint {
  return serve(
    subscriptionEndpoint,
    async (relation, request) => {
      if (request.hopCount >= hopsMax) return { outcome: 'hop-limit' as const };
      return { outcome: await keeper.subscribe(relation, request) };
    },
    ({ kind, streams }) =>
      `${kind} ${streams === 'all' ? 'all' : streams.map(({ vm, kind: of }) => `${vm}/${of}`).join(' ')}`,
  );
}
