import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { describe, expect, test } from 'vitest';

import { createUpLog } from '../../../cli/up/up-log.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

describe('the log of isobar up', () => {
  test('the terminal gets one plain sentence for each event that matters; JSON lines are in logs/ only', () => {
    using directory = temporaryDirectory();
    const told: string[] = [];
    const log = createUpLog(directory.path, (sentence) => void told.push(sentence), undefined);
    log.info('agent-started', { processId: 7 });
    log.warn('child-died', {
      child: 'primary-site',
      exitCode: null,
      signal: 'SIGKILL',
      delayMs: 1,
    });
    log.child({ area: 'mount' }).warn('agent-died', { exitCode: 3, signal: null });
    log.warn('child-killed', { child: 'host-collector', drainMaxMs: 10_000 });
    log.error('control-request-failed', { path: '/v1/status', error: 'Error: odd\n    at x' });
    log.error('supervision-failed', { error: 'the command prints it' });
    const logOf = (name: string): string => join(directory.path, `${name}.log`);
    expect(told).toEqual([
      `primary-site died (SIGKILL) and is started again; its log is ${logOf('primary-site')}`,
      `guest-agent died (exit code 3) and is started again; its log is ${logOf('guest-agent')}`,
      `host-collector did not end within 10 s and was killed; its log is ${logOf('host-collector')}`,
      `something went wrong (control-request-failed); the details are in ${logOf('up')}`,
    ]);
    const events = readFileSync(logOf('up'), 'utf8')
      .trim()
      .split('\n')
      .map((line) => (JSON.parse(line) as { readonly event: string }).event);
    expect(events).toHaveLength(6);
    expect(events[0]).toBe('agent-started');
  });

  test('with --verbose the JSON lines are printed as well', () => {
    using directory = temporaryDirectory();
    const lines: string[] = [];
    createUpLog(
      directory.path,
      () => {},
      (line) => void lines.push(line),
    ).info('agent-started', { processId: 7 });
    expect(JSON.parse(lines[0] ?? '')).toMatchObject({ event: 'agent-started', processId: 7 });
  });
});
