import type { Random } from './random.ts';

export interface BackoffPolicy {
  /** Delay before the second attempt. */
  readonly initialMs: number;
  /** Delays double up to this. */
  readonly maxMs: number;
  /** Attempts in all; `Infinity` retries until aborted. */
  readonly attemptsMax: number;
}

/** For peers on the same machine or network: quick at first, never more than one attempt in five seconds. */
export const reconnectPolicy: BackoffPolicy = {
  initialMs: 50,
  maxMs: 5_000,
  attemptsMax: Number.POSITIVE_INFINITY,
};

/**
 * The delay before attempt `attemptIndex + 1`: "equal jitter", between half of the doubled delay and all of it,
 * so that many clients of one restarted peer spread out and none retries at once.
 */
export function backoffDelayMs(
  policy: BackoffPolicy,
  attemptIndex: number,
  random: Random,
): number {
  const ceilingMs = Math.min(policy.maxMs, policy.initialMs * 2 ** Math.min(attemptIndex, 40));
  return ceilingMs / 2 + (ceilingMs / 2) * random.uniform();
}
