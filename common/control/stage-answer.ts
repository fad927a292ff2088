import { z } from 'zod';

import type { StageCounts } from '../runtime/stage-counters.ts';

/** One stage of the data path in a status answer. */
export const stageCountsSchema: z.ZodType<StageCounts> = z.object({
  accepted: z.int(),
  forwarded: z.int(),
  dropped: z.int(),
  failed: z.int(),
  lagMs: z.number().nullable(),
});

/** What the status of every process holds at least. Each adds its own; programs of other versions may add more. */
export const stageStatusSchema = z.looseObject({
  stages: z.record(z.string(), stageCountsSchema).default({}),
});
