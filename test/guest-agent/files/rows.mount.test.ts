import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { SystemClock } from '../../../common/runtime/clock.ts';
import { openDatabase } from '../../../common/sqlite/database.ts';
import { guestAgentConfigSchema } from '../../../guest-agent/config.ts';
import { mountAgent } from '../../support/mounted-agent.ts';
import { describeUnless, fuseObstacle } from '../../support/requirements.ts';

/** The database header's "file format write version" of a database in WAL mode (SQLite file format, 1.3). */
const walFormat = 2;

describeUnless(fuseObstacle(), 'what a save becomes, through a mount', () => {
  test('"a table named exactly like the file\'s path; the row carries the time of the save; columns row_id, saved_at_us, then the CSV\'s"', async () => {
    await using agent = await mountAgent();
    const clock = new SystemClock();
    mkdirSync(join(agent.mountPath, 'unencrypted', 'web server'));
    const beforeUs = clock.wallUs();
    writeFileSync(join(agent.mountPath, 'unencrypted', 'web server', 'load.csv'), 'cpu,mem\n1,x\n');
    const closedUs = clock.wallUs();
    const database = openDatabase(join(agent.dataPath, 'unencrypted.db'), { readonly: true });
    const statement = database.prepare<[], Record<string, number>>(
      'SELECT * FROM "web server/load.csv"',
    );
    const rows = statement.all();
    const columns = statement.columns().map(({ name, type }) => ({ name, type }));
    database.close();
    expect(rows).toMatchObject([{ row_id: 1, cpu: 1, mem: 'x' }]);
    expect(rows[0]?.['saved_at_us']).toBeGreaterThanOrEqual(beforeUs);
    expect(rows[0]?.['saved_at_us']).toBeLessThanOrEqual(closedUs);
    expect(columns).toEqual([
      { name: 'row_id', type: 'INTEGER' },
      { name: 'saved_at_us', type: 'INTEGER' },
      { name: 'cpu', type: null },
      { name: 'mem', type: null },
    ]);
  });

  test('"encrypted.db and unencrypted.db, WAL, synchronous=FULL by default"; publishHoldMs 1000, newNameHoldMs 300', async () => {
    const { store, fuseBackend } = guestAgentConfigSchema.parse({
      mountPath: '/m',
      dataDirectory: '/d',
      controlSocket: '/c',
      channel: { address: 'unix:/u' },
    });
    expect({ ...store, fuseBackend }).toMatchObject({
      synchronous: 'FULL',
      publishHoldMs: 1_000,
      newNameHoldMs: 300,
      fuseBackend: 'dev-fuse',
    });
    await using agent = await mountAgent();
    for (const area of ['encrypted', 'unencrypted']) {
      writeFileSync(join(agent.mountPath, area, 'kpi'), '1\n');
      const header = readFileSync(join(agent.dataPath, `${area}.db`));
      expect(header.subarray(0, 15).toString()).toBe('SQLite format 3');
      expect([header[18], header[19]]).toEqual([walFormat, walFormat]);
      expect(statSync(join(agent.dataPath, `${area}.db-wal`)).size).toBeGreaterThan(0);
    }
  });

  test('"directories like /tmp, mode by config": the two directories have areaMode', async () => {
    await using agent = await mountAgent();
    expect(statSync(join(agent.mountPath, 'unencrypted')).mode & 0o7777).toBe(0o1777);
    await using closed = await mountAgent({ config: { files: { areaMode: '0750' } } });
    for (const area of ['encrypted', 'unencrypted']) {
      expect(statSync(join(closed.mountPath, area)).mode & 0o7777).toBe(0o750);
    }
    const script = `cd / && setpriv --reuid 65534 --regid 65534 --clear-groups ls ${join(closed.mountPath, 'encrypted')} 2>&1 || true`;
    if (process.getuid?.() === 0) {
      expect(execFileSync('sh', ['-c', script], { encoding: 'utf8' })).toContain(
        'Permission denied',
      );
    }
  });
});
