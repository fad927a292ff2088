import {
  copyFileSync,
  cpSync,
  existsSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';

import { assert, asyncProperty, constantFrom, integer, nat, string } from 'fast-check';
import { describe, expect, test } from 'vitest';

import { encodeEntry, genesis, type AuditEvent } from '../../../common/audit/audit-entry.ts';
import { listAuditFiles } from '../../../common/audit/audit-files.ts';
import {
  AuditLog,
  auditFileBytesMin,
  auditLogDefault,
  type AuditLogOptions,
} from '../../../common/audit/audit-log.ts';
import { verifyAudit } from '../../../common/audit/verify-audit.ts';
import { silentLog } from '../../../common/runtime/log.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

function eventOf(number: number, object = `object ${number}`): AuditEvent {
  return {
    relation: number % 2 === 0 ? 'a-b' : 'a-c',
    direction: 'in',
    action: 'POST /v1/subscriptions',
    object,
    outcome: 'subscribed',
    requestDigest: null,
  };
}

async function openLog(
  directory: string,
  options: Partial<AuditLogOptions> = {},
  clock = new ManualClock(),
) {
  const log = new AuditLog(
    { clock, log: silentLog },
    { ...auditLogDefault, directory, fileBytesMax: auditFileBytesMin, ...options },
  );
  await log.start();
  return log;
}

/** A log of `count` entries, after the first one that it writes itself, that was closed in order. */
async function writeLog(directory: string, count: number, options: Partial<AuditLogOptions> = {}) {
  const log = await openLog(directory, options);
  for (let number = 1; number <= count; number += 1) log.append(eventOf(number));
  await log.stop();
  return log.head;
}

const filesOf = (directory: string) => listAuditFiles(directory).map(({ path }) => path);

describe('AuditLog', () => {
  test('the chain goes on over files and restarts', async () => {
    using directory = temporaryDirectory();
    await writeLog(directory.path, 100);
    const head = await writeLog(directory.path, 100);
    expect(filesOf(directory.path).length).toBeGreaterThan(3);
    for (const path of filesOf(directory.path)) {
      expect(statSync(path).size).toBeLessThanOrEqual(auditFileBytesMin);
      expect(statSync(path).mode & 0o777).toBe(0o600);
    }
    expect(await verifyAudit(directory.path)).toMatchObject({
      entryCount: 201,
      head,
      finding: undefined,
    });
  });

  test('old files are removed, and the log says so itself', async () => {
    using directory = temporaryDirectory();
    await writeLog(directory.path, 400, { filesMax: 3 });
    const files = filesOf(directory.path);
    expect(files).toHaveLength(3);
    expect(await verifyAudit(directory.path)).toMatchObject({ finding: undefined });
    rmSync(files[0] ?? '');
    expect((await verifyAudit(directory.path)).finding?.problem).toMatch(
      /entries 1 to \d+ are missing, and no later entry says/,
    );
  });

  test('any text fits, cut to its bound, and reads back', async () => {
    using directory = temporaryDirectory();
    const log = await openLog(directory.path);
    await assert(
      asyncProperty(string({ unit: 'binary', maxLength: 2_000 }), async (text) => {
        const entry = log.append(eventOf(1, text));
        expect(entry.object.length).toBeLessThanOrEqual(512);
        expect(text.startsWith(entry.object.replace(/…$/, '')) || entry.object === text).toBe(true);
      }),
      { numRuns: 200 },
    );
    await log.stop();
    expect(await verifyAudit(directory.path)).toMatchObject({
      entryCount: 201,
      finding: undefined,
    });
  });

  test('is noted on disk within the interval, and at once where that is asked for', async () => {
    using directory = temporaryDirectory();
    const log = await openLog(directory.path, { sync: 'every-entry' });
    log.append(eventOf(1));
    expect(readFileSync(join(directory.path, 'audit-head.json'), 'utf8')).toContain('"seq":2');
    await log.stop();
  });

  test('a second writer is noticed before it breaks the chain', async () => {
    using directory = temporaryDirectory();
    const first = await openLog(directory.path);
    first.append(eventOf(1));
    const second = await openLog(directory.path);
    second.append(eventOf(2));
    expect(() => first.append(eventOf(3))).toThrow(/only one process may/);
    second.append(eventOf(4));
    await second.stop();
    expect(await verifyAudit(directory.path)).toMatchObject({ entryCount: 4, finding: undefined });
    await expect(first.stop()).resolves.toBeUndefined();
  });
});

describe('a torn last line', () => {
  test.each([1, 20, 200])('of %i bytes is found, set aside and told', async (tornBytes) => {
    using directory = temporaryDirectory();
    const head = await writeLog(directory.path, 5);
    const [path = ''] = filesOf(directory.path);
    const { line } = encodeEntry(eventOf(6), head, 0);
    writeFileSync(path, line.subarray(0, tornBytes), { flag: 'a' });
    expect(await verifyAudit(directory.path)).toMatchObject({
      finding: undefined,
      tornLine: { lineNumber: 7 },
    });
    await writeLog(directory.path, 1);
    expect(await verifyAudit(directory.path)).toMatchObject({
      entryCount: 8,
      finding: undefined,
      tornLine: undefined,
    });
    const torn = readdirSync(directory.path).filter((name) => name.startsWith('torn-'));
    expect(torn.map((name) => statSync(join(directory.path, name)).size)).toEqual([tornBytes]);
    expect(readFileSync(path, 'utf8')).toContain(`"audit.torn","object":"${tornBytes} bytes`);
  });

  test('as the first of a new file is set aside too', async () => {
    using directory = temporaryDirectory();
    await writeLog(directory.path, 100);
    const path = filesOf(directory.path).at(-1) ?? '';
    // As if the power had gone right after the rotation.
    const firstLine = readFileSync(path, 'utf8').split('\n')[0] ?? '';
    const firstSeq = Number(/"seq":(\d+)/.exec(firstLine)?.[1]);
    const previous = /"previous":"([0-9a-f]{64})"/.exec(firstLine)?.[1];
    truncateSync(path, 10);
    writeFileSync(
      join(directory.path, 'audit-head.json'),
      JSON.stringify({ seq: firstSeq - 1, hash: previous }),
    );
    await writeLog(directory.path, 1);
    expect(await verifyAudit(directory.path)).toMatchObject({
      entryCount: firstSeq + 1,
      finding: undefined,
    });
  });
});

describe('verifyAudit', () => {
  test('any altered byte is found, at its line', async () => {
    using directory = temporaryDirectory();
    await writeLog(directory.path, 120);
    const files = filesOf(directory.path);
    const texts = files.map((path) => readFileSync(path));
    await assert(
      asyncProperty(
        nat(files.length - 1),
        nat(1_000_000),
        integer({ min: 1, max: 255 }),
        async (fileIndex, offset, mask) => {
          const path = files[fileIndex] ?? '';
          const bytes = Buffer.from(texts[fileIndex] ?? Buffer.alloc(0));
          const at = offset % bytes.byteLength;
          const lineNumber = bytes.subarray(0, at).toString('latin1').split('\n').length;
          bytes[at] = (bytes[at] ?? 0) ^ mask;
          writeFileSync(path, bytes);
          const { finding } = await verifyAudit(directory.path);
          writeFileSync(path, texts[fileIndex] ?? '');
          // Without the newest line's end it may still be being written: then the noted head tells.
          const isEnd = fileIndex === files.length - 1 && at === bytes.byteLength - 1;
          const place = isEnd ? [null, null] : [path.slice(directory.path.length + 1), lineNumber];
          expect([finding?.file, finding?.lineNumber]).toEqual(place);
        },
      ),
      { numRuns: 150 },
    );
    expect((await verifyAudit(directory.path)).finding).toBeUndefined();
  });

  test('an entry that was removed, inserted, repeated or moved is found, whatever the place', async () => {
    using directory = temporaryDirectory();
    await writeLog(directory.path, 60);
    const path = filesOf(directory.path)[0] ?? '';
    const lines = readFileSync(path, 'utf8').trimEnd().split('\n');
    await assert(
      asyncProperty(
        nat(lines.length - 1),
        nat(lines.length - 1),
        constantFrom('remove', 'repeat', 'move', 'insert'),
        async (from, to, what) => {
          const altered = [...lines];
          const [line = ''] =
            what === 'remove' || what === 'move' ? altered.splice(from, 1) : [lines[from] ?? ''];
          const forged = encodeEntry(eventOf(1), genesis, 0).line.toString().trimEnd();
          if (what !== 'remove') altered.splice(to, 0, what === 'insert' ? forged : line);
          if (altered.join() === lines.join()) return;
          writeFileSync(path, `${altered.join('\n')}\n`);
          const { finding } = await verifyAudit(directory.path);
          expect(finding).toBeDefined();
          // Each line is whole, so it is the chain that tells; the first line that is out of place is named.
          const firstWrong = altered.findIndex((each, index) => each !== lines[index]);
          // A forged entry 1 is a good beginning; what follows shows that it is not.
          const isBeginning = what === 'insert' && to === 0;
          const isHere = finding?.file === path.slice(directory.path.length + 1);
          const expected = firstWrong < 0 ? null : firstWrong + (isBeginning ? 2 : 1);
          expect(isHere ? finding.lineNumber : null).toBe(expected);
        },
      ),
      { numRuns: 150 },
    );
    writeFileSync(path, `${lines.join('\n')}\n`);
    expect((await verifyAudit(directory.path)).finding).toBeUndefined();
  });

  test('a log that was removed with its noted head is found: by its absence, and by the time at which the next one begins', async () => {
    using parent = temporaryDirectory();
    const directory = join(parent.path, 'audit');
    expect((await verifyAudit(directory)).finding?.problem).toContain('there is no entry');
    await writeLog(directory, 5);
    for (const name of readdirSync(directory)) rmSync(join(directory, name));
    expect((await verifyAudit(directory)).finding?.problem).toContain('there is no entry');
    const later = new ManualClock(1_800_000_000_000_000);
    await (await openLog(directory, {}, later)).stop();
    expect(await verifyAudit(directory)).toMatchObject({
      finding: undefined,
      notes: [{ seq: 1, atUs: later.wallUs(), action: 'audit.begun' }],
    });
  });

  test('a chain that someone computed anew is found by a head that was kept elsewhere', async () => {
    using directory = temporaryDirectory();
    const kept = await writeLog(directory.path, 5);
    await writeLog(directory.path, 5);
    expect((await verifyAudit(directory.path, kept)).finding).toBeUndefined();
    using forged = temporaryDirectory();
    const log = await openLog(forged.path);
    for (let number = 1; number <= 10; number += 1) log.append(eventOf(number, 'nothing'));
    await log.stop();
    expect((await verifyAudit(forged.path)).finding).toBeUndefined();
    expect((await verifyAudit(forged.path, kept)).finding).toMatchObject({
      lineNumber: 6,
      problem: 'entry 6 is not the one of the expected head',
    });
  });

  test.each<[string, (directory: string, files: readonly string[]) => void, RegExp]>([
    [
      'a file is removed',
      (_directory, files) => {
        rmSync(files[1] ?? '');
      },
      /entries \d+ to \d+ are missing/,
    ],
    [
      'two files change places',
      (directory, files) => {
        const aside = join(directory, 'aside');
        renameSync(files[1] ?? '', aside);
        renameSync(files[2] ?? '', files[1] ?? '');
        renameSync(aside, files[2] ?? '');
      },
      /begins with entry \d+, and is named for/,
    ],
    [
      'a file is copied',
      (directory, files) => {
        copyFileSync(files[0] ?? '', join(directory, 'audit-000000000000999.jsonl'));
      },
      /named for 999/,
    ],
    [
      'the tail is cut off at a line',
      (_directory, files) => {
        const path = files.at(-1) ?? '';
        const text = readFileSync(path, 'utf8');
        truncateSync(path, text.lastIndexOf('\n', text.length - 2) + 1);
      },
      /entries 121 to 121 are missing: the noted head is entry 121/,
    ],
    [
      'the tail is cut off within a line',
      (_directory, files) => {
        const path = files.at(-1) ?? '';
        truncateSync(path, statSync(path).size - 3);
      },
      /entries 121 to 121 are missing/,
    ],
    [
      'the last file is removed',
      (_directory, files) => {
        rmSync(files.at(-1) ?? '');
      },
      /are missing: the noted head/,
    ],
    [
      'all files are removed',
      (_directory, files) => {
        for (const path of files) rmSync(path);
      },
      /entries 1 to 121 are missing/,
    ],
    [
      'the noted head is removed',
      (directory) => {
        rmSync(join(directory, 'audit-head.json'));
      },
      /the noted head is missing/,
    ],
    [
      'the noted head is damaged',
      (directory) => {
        writeFileSync(join(directory, 'audit-head.json'), '{');
      },
      /the noted head is damaged/,
    ],
  ])('it is found that %s, and a restart does not cover it up', async (_name, alter, problem) => {
    using directory = temporaryDirectory();
    await writeLog(directory.path, 120);
    const files = filesOf(directory.path);
    expect(files.length).toBeGreaterThan(2);
    alter(directory.path, files);
    expect((await verifyAudit(directory.path)).finding?.problem).toMatch(problem);
    const head = await writeLog(directory.path, 1);
    const after = await verifyAudit(directory.path);
    const said = filesOf(directory.path)
      .map((path) => readFileSync(path, 'utf8'))
      .join('');
    // Either it still shows, or the log itself says from now on what was found.
    expect(after.finding !== undefined || /"audit\.(?:anchor|chain-broken)"/.test(said)).toBe(true);
    expect(head.seq).toBeGreaterThan(121);
  });

  test('what was cut off since the head was last noted is not found: the tail of an unsynced interval', async () => {
    using directory = temporaryDirectory();
    using copy = temporaryDirectory();
    const log = await openLog(directory.path);
    log.append(eventOf(1));
    cpSync(directory.path, copy.path, { recursive: true });
    await log.stop();
    const [path = ''] = filesOf(copy.path);
    truncateSync(path, readFileSync(path, 'utf8').indexOf('\n') + 1);
    expect(existsSync(join(copy.path, 'audit-head.json'))).toBe(true);
    expect((await verifyAudit(copy.path)).finding).toBeUndefined();
  });
});
