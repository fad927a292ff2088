import { eventually } from '../../test/support/eventually.ts';
import { monotonicMs } from '../running-instance.ts';
import type { BenchChain } from './bench-chain.ts';

const stallMaxMs = 20_000;
const timeoutMs = 10 * 60_000;

/** Resolves with what the primary site has stored, once it is `measurements` or grows no more. */
export async function allStored(chain: BenchChain, measurements: number): Promise<number> {
  let stored = 0;
  let grewAtMs = monotonicMs();
  await eventually(
    async () => {
      const now = (await chain.stored()).measurements;
      if (now > stored) grewAtMs = monotonicMs();
      stored = now;
      return stored >= measurements || monotonicMs() - grewAtMs > stallMaxMs;
    },
    { timeoutMs, pollMs: 20 },
  );
  return stored;
}
