import { z } from 'zod';

import { stageCountsSchema } from './stage-answer.ts';

/** GET /v1/status of the guest agent. */
export const guestStatusSchema = z.looseObject({
  stages: z.record(z.string(), stageCountsSchema).default({}),
  mount: z.string(),
  databases: z.array(
    z.object({
      area: z.string(),
      /** New when the database is created, restored, cloned or rolled back. */
      generation: z.string(),
      sizeBytes: z.int().nonnegative(),
      sizeBytesMax: z.int().positive(),
      /** Published rows that the host has not acknowledged; of very many, the row ids that they span. */
      unacknowledgedRows: z.int().nonnegative(),
      /** Rows given up unacknowledged for want of room. */
      lostRows: z.int().nonnegative(),
    }),
  ),
  /** Saves that are committed but not published. */
  held: z.array(
    z.object({
      path: z.string(),
      sinceUs: z.int(),
      /** `open-handle`, `new-name`, ... */
      reason: z.string(),
    }),
  ),
  /** What was refused, with the reason. */
  quarantine: z.array(
    z.object({
      path: z.string(),
      atUs: z.int(),
      sizeBytes: z.int().nonnegative(),
      reason: z.string(),
    }),
  ),
});
export type GuestStatus = z.output<typeof guestStatusSchema>;
