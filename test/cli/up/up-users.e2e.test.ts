import { spawnSync } from 'node:child_process';
import { chmodSync } from 'node:fs';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { eventually } from '../../support/eventually.ts';
import { backendObstacle, describeUnless, rootObstacle } from '../../support/requirements.ts';
import { startUp } from '../../support/running-up.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const nobody = 65_534;

/** The mount's agent is another process, so waiting here keeps nobody from answering. */
function asNobody(command: string): { readonly status: number | null; readonly stderr: string } {
  return spawnSync('sh', ['-c', command], {
    uid: nobody,
    gid: nobody,
    cwd: '/',
    encoding: 'utf8',
  });
}

describeUnless(rootObstacle() ?? backendObstacle('dev-fuse'), 'isobar up and other users', () => {
  test('applications of any user can write to the default mount, and see nothing else of ours', async () => {
    using directory = temporaryDirectory();
    chmodSync(directory.path, 0o755);
    await using up = await startUp(join(directory.path, 'data'));
    expect(asNobody(`echo 5 > ${up.file('nob')}`)).toMatchObject({ status: 0, stderr: '' });
    await eventually(
      async () => (await up.isobar('query', 'kpi/nob/*', '--json')).stdout.includes('"value":5'),
      { timeoutMs: 10_000 },
    );
    for (const place of ['config', 'logs', 'run', 'guest-agent', 'host-collector']) {
      expect(asNobody(`ls ${join(up.dataPath, place)}`).stderr).toContain('Permission denied');
    }
  });
});
