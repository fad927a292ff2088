import { z } from 'zod';

import { serve, type BoundEndpoint, type Endpoint } from './endpoint.ts';

/** Lists of up to three authorities, as common/identity takes them. */
const listsCharsMax = 3 * 65_536;

const listsSchema = z.string().max(listsCharsMax);

/** `POST /v1/revocation-lists`: ours against the neighbour's, so that one of the two needs to reach the other only. */
export const revocationEndpoint = {
  method: 'POST',
  path: '/v1/revocation-lists',
  /** PEM after PEM. */
  requestSchema: z.strictObject({ lists: listsSchema }),
  answerSchema: z.strictObject({
    /** `refused`: no list of the asking site's authorities is among them. */
    outcome: z.enum(['accepted', 'refused']),
    lists: listsSchema,
  }),
  isIdempotent: true,
  keyUse: 'lists',
} as const satisfies Endpoint;

/** Answers {@link revocationEndpoint}. */
export function serveRevocationLists(keeper: {
  /** Whether the lists are of that neighbour; they are in force then. */
  accept(relation: string, lists: string): Promise<boolean>;
  /** Our own. */
  lists(): Promise<string>;
}): BoundEndpoint {
  return serve(revocationEndpoint, async (relation, { lists }) => ({
    outcome: (await keeper.accept(relation, lists)) ? ('accepted' as const) : ('refused' as const),
    lists: await keeper.lists(),
  }));
}
