import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { Hono } from 'hono';
import { stream } from 'hono/streaming';
import { describe, expect, test } from 'vitest';

import { locateDataDirectory } from '../../../cli/data-directory.ts';
import { machineDescriptor } from '../../../cli/up/machine-descriptor.ts';
import type { Reading } from '../../../common/control/reader-answer.ts';
import { OperatingError } from '../../../common/runtime/operating-error.ts';
import type { VmDescriptor } from '../../../common/wire/vm-descriptor.ts';
import { runIsobar } from '../../support/command-line.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { withInstance } from '../../support/served-instance.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const timeUs = Date.parse('2026-03-04T05:06:07.008Z') * 1_000;

function reading(position: number, change: Partial<Reading> = {}): Reading {
  return {
    position,
    vm: 'vm1',
    dataPoint: 'kpi/users/column1',
    timeUs: timeUs + position * 1_000_000,
    uncertaintyUs: 0,
    value: 42,
    held: false,
    specifierId: 'kpi',
    format: 'raw',
    window: null,
    revision: 0,
    count: null,
    skippedCount: null,
    heldCount: null,
    relativeErrorMax: 0,
    predicateState: null,
    ...change,
  };
}

function answer(document: object): Hono {
  return new Hono().get('/v1/status', (context) => context.json(document));
}

/** What each line says in brackets. */
function origins(lines: readonly string[]): readonly string[] {
  return lines.map((line) => /\(.*\)$/.exec(line)?.[0] ?? '');
}

describe('isobar watch', () => {
  test('shows a value with its time, and every later one live', async () => {
    const app = new Hono().get('/v1/watch', (context) =>
      stream(context, async (output) => {
        await output.writeln(JSON.stringify(reading(1)));
        await output.writeln(
          JSON.stringify(reading(2, { value: { integer: '9007199254740993' } })),
        );
        await new Promise(() => {});
      }),
    );
    await withInstance({ primarySite: app }, async (run) => {
      const result = await run(['watch'], { interruptAfterLines: 2 });
      expect(result).toMatchObject({
        exitCode: 0,
        lines: [
          '2026-03-04T05:06:08.008Z  vm1 kpi/users/column1  42',
          '2026-03-04T05:06:09.008Z  vm1 kpi/users/column1  9007199254740993',
        ],
      });
    });
  });

  test('passes pattern, --vm and --since on; --json prints one document a line', async () => {
    const queries: Record<string, string>[] = [];
    const app = new Hono().get('/v1/watch', (context) => {
      queries.push(context.req.query());
      return context.text(`${JSON.stringify(reading(7))}\n`);
    });
    const clock = new ManualClock(timeUs);
    await withInstance({ primarySite: app }, async (run) => {
      const { lines } = await run(
        ['watch', 'kpi/users/*', '--vm', 'vm1', '--since', '10m', '--json'],
        { interruptAfterLines: 1, clock },
      );
      expect(lines.map((line): unknown => JSON.parse(line))).toEqual([reading(7)]);
    });
    expect(queries).toEqual([
      { pattern: 'kpi/users/*', vm: 'vm1', sinceUs: String(timeUs - 600_000_000) },
    ]);
  });

  test('after a restart of the reader it goes on behind the last position', async () => {
    const positions: (string | undefined)[] = [];
    const app = new Hono().get('/v1/watch', (context) => {
      const after = context.req.query('after');
      positions.push(after);
      // One line for each connection, which then ends.
      return context.text(`${JSON.stringify(reading(Number(after ?? 0) + 1))}\n`);
    });
    await withInstance({ primarySite: app }, async (run) => {
      const { lines, remarks } = await run(['watch'], { interruptAfterLines: 3 });
      expect(lines).toHaveLength(3);
      expect(remarks[0]).toContain('connection to the reader lost');
      expect(remarks[1]).toContain('nothing was missed');
    });
    expect(positions).toEqual([undefined, '1', '2']);
  });

  test('a restart before the first reading: it goes on where the first connection began', async () => {
    const positions: (string | undefined)[] = [];
    const app = new Hono().get('/v1/watch', (context) => {
      const after = context.req.query('after');
      positions.push(after);
      context.header('isobar-position', String(after ?? 5));
      // The first connection ends without a reading.
      return context.text(after === undefined ? '' : `${JSON.stringify(reading(6))}\n`);
    });
    await withInstance({ primarySite: app }, async (run) => {
      const { lines } = await run(['watch'], { interruptAfterLines: 1 });
      expect(lines).toHaveLength(1);
    });
    expect(positions).toEqual([undefined, '5']);
  });

  test('processed, held and revised values say how they came about', async () => {
    const app = new Hono().get('/v1/watch', (context) =>
      context.text(
        [
          reading(1, { format: 'mean', count: 12, revision: 1, value: 0.5 }),
          reading(3, {
            format: 'mean',
            count: 3,
            skippedCount: 2,
            window: { startMs: 0, endMs: 1_000 },
          }),
          reading(4, { predicateState: 'entering' }),
          reading(5, { format: 'median', count: 9, heldCount: 4, relativeErrorMax: 0.0078125 }),
          reading(2, { held: true, dataPoint: 'infra/memory/used_bytes', value: 2_048 }),
        ]
          .map((each) => `${JSON.stringify(each)}\n`)
          .join(''),
      ),
    );
    await withInstance({ primarySite: app }, async (run) => {
      const { lines } = await run(['watch', '--vm', 'vm1'], { interruptAfterLines: 5 });
      expect(lines[0]).toMatch(/0\.5 {2}\(mean of 12, revision 1\)$/);
      expect(lines[1]).toContain(
        '(mean of 3, skipped 2, [1970-01-01T00:00:00.000Z, 1970-01-01T00:00:01.000Z))',
      );
      expect(lines[2]).toMatch(/\(entering\)$/);
      expect(lines[3]).toMatch(/\(median of 9, within 0\.8 %, held 4\)$/);
      expect(lines[4]).toMatch(/2048 {2}\(held\)$/);
    });
  });

  test('lines name the specifier only where several deliver the data point', async () => {
    const readings = [
      reading(1, { specifierId: 'each' }),
      reading(2, { specifierId: 'each', dataPoint: 'kpi/load/cpu' }),
      reading(3, { specifierId: 'hourly' }),
      reading(4, { specifierId: 'each' }),
      reading(5, { specifierId: 'other', vm: 'vm2', dataPoint: 'kpi/load/cpu' }),
    ];
    const app = new Hono()
      .get('/v1/query', (context) => context.json({ readings, isTruncated: false }))
      .get('/v1/watch', (context) =>
        context.text(readings.map((each) => `${JSON.stringify(each)}\n`).join('')),
      );
    await withInstance({ primarySite: app }, async (run) => {
      const stored = await run(['query']);
      expect(origins(stored.lines)).toEqual(['(by each)', '', '(by hourly)', '(by each)', '']);
      const watched = await run(['watch'], { interruptAfterLines: 5 });
      expect(origins(watched.lines)).toEqual(['', '', '(by hourly)', '(by each)', '']);
    });
  });

  test('where nothing runs it says how to start it', async () => {
    await withInstance({}, async (run, directory) => {
      const { exitCode, remarks } = await run(['watch']);
      expect(exitCode).toBe(1);
      expect(remarks).toEqual([
        expect.stringMatching(/^error: the reader .* is not running .*; start it with: isobar up/),
      ]);
      expect(remarks[0]).toContain(directory);
      expect(remarks[0]).not.toContain('    at ');
    });
  });

  test.each([
    [['watch', 'users'], "no data point can match 'users'"],
    [['watch', '/srv/mount/unencrypted/app/users'], 'kpi/app%2Fusers/*'],
    [['watch', '--since', 'yesterday'], "'yesterday' is no time"],
    [['query', '--limit', '0'], '--limit takes a whole number from 1'],
    [['wach'], 'Did you mean watch?'],
    [['watch', '--jsn'], 'Did you mean --json?'],
    [['vm', 'show'], "missing required argument 'vm'"],
  ])('%j is wrong usage: exit code 2 and what would be right', async (commandLine, message) => {
    const { exitCode, remarks, lines } = await runIsobar(commandLine);
    expect(exitCode).toBe(2);
    expect(remarks.join('\n')).toContain(message);
    expect(lines).toEqual([]);
  });
});

describe('isobar query', () => {
  test('prints what is stored, and says when there is more', async () => {
    const app = new Hono().get('/v1/query', (context) =>
      context.json({ readings: [reading(1), reading(2)], isTruncated: true }),
    );
    await withInstance({ primarySite: app }, async (run) => {
      const { lines, remarks } = await run(['query', 'kpi/**', '--limit', '2']);
      expect(lines).toHaveLength(2);
      expect(remarks).toEqual([expect.stringContaining('there are more than 2')]);
    });
  });

  test('passes pattern, --vm, --since, --until and --limit on', async () => {
    const queries: Record<string, string>[] = [];
    const app = new Hono().get('/v1/query', (context) => {
      queries.push(context.req.query());
      return context.json({ readings: [], isTruncated: false });
    });
    await withInstance({ primarySite: app }, async (run) => {
      const times = ['--since', '2026-01-01', '--until', '2026-02-01T00:00Z'];
      const { exitCode, remarks } = await run([
        'query',
        'kpi/users/*',
        '--vm',
        'vm1',
        '--limit',
        '7',
        ...times,
      ]);
      expect({ exitCode, remarks }).toEqual({ exitCode: 0, remarks: ['nothing stored matches'] });
    });
    const [sinceUs, untilUs] = ['2026-01-01T00:00Z', '2026-02-01T00:00Z'].map((time) =>
      String(Date.parse(time) * 1_000),
    );
    expect(queries).toEqual([{ pattern: 'kpi/users/*', vm: 'vm1', limit: '7', sinceUs, untilUs }]);
  });
});

describe('isobar status', () => {
  const stages = {
    stages: { capture: { accepted: 1_234, forwarded: 1_234, dropped: 0, failed: 1, lagMs: 4.2 } },
  };
  const up = {
    dataDirectory: '/data',
    mount: '/data/mount',
    mqttUrl: 'mqtt://127.0.0.1:1883',
    isPrivateMount: false,
    processes: [{ name: 'guest-agent', pid: 17, startedAtUs: timeUs, restartCount: 0 }],
  };
  test("each stage's accepted, forwarded, dropped, failed, lag", async () => {
    const apps = {
      up: answer(up),
      primarySite: answer({ stages: {} }),
      hostCollector: new Hono().get('/v1/status', (context) =>
        context.json({
          stages: { 'origin/vm1': stages.stages.capture },
          vms: [{ vm: 'vm1', revision: 2, vmState: 'running', origin: stages.stages.capture }],
        }),
      ),
      guestAgent: answer(stages),
    };
    await withInstance(apps, async (run) => {
      const clock = new ManualClock(timeUs + 5_000_000);
      const { exitCode, lines } = await run(['status'], { clock });
      expect(exitCode).toBe(0);
      expect(lines).toContain('PROCESS      PID    STARTED  RESTARTS');
      expect(lines).toContain('guest-agent   17  5.0 s ago         0');
      expect(lines).toContain('vm1  running         2');
      expect(lines).toContain(
        'guest-agent     capture        1,234      1,234        0       1  4 ms',
      );
      const json = await run(['status', '--json']);
      const report = JSON.parse(json.lines[0]!) as { readonly stages: readonly unknown[] };
      expect(report.stages).toHaveLength(2);
      expect(report).toMatchObject({
        up: { mount: '/data/mount' },
        vms: [{ vm: 'vm1', state: 'running', revision: 2 }],
        stages: [
          { process: 'guest-agent', stage: 'capture', accepted: 1_234, lagMs: 4.2 },
          { process: 'host-collector', stage: 'origin/vm1' },
        ],
        problems: [],
      });
    });
  });

  test('fetches over a guest channel that keep failing: which VM, since when, why, with exit code 1', async () => {
    const guestTrouble = {
      sinceUs: timeUs,
      reason: 'the database is locked\u001B[2J',
      failureCount: 41,
    };
    const vm = { revision: 1, vmState: 'running', origin: stages.stages.capture };
    const apps = {
      up: answer(up),
      primarySite: answer({ stages: {} }),
      hostCollector: answer({
        vms: [
          { ...vm, vm: 'vm1', guestTrouble },
          { ...vm, vm: 'vm2', guestTrouble: null },
        ],
      }),
      guestAgent: answer(stages),
    };
    await withInstance(apps, async (run) => {
      const clock = new ManualClock(timeUs + 240_000_000);
      const { exitCode, remarks } = await run(['status'], { clock });
      expect({ exitCode, remarks }).toEqual({
        exitCode: 1,
        remarks: [
          'the guest channel of vm1 keeps failing since 2026-03-04T05:06:07.008Z (4 min ago, 41 times in a row): ' +
            String.raw`the database is locked\u001b[2J; rows stay in the guest until it works`,
        ],
      });
      const json = await run(['status', '--json'], { clock });
      expect(json.exitCode).toBe(1);
      expect(JSON.parse(json.lines[0] ?? '')).toMatchObject({ vms: [{ guestTrouble }, {}] });
    });
  });

  test('a part that does not answer is reported beside the others, with exit code 1', async () => {
    await withInstance({ up: answer(up), guestAgent: answer(stages) }, async (run) => {
      const { exitCode, lines, remarks } = await run(['status']);
      expect(exitCode).toBe(1);
      expect(lines.join('\n')).toContain('capture');
      expect(remarks.join('\n')).toContain('the host collector is not running');
    });
  });
});

describe('--json', () => {
  const guest = { stages: {}, mount: '/mnt', databases: [], held: [], quarantine: [] };
  const vm = machineDescriptor('vm1', '/run/vm1.sock');
  const apps = {
    primarySite: new Hono()
      .get('/v1/query', (context) => context.json({ readings: [reading(1)], isTruncated: false }))
      .get('/v1/watch', (context) => context.text(`${JSON.stringify(reading(1))}\n`))
      .get('/v1/status', (context) => context.json({ isLive: true, vms: [], stages: {} })),
    hostCollector: new Hono()
      .get('/v1/vms', (context) => context.json({ vms: [vm] }))
      .get('/v1/vms/vm1', (context) => context.json(vm)),
    guestAgent: answer(guest),
  };

  test.each([
    [['watch'], reading(1)],
    [['query'], reading(1)],
    [['status'], expect.objectContaining({ vms: [], stages: [] })],
    [['vm', 'list'], vm],
    [['vm', 'show', 'vm1'], vm],
    [['guest', 'status'], guest],
    [['config', 'check', '--as', 'vm', '-'], { file: '-', problems: [] }],
  ])('%j --json prints one JSON document a line, and nothing else', async (command, document) => {
    await withInstance(apps, async (run) => {
      const { lines } = await run([...command, '--json'], {
        interruptAfterLines: 1,
        standardInput: JSON.stringify(vm),
      });
      expect(lines.map((line): unknown => JSON.parse(line))).toEqual([document]);
    });
  });
});

test('guest status reaches an agent that runs alone, by its configuration', async () => {
  using directory = temporaryDirectory();
  const controlSocket = join(directory.path, 'agent.sock');
  const config = join(directory.path, 'agent.json');
  writeFileSync(config, JSON.stringify({ dataDirectory: directory.path, controlSocket }));
  const { remarks, exitCode } = await runIsobar(['guest', 'status', '--config', config]);
  expect(exitCode).toBe(1);
  expect(remarks.join('\n')).toContain(`isobar guest run --config ${config}`);
  const guest = { stages: {}, mount: '/mnt', databases: [], held: [], quarantine: [] };
  await withInstance({ guestAgent: answer(guest) }, async (_run, instance) => {
    const { sockets } = locateDataDirectory(instance, {}, 0);
    writeFileSync(
      config,
      JSON.stringify({ dataDirectory: directory.path, controlSocket: sockets.guestAgent }),
    );
    const shown = await runIsobar(['guest', 'status', '--config', config]);
    expect(shown.lines[0]).toBe('mount  /mnt');
  });
});

describe('isobar vm', () => {
  const descriptor = machineDescriptor('vm1', '/run/vm1.sock');

  /** A collector with one VM that compares and sets as the real one does. */
  function collector(changes: unknown[]): Hono {
    const app = new Hono();
    app.get('/v1/vms', (context) => context.json({ vms: [descriptor] }));
    app.get('/v1/vms/vm1', (context) => context.json(descriptor));
    app.put('/v1/vms/vm1/monitoring', async (context) => {
      const change: { revision: number } = await context.req.json();
      changes.push(change);
      if (change.revision !== descriptor.revision) {
        throw new OperatingError(
          'revision-conflict',
          `vm1 is at revision 1, not ${change.revision}: show it again and repeat your change`,
        );
      }
      return context.json({ ...descriptor, revision: 2 });
    });
    return app;
  }

  test('list is a table, --json one document a line', async () => {
    await withInstance({ hostCollector: collector([]) }, async (run) => {
      expect((await run(['vm', 'list'])).lines).toEqual([
        'VM   REVISION  PROBE    GUEST               SPECIFIERS',
        'vm1         1  machine  unix:/run/vm1.sock           3',
      ]);
      const { lines } = await run(['vm', 'list', '--json']);
      expect(lines.map((line): unknown => JSON.parse(line))).toEqual([descriptor]);
    });
  });

  test('a VM that is set aside is listed and in status with why and what to do', async () => {
    const reason = 'VM vm2 is set aside: remove it with isobar vm remove vm2 and add it again';
    const app = new Hono();
    const refused = [{ vm: 'vm2', revision: 1, reason }];
    const origin = { accepted: 0, forwarded: 0, dropped: 0, failed: 0, lagMs: null };
    const vms = [{ vm: 'vm2', revision: 1, vmState: 'set-aside', problem: reason, origin }];
    app.get('/v1/vms', (context) => context.json({ vms: [], refused }));
    app.get('/v1/status', (context) => context.json({ vms }));
    await withInstance({ hostCollector: app }, async (run) => {
      expect(await run(['vm', 'list'])).toMatchObject({ exitCode: 0, remarks: [reason] });
      const { exitCode, lines, remarks } = await run(['status']);
      expect(exitCode).toBe(1);
      expect(lines.join('\n')).toMatch(/vm2 +set-aside/);
      expect(remarks).toContain(reason);
    });
  });

  test('set-monitoring sends what show printed, with its revision', async () => {
    const changes: { revision: number; monitoring: VmDescriptor['monitoring'] }[] = [];
    await withInstance({ hostCollector: collector(changes) }, async (run) => {
      const shown = await run(['vm', 'show', 'vm1']);
      const standardInput = shown.lines.join('\n');
      const { exitCode, remarks } = await run(['vm', 'set-monitoring', 'vm1', '-'], {
        standardInput,
      });
      expect({ exitCode, remarks }).toEqual({ exitCode: 0, remarks: ['vm1 is at revision 2'] });
    });
    expect(changes).toEqual([{ revision: 1, monitoring: descriptor.monitoring }]);
  });

  test('a change made from an older revision is refused with the reason', async () => {
    await withInstance({ hostCollector: collector([]) }, async (run) => {
      const { exitCode, remarks } = await run(
        ['vm', 'set-monitoring', 'vm1', '-', '--revision', '7'],
        { standardInput: '{"specifiers": []}' },
      );
      expect(exitCode).toBe(1);
      expect(remarks[0]).toContain('vm1 is at revision 1, not 7: show it again');
    });
  });

  test('set-monitoring takes the revision of --revision for a descriptor without one; two that differ are wrong usage', async () => {
    const changes: { revision: number }[] = [];
    await withInstance({ hostCollector: collector(changes) }, async (run) => {
      const { revision: _revision, ...withoutOne } = descriptor;
      const change = ['vm', 'set-monitoring', 'vm1', '-', '--revision'];
      const same = { standardInput: JSON.stringify(withoutOne) };
      expect((await run([...change, '1'], same)).exitCode).toBe(0);
      const other = await run([...change, '7'], { standardInput: JSON.stringify(descriptor) });
      expect(other.exitCode).toBe(2);
      expect(other.remarks[0]).toContain('holds revision 1, not 7');
    });
    expect(changes.map(({ revision }) => revision)).toEqual([1]);
  });

  test('a monitoring part without a revision is wrong usage', async () => {
    const { exitCode, remarks } = await runIsobar(['vm', 'set-monitoring', 'vm1', '-'], {
      standardInput: '{}',
    });
    expect(exitCode).toBe(2);
    expect(remarks[0]).toContain('give --revision N');
  });

  test('an invalid descriptor never leaves this machine: exit code 78', async () => {
    const { exitCode, remarks } = await runIsobar(['vm', 'add', '-'], {
      standardInput: '{"id": "a b", "colour": 1}',
    });
    expect(exitCode).toBe(78);
    expect(remarks[0]).toContain('id = "a b": letters, digits');
    expect(remarks[0]).toContain('colour = 1: unknown key');
  });
});
