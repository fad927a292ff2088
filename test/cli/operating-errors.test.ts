import { once } from 'node:events';
import { symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';

import { describe, expect, test } from 'vitest';

import { ask } from '../../cli/ask.ts';
import { listen } from '../../common/site-control/listen.ts';
import { runIsobar } from '../support/command-line.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

const stackLine = /\n {4}at /;

describe('what operation brings about is a sentence, and no stack', () => {
  test.each([
    ['rotate leaf', ['rotate', 'leaf']],
    ['rotate authority', ['rotate', 'authority']],
    ['revoke --leaf', ['revoke', '--leaf']],
    ['crl show', ['crl', 'show']],
    ['invite', ['invite', '--relation', 'a-b', '--as', 'producer']],
  ])('site %s of a site that is not there', async (_title, command) => {
    using directory = temporaryDirectory();
    const site = join(directory.path, 'nowhere');
    const { exitCode, lines, remarks } = await runIsobar(['site', ...command, '--site', site]);
    expect(exitCode).toBe(78);
    expect(lines).toEqual([]);
    expect(remarks.join('\n')).toContain('site.json is not there: isobar site init makes a site');
    expect(remarks.join('\n')).not.toMatch(stackLine);
  });

  test('a site whose document can’t be read is there, and may not be used', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'site.json');
    symlinkSync(path, path);
    const { exitCode, remarks } = await runIsobar(['site', 'status', '--site', directory.path]);
    expect(exitCode).toBe(1);
    expect(remarks.join('\n')).toContain(`${path} can't be used (ELOOP`);
    expect(remarks.join('\n')).not.toMatch(stackLine);
  });

  test('site init below a file', async () => {
    using directory = temporaryDirectory();
    const file = join(directory.path, 'file');
    writeFileSync(file, '');
    const { exitCode, remarks } = await runIsobar([
      'site',
      'init',
      join(file, 'site'),
      '--name',
      'a',
    ]);
    expect(exitCode).toBe(78);
    expect(remarks.join('\n')).toContain('choose another directory');
    expect(remarks.join('\n')).not.toMatch(stackLine);
  });

  test('an invitation for a relation whose name is none', async () => {
    using directory = temporaryDirectory();
    await runIsobar(['site', 'init', directory.path, '--name', 'a']);
    const invite = ['site', 'invite', '--relation', 'a b', '--as', 'producer'];
    const { exitCode, remarks } = await runIsobar([...invite, '--site', directory.path]);
    expect(exitCode).toBe(2);
    expect(remarks.join('\n')).toContain("'a b' is no name of a relation: letters, digits");
  });

  test('a port for signed requests that is taken', async () => {
    const first = createServer();
    await listen(first, { host: '127.0.0.1', port: 0 });
    const address = first.address();
    const port = typeof address === 'object' ? (address?.port ?? 0) : 0;
    await expect(listen(createServer(), { host: '127.0.0.1', port })).rejects.toMatchObject({
      code: 'site-control-listen-failed',
      message: `cannot listen on 127.0.0.1:${port} (EADDRINUSE): choose another place in control.listen, or stop what uses it`,
    });
    first.close();
    await once(first, 'close');
  });
});

describe('a question at the terminal', () => {
  test.each([
    ['Ctrl-C', '\u0003'],
    ['Ctrl-D', '\u0004'],
  ])('that is left by %s has an empty answer', async (_title, key) => {
    const input = new PassThrough();
    const output = new PassThrough();
    const answer = ask({ input, output }, 'Is it the same? ');
    input.write(key);
    expect(await answer).toBe('');
    output.end();
    expect(await text(output)).toContain('Is it the same? ');
  });

  test('has the line as its answer', async () => {
    const input = new PassThrough();
    const answer = ask({ input, output: new PassThrough() }, '? ');
    input.write('yes\n');
    expect(await answer).toBe('yes');
  });
});
