/**
 * The durable steps of the origin, where a test may end the process:
 *
 *     rows taken --> frames appended --> cursor and engine written --> COMMIT --> forwarded --> acknowledged
 *      |               |                  |                             |           |             |
 *      batch-taken     frames-appended    state-written                 committed   forwarded     acknowledged
 *
 * Before `committed` nothing of the batch is durable and the guest sends it again; from there on all of it is.
 */
export const crashPoints = [
  'batch-taken',
  'frames-appended',
  'state-written',
  'committed',
  'forwarded',
  'acknowledged',
] as const;
export type CrashPoint = (typeof crashPoints)[number];

/** Called at each step; production passes a function that does nothing. */
export type AtCrashPoint = (point: CrashPoint) => void;
