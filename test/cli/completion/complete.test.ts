import { Hono } from 'hono';
import { describe, expect, test } from 'vitest';

import { machineDescriptor } from '../../../cli/up/machine-descriptor.ts';
import { runIsobar } from '../../support/command-line.ts';
import { withInstance, type Run } from '../../support/served-instance.ts';

async function complete(run: Run, ...words: string[]): Promise<readonly string[]> {
  return (await run(['__complete', '--', ...words])).lines;
}

describe('isobar completion', () => {
  test('knows commands, options, choices, and the VMs and data points that exist', async () => {
    const primarySite = new Hono().get('/v1/data-points', (context) =>
      context.json({
        dataPoints: [{ vm: 'vm1', dataPoint: 'kpi/users/column1', newestTimeUs: null }],
      }),
    );
    const hostCollector = new Hono().get('/v1/vms', (context) =>
      context.json({ vms: [machineDescriptor('vm1', '/run/x')] }),
    );
    await withInstance({ primarySite, hostCollector }, async (_run, path) => {
      const run: Run = (commandLine) => runIsobar(['--data-dir', path, ...commandLine]);
      expect(await complete(run, 'wa')).toEqual(['watch']);
      expect(await complete(run, 'vm', 's')).toEqual(['set-monitoring', 'show']);
      expect(await complete(run, 'relay', '')).toEqual(['run', 'status']);
      expect(await complete(run, 'relay', 'status', '--')).toContain('--config');
      expect(await complete(run, 'watch', '--s')).toEqual(['--since']);
      expect(await complete(run, 'completion', '')).toEqual(['bash', 'fish', 'zsh']);
      expect(await complete(run, 'vm', 'show', '')).toEqual(['vm1']);
      expect(await complete(run, 'watch', '--vm', '')).toEqual(['vm1']);
      expect(await complete(run, 'watch', 'kpi/')).toEqual(['kpi/users/column1']);
    });
  });

  test.each(['bash', 'zsh', 'fish'])('prints a script for %s', async (shell) => {
    const { exitCode, lines } = await runIsobar(['completion', shell]);
    expect(exitCode).toBe(0);
    expect(lines.join('\n')).toContain('__complete');
  });
});
