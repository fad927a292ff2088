import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { describe, expect, test } from 'vitest';

import { documentKinds } from '../../../cli/process-kinds.ts';
import { runIsobar } from '../../support/command-line.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

describe('isobar config', () => {
  test('check reports all problems of all files at once, exit code 78', async () => {
    using directory = temporaryDirectory();
    const good = join(directory.path, 'good.json');
    const bad = join(directory.path, 'bad.json');
    const missing = join(directory.path, 'missing.json');
    writeFileSync(good, JSON.stringify(documentKinds['vm']?.example));
    writeFileSync(bad, JSON.stringify({ kind: 'VirtualMachine', id: 'a b', speed: 1 }));
    const { exitCode, lines, remarks } = await runIsobar(['config', 'check', good, bad, missing]);
    expect(exitCode).toBe(78);
    expect(lines).toEqual([`${good}: ok`]);
    expect(remarks[0]).toMatch(/bad\.json: 3 problem\(s\)/);
    expect(remarks[1]).toContain('no such file');
  });

  test('check goes on behind a file that does not say what it is', async () => {
    using directory = temporaryDirectory();
    const unknown = join(directory.path, 'unknown.json');
    const site = join(directory.path, 'ours.json');
    const bad = join(directory.path, 'bad.json');
    writeFileSync(unknown, '{"a": 1}');
    writeFileSync(site, JSON.stringify(documentKinds['site']?.example));
    writeFileSync(bad, JSON.stringify({ kind: 'VirtualMachine', id: 'a b' }));
    const { exitCode, lines, remarks } = await runIsobar(['config', 'check', unknown, site, bad]);
    expect(exitCode).toBe(78);
    expect(lines).toEqual([`${site}: ok`]);
    expect(remarks[0]).toContain('does not say what it is: check it alone, with --as guest-agent|');
    expect(remarks[1]).toContain('bad.json');
  });

  test('check and vm add say which quantities there are when a pattern names none of them', async () => {
    const specifiers = [{ id: 'a', dataPoints: 'infra/cpu/usage_ratoi' }];
    const head = { apiVersion: 'isobar/v1', kind: 'VirtualMachine', id: 'vm1' };
    const standardInput = JSON.stringify({ ...head, monitoring: { specifiers } });
    for (const command of [
      ['config', 'check', '--as', 'vm', '-'],
      ['vm', 'add', '-'],
    ]) {
      const { exitCode, remarks } = await runIsobar(command, { standardInput });
      expect(exitCode).toBe(78);
      expect(remarks[0]).toContain('infra/cpu/usage_ratio, infra/cpu/time_us, infra/memory/');
    }
  });

  test.each(Object.keys(documentKinds))('the example of %s is valid', async (kind) => {
    const { lines } = await runIsobar(['config', 'example', kind]);
    const { exitCode } = await runIsobar(['config', 'check', '--as', kind, '-'], {
      standardInput: lines.join('\n'),
    });
    expect(exitCode).toBe(0);
  });
});

test.each(['guest-agent', 'host-collector', 'relay', 'primary-site'])(
  'a place of %s that is too long for its control socket is a wrong configuration',
  async (kind) => {
    const example = documentKinds[kind]?.example as Readonly<Record<string, unknown>>;
    const { controlSocket: _, ...others } = example;
    const isSocketRequired = kind === 'guest-agent' || kind === 'primary-site';
    const long = `/${'d'.repeat(120)}`;
    const place = isSocketRequired ? { controlSocket: `${long}.sock` } : { dataDirectory: long };
    const { exitCode, remarks } = await runIsobar(['config', 'check', '--as', kind, '-'], {
      standardInput: JSON.stringify({ ...others, ...place }),
    });
    expect(exitCode).toBe(78);
    expect(remarks.join('\n')).toContain(
      'a socket path may have 107: use a shorter data directory',
    );
  },
);
