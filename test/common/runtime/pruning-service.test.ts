import { describe, expect, test } from 'vitest';

import { silentLog } from '../../../common/runtime/log.ts';
import { PruningService } from '../../../common/runtime/pruning-service.ts';
import { ManualClock } from '../../support/manual-clock.ts';

describe('PruningService', () => {
  test('goes on at once while there is more to remove, then rests; a pass that fails does not end it', async () => {
    const clock = new ManualClock();
    const outcomes = [true, true, false, 'fails', false];
    const passesAtMs: number[] = [];
    const errors: unknown[] = [];
    const log = {
      ...silentLog,
      error: (_event: string, fields: unknown) => void errors.push(fields),
    };
    const startedAtMs = clock.monotonicMs();
    const service = new PruningService(
      { clock, log },
      {
        name: 'log-retention',
        intervalMs: 1_000,
        prune: () => {
          passesAtMs.push(clock.monotonicMs() - startedAtMs);
          const outcome = outcomes.shift() ?? false;
          if (typeof outcome === 'string') throw new Error(outcome);
          return outcome;
        },
      },
    );
    await service.start();
    await clock.advance(4_500);
    expect(passesAtMs).toEqual([1_000, 1_001, 1_002, 2_002, 3_002, 4_002]);
    expect(errors).toEqual([{ what: 'log-retention', cause: 'Error: fails' }]);
    await service.stop();
    await clock.advance(5_000);
    expect(passesAtMs).toHaveLength(6);
  });
});
