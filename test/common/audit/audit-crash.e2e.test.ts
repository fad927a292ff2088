import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';

import { describe, expect, test } from 'vitest';

import { listAuditFiles } from '../../../common/audit/audit-files.ts';
import { AuditLog, auditFileBytesMin } from '../../../common/audit/audit-log.ts';
import { auditCrashPoints } from '../../../common/audit/crash-point.ts';
import { verifyAudit } from '../../../common/audit/verify-audit.ts';
import { silentLog } from '../../../common/runtime/log.ts';
import { compiledEntry } from '../../../common/runtime/package-root.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

/** Runs the writer until it is killed and returns the seq of the last entry that it was told is in the log. */
async function writeUntilKilled(directory: string, ...crash: readonly string[]): Promise<number> {
  const child = spawn(
    process.execPath,
    [compiledEntry('test/support/audit-crash-child.ts'), directory, ...crash],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  let killsAtBytes = crash.length === 0 ? 2_000 : Number.POSITIVE_INFINITY;
  child.stdout.on('data', (chunk: Buffer) => {
    killsAtBytes -= chunk.byteLength;
    if (killsAtBytes <= 0) child.kill('SIGKILL');
  });
  const [output, [, signal]] = await Promise.all([text(child.stdout), once(child, 'exit')]);
  expect(signal).toBe('SIGKILL');
  return Number(output.trimEnd().split('\n').at(-1) ?? 0);
}

async function isobar(...commandLine: readonly string[]) {
  return new Promise<{ exitCode: number; stdout: string; stderr: string }>((resolve) => {
    execFile(
      process.execPath,
      [compiledEntry('cli/main.ts'), ...commandLine],
      (error, stdout, stderr) => {
        resolve({ exitCode: typeof error?.code === 'number' ? error.code : 0, stdout, stderr });
      },
    );
  });
}

describe('the audit log of a killed process', () => {
  test.each(
    auditCrashPoints.flatMap((point) =>
      [1, 2, 7].map((occurrence) => [point, occurrence] as const),
    ),
  )('is whole after kill -9 at %s, time %i, and goes on', async (point, occurrence) => {
    using directory = temporaryDirectory();
    const told = await writeUntilKilled(directory.path, point, String(occurrence));
    const verdict = await verifyAudit(directory.path);
    expect(verdict.finding).toBeUndefined();
    expect(verdict.head.seq).toBeGreaterThanOrEqual(told);
    const next = await writeUntilKilled(directory.path, 'after-write', '3');
    expect(next).toBe(verdict.head.seq + 2);
    const after = await verifyAudit(directory.path);
    expect(after.finding).toBeUndefined();
    expect(after.notes.filter(({ action }) => action !== 'audit.begun')).toEqual([]);
  });

  test('is whole after kill -9 at any time, again and again', async () => {
    using directory = temporaryDirectory();
    let told = 0;
    for (let round = 0; round < 5; round += 1) {
      told = Math.max(told, await writeUntilKilled(directory.path));
      const verdict = await verifyAudit(directory.path);
      expect(verdict.finding).toBeUndefined();
      expect(verdict.head.seq).toBeGreaterThanOrEqual(told);
    }
    expect(listAuditFiles(directory.path).length).toBeLessThanOrEqual(4);
  });
});

async function writeLog(directory: string, count: number) {
  const clock = new ManualClock();
  const log = new AuditLog(
    { clock, log: silentLog },
    { directory, fileBytesMax: auditFileBytesMin, filesMax: 10, sync: 1_000 },
  );
  await log.start();
  for (let number = 1; number <= count; number += 1) {
    log.append({
      relation: number % 2 === 0 ? 'a-b' : 'a-c',
      direction: number % 2 === 0 ? 'in' : 'out',
      action: 'POST /v1/subscriptions',
      object: 'standing all',
      outcome: 'subscribed',
      requestDigest: null,
    });
    await clock.advance(1_000);
  }
  await log.stop();
  return log.head;
}

describe('isobar audit', () => {
  test('show prints entries as lines and as JSON, by time and by neighbour', async () => {
    using directory = temporaryDirectory();
    await writeLog(join(directory.path, 'audit'), 4);
    const all = await isobar('audit', 'show', '--data-dir', directory.path);
    expect(all).toMatchObject({ exitCode: 0, stderr: '' });
    expect(all.stdout).toContain(
      '2023-11-14T22:13:20.000Z  2  -> a-c  POST /v1/subscriptions  subscribed  standing all\n',
    );
    expect(all.stdout.trimEnd().split('\n')).toHaveLength(5);
    const some = await isobar(
      'audit',
      'show',
      '--directory',
      join(directory.path, 'audit'),
      '--json',
      '--relation',
      'a-b',
      '--since',
      '2023-11-14T22:13:22Z',
    );
    const entries = some.stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as object);
    expect(entries).toMatchObject([{ seq: 5, relation: 'a-b', direction: 'in' }]);
    const [file] = listAuditFiles(join(directory.path, 'audit'));
    expect(readFileSync(file?.path ?? '', 'utf8')).toContain(some.stdout);
  });

  test('verify exits with 0 for a whole log, and with 1 and the place where a byte was altered', async () => {
    using directory = temporaryDirectory();
    const head = await writeLog(directory.path, 100);
    const whole = await isobar('audit', 'verify', '--directory', directory.path);
    expect(whole).toMatchObject({ exitCode: 0, stderr: '' });
    expect(whole.stdout).toContain(`head   101:${head.hash}`);
    expect(whole.stdout).toContain('begun  2023-11-14T22:13:20.000Z');
    const path = listAuditFiles(directory.path)[1]?.path ?? '';
    const bytes = readFileSync(path);
    const at = bytes.indexOf('\n') + 30;
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    writeFileSync(path, bytes);
    const broken = await isobar('audit', 'verify', '--directory', directory.path);
    expect(broken.exitCode).toBe(1);
    expect(broken.stdout).toMatch(
      /^broken {2}audit-\d{15}\.jsonl line 2 \(byte \d+\), entry \d+\n {2}the line was altered/,
    );
    const json = await isobar('audit', 'verify', '--directory', directory.path, '--json');
    expect(json.exitCode).toBe(1);
    expect(JSON.parse(json.stdout)).toMatchObject({ isWhole: false, finding: { lineNumber: 2 } });
    expect((await isobar('audit', 'show', '--directory', directory.path)).exitCode).toBe(1);
  });

  test('verify --expect-head finds a tail that was cut off together with its note', async () => {
    using directory = temporaryDirectory();
    const head = await writeLog(directory.path, 5);
    const [file] = listAuditFiles(directory.path);
    const lines = readFileSync(file?.path ?? '', 'utf8').split('\n');
    truncateSync(file?.path ?? '', lines.slice(0, 3).join('\n').length + 1);
    const [, hash] = /"hash":"([0-9a-f]{64})"/.exec(lines[2] ?? '') ?? [];
    writeFileSync(join(directory.path, 'audit-head.json'), JSON.stringify({ seq: 3, hash }));
    const fooled = await isobar('audit', 'verify', '--directory', directory.path);
    expect(fooled.exitCode).toBe(0);
    const expected = `${head.seq}:${head.hash}`;
    const told = await isobar(
      'audit',
      'verify',
      '--directory',
      directory.path,
      '--expect-head',
      expected,
    );
    expect(told.exitCode).toBe(1);
    expect(told.stdout).toContain('entries 4 to 6 are missing: the expected head is entry 6');
  });

  test('says what to do when there is no log, or no head', async () => {
    using directory = temporaryDirectory();
    const missing = await isobar('audit', 'show', '--data-dir', directory.path);
    expect(missing.exitCode).toBe(1);
    expect(missing.stderr).toContain('there is no audit log in');
    const unverified = await isobar('audit', 'verify', '--data-dir', directory.path);
    expect(unverified.exitCode).toBe(1);
    expect(unverified.stdout).toContain('there is no entry');
    const wrong = await isobar('audit', 'verify', '--expect-head', 'abc');
    expect(wrong.exitCode).toBe(2);
  });
});
