import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';

import { expect, test } from 'vitest';
import { z } from 'zod';

import { readerVmStatusSchema } from '../../../common/control/reader-answer.ts';
import { systemErrorCode } from '../../../common/runtime/operating-error.ts';
import { compiledEntry } from '../../../common/runtime/package-root.ts';
import { backendNames, capabilitiesOf } from '../../../guest-agent/fuse/backend-capability.ts';
import { eventually } from '../../support/eventually.ts';
import { backendObstacle, describeUnless, rootObstacle } from '../../support/requirements.ts';
import {
  isAlive,
  launchUp,
  runIsobarProcess,
  type RunningUp,
  startUp,
} from '../../support/running-up.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const parts = ['guest-agent', 'host-collector', 'primary-site'] as const;

/** The writer saves 1, 2, 3, ... up to this. */
const writtenMax = 150;
/** Saved behind them. */
const lastValue = 0;

/** Values that the reader must get, each once: those whose close succeeded. */
async function writeValues(file: string): Promise<readonly number[]> {
  const writer = spawn(
    process.execPath,
    [compiledEntry('test/support/value-writer-process.ts'), file, String(writtenMax), '10'],
    { stdio: ['ignore', 'pipe', 'ignore'] },
  );
  return (await text(writer.stdout)).trim().split('\n').map(Number);
}

/** kill -9 of one part, until it serves again; returns how long the mount did not answer, ms. */
async function killPart(up: RunningUp, part: string): Promise<number> {
  const pid = await eventually(() => up.processOf(part), { timeoutMs: 10_000 });
  process.kill(pid, 'SIGKILL');
  const killedAtMs = performance.now();
  await eventually(() => !isAlive(pid), { timeoutMs: 5_000 });
  await eventually(() => stat(join(up.mountPath, 'unencrypted')), { timeoutMs: 10_000 });
  const mountBackMs = performance.now() - killedAtMs;
  await eventually(
    async () => {
      const { exitCode } = await up.isobar('status');
      return exitCode === 0 && (await up.processOf(part)) !== pid;
    },
    { timeoutMs: 20_000 },
  );
  return mountBackMs;
}

const countsSchema = z.object({
  process: z.string(),
  stage: z.string(),
  accepted: z.int(),
  forwarded: z.int(),
  dropped: z.int(),
  failed: z.int(),
});
const statusReportSchema = z.object({
  stages: z.array(countsSchema),
  vms: z.array(z.object({ vm: z.string() })),
  streams: z.array(readerVmStatusSchema),
});
type StatusReport = z.output<typeof statusReportSchema>;

function inFlight({
  accepted,
  forwarded,
  dropped,
  failed,
}: StatusReport['stages'][number]): number {
  return accepted - forwarded - dropped - failed;
}

/** The request by which `isobar status` asks the file system is in flight itself. */
function ownRequests({ stage }: StatusReport['stages'][number]): number {
  return stage === 'requests' ? 1 : 0;
}

/** Saves a text that is no CSV, by a program that checks close(2). */
function saveRefused(path: string): Promise<unknown> {
  return writeFile(path, '"x').then(
    () => 'saved',
    (error: unknown) => systemErrorCode(error),
  );
}

/** Values whose close failed. */
function unsaved(saved: readonly number[]): readonly number[] {
  const written = Array.from({ length: writtenMax }, (_, index) => index + 1);
  return written.filter((value) => !saved.includes(value));
}

for (const backend of backendNames) {
  // One writer has one save under way; without a takeover there is no mount for a while.
  const inDoubtMax = capabilitiesOf[backend].includes('takeover') ? 1 : writtenMax - 1;

  describeUnless(rootObstacle() ?? backendObstacle(backend), `isobar up with ${backend}`, () => {
    test('`echo 42 > <mount>/unencrypted/users`, and `isobar watch` shows it with its time, and every later one live', async () => {
      using directory = temporaryDirectory();
      await using up = await startUp(directory.path, { backend });
      expect(up.output.trim().split('\n').length).toBeLessThan(10);
      writeFileSync(up.file('users'), '42\n');
      const watch = spawn(
        process.execPath,
        [compiledEntry('cli/main.ts'), 'watch', 'kpi/users/*', '--json', '--since', '1m'].concat([
          '--data-dir',
          up.dataPath,
        ]),
        { stdio: ['ignore', 'pipe', 'inherit'] },
      );
      const lines = createInterface({ input: watch.stdout })[Symbol.asyncIterator]();
      const next = async (): Promise<unknown> => JSON.parse((await lines.next()).value as string);
      expect(await next()).toMatchObject({
        dataPoint: 'kpi/users/column1',
        value: 42,
        timeUs: expect.any(Number),
      });
      writeFileSync(up.file('users'), '43\n');
      expect(await next()).toMatchObject({ value: 43 });
      watch.kill('SIGINT');

      expect(await up.values('users')).toEqual([42, 43]);
      const status = await up.isobar('status');
      expect(status).toMatchObject({ exitCode: 0, stderr: '' });
      expect(status.stdout.match(/origin\//g)).toHaveLength(1);
      const guest = await up.isobar('guest', 'status');
      expect(guest.stdout).toContain(up.mountPath);

      up.child.kill('SIGINT');
      expect(await up.ended).toBe(0);
      expect(up.leftovers()).toEqual([]);
    });

    test('kill -9 of each process in turn heals, and what was saved meanwhile arrives exactly once', async () => {
      using directory = temporaryDirectory();
      await using up = await startUp(directory.path, { backend });
      for (const part of parts) {
        const file = `during-${part}`;
        const writing = writeValues(up.file(file));
        await eventually(async () => (await up.values(file)).length > 0, { timeoutMs: 10_000 });
        const mountBackMs = await killPart(up, part);
        // "the mount works again within 2 s without an operator"
        expect(mountBackMs).toBeLessThan(2_000);
        const saved = await writing;
        // Rows of a file arrive in their order: behind the last one nothing comes any more.
        writeFileSync(up.file(file), `${lastValue}\n`);
        const arrived = await eventually(
          async () => {
            const values = await up.values(file);
            return values.at(-1) === lastValue ? values : undefined;
          },
          { timeoutMs: 20_000 },
        );
        // A close that failed tells nothing about its row, and only the agent's death may make one fail.
        const inDoubt = unsaved(saved);
        expect(inDoubt.length).toBeLessThanOrEqual(part === 'guest-agent' ? inDoubtMax : 0);
        // "no acknowledged save is lost", and none arrives twice
        const certain = arrived.filter((value) => !inDoubt.includes(Number(value)));
        expect({ part, arrived: certain }).toEqual({ part, arrived: [...saved, lastValue] });
        expect(new Set(arrived).size).toBe(arrived.length);
        expect(up.output).toContain(
          `\n${part} died (SIGKILL) and is started again; its log is ${up.dataPath}/logs/${part}.log\n`,
        );
      }
      // "one plain sentence": JSON is in logs/ only.
      expect(up.output).not.toContain('{');
      expect(readFileSync(join(up.dataPath, 'logs', 'up.log'), 'utf8')).toMatch(
        /"event":"child-died"/,
      );
      up.child.kill('SIGINT');
      expect(await up.ended).toBe(0);
      expect(up.leftovers()).toEqual([]);
    });

    test('a second Ctrl-C stops at once and leaves no mount and no process behind', async () => {
      using directory = temporaryDirectory();
      await using up = await startUp(directory.path, { backend });
      // A collector that hangs, so that draining takes its time.
      const pid = await eventually(() => up.processOf('host-collector'), { timeoutMs: 10_000 });
      process.kill(pid, 'SIGSTOP');
      // The second one must be no echo of the first; see sameRequestMaxMs.
      await eventually(
        () => {
          if (!up.hasEnded) up.child.kill('SIGINT');
          return up.hasEnded;
        },
        { timeoutMs: 10_000, pollMs: 400 },
      );
      expect(await up.ended).toBe('SIGINT');
      await eventually(() => up.leftovers().length === 0, { timeoutMs: 5_000 });
    });

    test('when `isobar up` itself is killed, everything ends by itself, and the next one starts', async () => {
      using directory = temporaryDirectory();
      const killed = await startUp(directory.path, { backend });
      writeFileSync(killed.file('users'), '1\n');
      killed.child.kill('SIGKILL');
      await killed.ended;
      await eventually(
        () => killed.leftovers().every((left) => !/^(process|the mount$)/.test(left)),
        {
          timeoutMs: 20_000,
        },
      );
      await using up = await startUp(directory.path, { backend });
      writeFileSync(up.file('users'), '2\n');
      await eventually(async () => (await up.values('users')).join() === '1,2', {
        timeoutMs: 10_000,
      });
      up.child.kill('SIGINT');
      expect(await up.ended).toBe(0);
      expect(up.leftovers()).toEqual([]);
    });
  });
}

describeUnless(rootObstacle() ?? backendObstacle('dev-fuse'), 'isobar up', () => {
  test('accepted = forwarded + dropped + failed in every stage once all has passed, and stages agree; a removed VM has ended', async () => {
    using directory = temporaryDirectory();
    await using up = await startUp(directory.path);
    const savedMax = 20;
    for (let value = 1; value <= savedMax; value += 1) {
      writeFileSync(up.file('users'), `${value}\n`);
    }
    writeFileSync(join(up.mountPath, 'encrypted', 'blob'), 'opaque');
    expect(await saveRefused(up.file('refused'))).toBe('EINVAL');
    await eventually(async () => (await up.values('users')).length === savedMax, {
      timeoutMs: 20_000,
    });
    const report = async (): Promise<StatusReport> =>
      statusReportSchema.parse(JSON.parse((await up.isobar('status', '--json')).stdout));
    const { stages, vms } = await eventually(
      async () => {
        const now = await report();
        const busy = now.stages.filter((stage) => inFlight(stage) !== ownRequests(stage));
        if (busy.length > 0) throw new Error(`in flight: ${JSON.stringify(busy)}`);
        return now;
      },
      { timeoutMs: 20_000 },
    );
    const vm = vms[0]?.vm ?? '';
    expect(stages.map(({ process, stage }) => `${process} ${stage}`)).toEqual([
      'guest-agent requests',
      'guest-agent file-system',
      'guest-agent store/encrypted',
      'guest-agent store/unencrypted',
      'guest-agent guest-channel',
      `host-collector guest-channel/${vm}`,
      `host-collector origin/${vm}`,
      `host-collector deliveries/${vm}`,
      'host-collector producer',
      'primary-site consumer',
      'primary-site store',
      'primary-site losses',
      'primary-site json-topics',
    ]);
    const counted = (process: string, stage: string): StatusReport['stages'][number] => {
      const found = stages.find((each) => each.process === process && each.stage === stage);
      if (found === undefined) throw new Error(`no stage ${stage}`);
      return found;
    };
    expect(counted('guest-agent', 'store/unencrypted')).toMatchObject({
      forwarded: savedMax,
      dropped: 1,
    });
    const rows = savedMax + 1;
    expect(counted('guest-agent', 'guest-channel')).toMatchObject({ accepted: rows, failed: 0 });
    expect(counted('host-collector', `guest-channel/${vm}`)).toMatchObject({ forwarded: rows });
    const stored = counted('primary-site', 'store');
    expect(stored.forwarded).toBeGreaterThanOrEqual(rows);
    expect(counted('primary-site', 'json-topics').accepted).toBe(stored.forwarded);

    expect(await up.isobar('vm', 'remove', vm)).toMatchObject({ exitCode: 0 });
    const [stream] = await eventually(
      async () => {
        const { streams } = await report();
        return streams[0]?.state === 'ended' ? streams : undefined;
      },
      { timeoutMs: 10_000 },
    );
    expect(stream?.epochs[0]).toMatchObject({ end: 'closed', missingFrames: 0 });
    const shown = await up.isobar('status');
    expect(shown).toMatchObject({ exitCode: 0 });
    expect(shown.stdout).toMatch(new RegExp(`^${vm} +ended .* closed `, 'm'));
  });

  test('a second one on the same data directory is refused with who runs', async () => {
    using directory = temporaryDirectory();
    await using up = await startUp(directory.path);
    const { exitCode, stderr } = await runIsobarProcess(['up', '--data-dir', directory.path]);
    expect(exitCode).toBe(1);
    expect(stderr).toContain(`isobar up is already running here as process ${up.child.pid}`);
    writeFileSync(up.file('users'), '1\n');
    await eventually(async () => (await up.values('users')).length === 1, { timeoutMs: 10_000 });
  });

  test('Ctrl-C during start-up takes effect at once', async () => {
    using directory = temporaryDirectory();
    await using up = await launchUp(directory.path);
    const configPath = join(directory.path, 'config', 'primary-site.json');
    await eventually(() => stat(configPath), { timeoutMs: 20_000 });
    up.child.kill('SIGINT');
    expect(await up.ended).toBe(0);
    expect(up.output).not.toContain('Isobar runs');
    expect(up.leftovers()).toEqual([]);
  });

  test('an agent that can not be kept running ends it with the reason', async () => {
    using directory = temporaryDirectory();
    await using up = await startUp(directory.path);
    const pid = await eventually(() => up.processOf('guest-agent'), { timeoutMs: 10_000 });
    writeFileSync(join(directory.path, 'config', 'guest-agent.json'), '{"mountPath": 7}');
    process.kill(pid, 'SIGKILL');
    expect(await up.ended).toBe(78);
    expect(up.output).toContain('the guest agent refuses its configuration; its log says why');
    expect(up.output).toContain(`its log is ${join(directory.path, 'logs', 'guest-agent.log')}`);
    expect(up.leftovers()).toEqual([]);
  });
});
