import { execFileSync } from 'node:child_process';
import { closeSync, fsyncSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { ControlClient } from '../../../common/control/control-client.ts';
import { type GuestStatus, guestStatusSchema } from '../../../common/control/guest-answer.ts';
import { eventually } from '../../support/eventually.ts';
import { type MountedAgent, mountAgent, mountAnswers } from '../../support/mounted-agent.ts';
import { describeUnless, fuseObstacle } from '../../support/requirements.ts';

const timeoutMs = 10_000;
/** Longer than any of these tests. */
const neverMs = 60_000;

async function statusOf(agent: MountedAgent): Promise<GuestStatus> {
  const client = new ControlClient({
    socketPath: join(agent.dataPath, '..', 'control.sock'),
    peer: 'the guest agent',
    startCommand: '',
  });
  return client.get('/v1/status', guestStatusSchema);
}

/** How many rows of unencrypted.db are published: without a host none is acknowledged. */
async function publishedRows(agent: MountedAgent): Promise<number> {
  const { databases } = await statusOf(agent);
  return databases.find(({ area }) => area === 'unencrypted')?.unacknowledgedRows ?? -1;
}

/** FLUSHes the handle as the end of a child that inherited it does: no RELEASE follows. */
function flush(handle: number): void {
  execFileSync('true', { stdio: ['ignore', handle, 'ignore'] });
}

describeUnless(fuseObstacle(), '"Published at the end of the save", through a mount', () => {
  test('"at RELEASE", "at fsync", "or at the agent\'s restart"; `isobar guest status` lists what is held', async () => {
    await using agent = await mountAgent({ config: { store: { publishHoldMs: neverMs } } });
    const kpi = join(agent.mountPath, 'unencrypted', 'kpi');
    writeFileSync(kpi, '1\n');
    await eventually(async () => (await publishedRows(agent)) === 1, { timeoutMs });

    const handle = openSync(kpi, 'w');
    writeSync(handle, '2\n');
    flush(handle);
    expect(agent.rows('kpi')).toEqual([{ column1: 1 }, { column1: 2 }]);
    const { held } = await statusOf(agent);
    expect(held).toMatchObject([{ path: 'unencrypted/kpi', reason: 'open-handle' }]);
    expect(await publishedRows(agent)).toBe(1);
    fsyncSync(handle);
    await eventually(async () => (await publishedRows(agent)) === 2, { timeoutMs });
    expect((await statusOf(agent)).held).toEqual([]);

    writeSync(handle, '3\n');
    flush(handle);
    expect(await publishedRows(agent)).toBe(2);
    await agent.kill();
    await mountAnswers(agent, { timeoutMs });
    await eventually(async () => (await publishedRows(agent)) === 3, { timeoutMs });
    expect(agent.rows('kpi')).toHaveLength(3);
    expect(() => {
      closeSync(handle);
    }).toThrow('EIO');
  });

  test('"publishHoldMs after the last FLUSH"; "until then a later commit of the same handle replaces it"', async () => {
    await using agent = await mountAgent({ config: { store: { publishHoldMs: 3_000 } } });
    const handle = openSync(join(agent.mountPath, 'unencrypted', 'kpi'), 'w');
    writeSync(handle, 'cpu,mem\n');
    flush(handle);
    writeSync(handle, '1,2\n');
    flush(handle);
    expect((await statusOf(agent)).held).toHaveLength(1);
    await eventually(async () => (await statusOf(agent)).held.length === 0, { timeoutMs: 20_000 });
    expect(agent.rows('kpi')).toEqual([{ cpu: 1, mem: 2 }]);
    // The row that the second commit replaced had a row_id too, and counts nowhere.
    expect(await publishedRows(agent)).toBe(1);
    closeSync(handle);
    expect(agent.rows('kpi')).toEqual([{ cpu: 1, mem: 2 }]);
  });

  test('"A new file made with O_EXCL is published after newNameHoldMs"; "isobar guest status lists what is held"', async () => {
    await using agent = await mountAgent({ config: { store: { newNameHoldMs: 4_000 } } });
    const directory = join(agent.mountPath, 'unencrypted');
    writeFileSync(join(directory, 'copy'), '1\n', { flag: 'wx' });
    const { held } = await statusOf(agent);
    expect(held).toMatchObject([{ path: 'unencrypted/copy', reason: 'new-name' }]);
    execFileSync('mv', [join(directory, 'copy'), join(directory, 'kpi')]);
    await eventually(async () => (await statusOf(agent)).held.length === 0, { timeoutMs: 20_000 });
    expect(await publishedRows(agent)).toBeGreaterThan(0);
    expect(agent.tables('unencrypted')).toEqual(['kpi']);
  });

  test('"the bytes go to a bounded quarantine with the reason", which `isobar guest status` shows', async () => {
    await using agent = await mountAgent();
    const kpi = join(agent.mountPath, 'unencrypted', 'kpi');
    expect(() => {
      writeFileSync(kpi, '"open\n');
    }).toThrow('EINVAL');
    const { quarantine } = await statusOf(agent);
    expect(quarantine).toMatchObject([{ path: 'unencrypted/kpi', sizeBytes: 6 }]);
    expect(quarantine[0]?.reason).toMatch(/^\S+: .*line 1/);
  });
});
