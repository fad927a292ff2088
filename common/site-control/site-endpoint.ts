import { z } from 'zod';

import { serve, type BoundEndpoint, type Endpoint } from './endpoint.ts';

/** The protocol between sites that this program speaks. */
export const protocolVersion = 1;

const token = z.string().regex(/^[A-Za-z0-9_-]{1,64}$/, 'letters, digits, _ and -, 1 to 64');

/** What a site tells a neighbour of itself. No address, no program version, no further site. */
export const siteAnswerSchema = z.strictObject({
  name: token,
  protocolVersion: z.int().min(1).max(65_535),
  /** What the answering site is in this relation. */
  role: z.enum(['producer', 'consumer']),
});
export type SiteAnswer = z.output<typeof siteAnswerSchema>;

/** `GET /v1/site`: who is there, and whether the two agree on their roles. */
export const siteEndpoint = {
  method: 'GET',
  path: '/v1/site',
  requestSchema: z.strictObject({}),
  answerSchema: siteAnswerSchema,
  isIdempotent: true,
} as const satisfies Endpoint;

/** Answers {@link siteEndpoint}. */
export function serveSite(
  describe: (relation: string) => Pick<SiteAnswer, 'name' | 'role'>,
): BoundEndpoint {
  return serve(siteEndpoint, (relation) =>
    Promise.resolve({ ...describe(relation), protocolVersion }),
  );
}
