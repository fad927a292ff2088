import { describe, expect, test } from 'vitest';

import { RequestActivity } from '../../../guest-agent/fuse/dev-fuse/request-activity.ts';
import { AgentWatch } from '../../../guest-agent/supervisor/agent-watch.ts';
import { ManualClock } from '../../support/manual-clock.ts';

function watched(answers: boolean) {
  const clock = new ManualClock();
  const seen = { questions: 0, hung: 0 };
  const watch: AgentWatch = new AgentWatch(
    { clock },
    {
      unresponsiveMaxMs: 10_000,
      ask: () => {
        seen.questions += 1;
        if (answers) watch.answered();
      },
      onHung: () => {
        seen.hung += 1;
      },
    },
  );
  watch.start();
  return { clock, watch, seen };
}

describe('AgentWatch', () => {
  test('an agent that answers is left alone; one that does not is hung once, after unresponsiveMaxMs', async () => {
    const healthy = watched(true);
    await healthy.clock.advance(100_000);
    expect(healthy.seen).toEqual({ questions: 50, hung: 0 });

    const silent = watched(false);
    await silent.clock.advance(9_999);
    expect(silent.seen).toEqual({ questions: 1, hung: 0 });
    await silent.clock.advance(90_000);
    expect(silent.seen).toEqual({ questions: 1, hung: 1 });
  });

  test('a late answer begins anew', async () => {
    const { clock, watch, seen } = watched(false);
    for (let round = 0; round < 5; round += 1) {
      await clock.advance(8_000);
      watch.answered();
    }
    expect(seen.hung).toBe(0);
  });

  test('a suspended machine or a supervisor that did not run ends no healthy agent', async () => {
    const { clock, watch, seen } = watched(false);
    await clock.advance(8_000);
    // One beat for all the time that was slept through, before the answer could be read.
    clock.sleepThrough(3_600_000);
    await clock.advance(1);
    expect(seen.hung).toBe(0);
    watch.answered();
    await clock.advance(9_000);
    expect(seen.hung).toBe(0);
  });

  test('after its stop nothing is asked', async () => {
    const { clock, watch, seen } = watched(false);
    watch.stop();
    await clock.advance(100_000);
    expect(seen).toEqual({ questions: 0, hung: 0 });
  });
});

describe('RequestActivity', () => {
  test('a thread is stuck that is at the same request at two looks; idle or moving ones are not', () => {
    const memory = RequestActivity.allocate();
    const thread = new RequestActivity(memory);
    const main = new RequestActivity(memory);
    expect([main.isStuck(), main.isStuck()]).toEqual([false, false]);
    thread.begin();
    expect([main.isStuck(), main.isStuck(), main.isStuck()]).toEqual([false, true, true]);
    thread.end();
    thread.begin();
    expect(main.isStuck()).toBe(false);
    thread.end();
    expect(main.isStuck()).toBe(false);
  });
});
