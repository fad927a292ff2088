import { z } from 'zod';

/** GET /v1/status of `isobar up`: what runs, and where. */
export const upStatusSchema = z.object({
  dataDirectory: z.string(),
  mount: z.string(),
  mqttUrl: z.string(),
  /** Only the user who started it sees into the mount. */
  isPrivateMount: z.boolean(),
  processes: z.array(
    z.object({
      name: z.string(),
      /** null while it is being restarted. */
      pid: z.int().positive().nullable(),
      startedAtUs: z.int(),
      restartCount: z.int().nonnegative(),
    }),
  ),
});
export type UpStatus = z.output<typeof upStatusSchema>;
