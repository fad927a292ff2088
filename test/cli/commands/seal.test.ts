import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { afterAll, describe, expect, test } from 'vitest';

import { runIsobar } from '../../support/command-line.ts';
import { opensslDecrypt, opensslEncrypt, opensslIdentity } from '../../support/openssl.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const directory = temporaryDirectory();
afterAll(() => {
  directory[Symbol.dispose]();
});
const primary = opensslIdentity(directory.path, 'primary', 'P-256');
const successor = opensslIdentity(directory.path, 'successor', 'rsa-2048');
const content = Buffer.from('users\n42\n');
const toBoth = ['--to', primary.certificatePath, '--to', successor.certificatePath];

describe('isobar seal', () => {
  test('does for an application what openssl cms would: any of the readers opens it', async () => {
    const sealed = await runIsobar(['seal', ...toBoth], { standardInput: content });
    expect(sealed).toMatchObject({ exitCode: 0, lines: [], remarks: [] });
    for (const reader of [primary, successor]) {
      expect(opensslDecrypt(sealed.bytes, reader, directory.path)).toEqual(content);
      const { keyPath, certificatePath } = reader;
      const opened = await runIsobar(['unseal', '--key', keyPath, '--cert', certificatePath], {
        standardInput: sealed.bytes,
      });
      expect(opened.bytes).toEqual(content);
    }
  });

  test('reads and writes files; unseal opens what openssl made', async () => {
    const [plain, sealed, opened] = ['plain', 'sealed', 'opened'].map((name) =>
      join(directory.path, name),
    ) as [string, string, string];
    writeFileSync(plain, content);
    const to = ['--to', primary.certificatePath];
    expect(await runIsobar(['seal', ...to, plain, '-o', sealed])).toMatchObject({ exitCode: 0 });
    await runIsobar(['unseal', '--key', primary.keyPath, sealed, '-o', opened]);
    expect(readFileSync(opened)).toEqual(content);
    writeFileSync(sealed, opensslEncrypt(content, [primary]));
    await runIsobar(['unseal', '--key', primary.keyPath, sealed, '-o', opened]);
    expect(readFileSync(opened)).toEqual(content);
  });

  test('what unseal writes is for its owner alone, in a new file and in one that was there', async () => {
    const sealed = join(directory.path, 'sealed-once');
    writeFileSync(sealed, opensslEncrypt(content, [primary]));
    const [anew, before] = [join(directory.path, 'anew'), join(directory.path, 'before')];
    writeFileSync(before, 'what was there', { mode: 0o644 });
    for (const opened of [anew, before]) {
      const unseal = ['unseal', '--key', primary.keyPath, sealed, '-o', opened];
      expect(await runIsobar(unseal)).toMatchObject({ exitCode: 0 });
      expect(readFileSync(opened)).toEqual(content);
      expect((statSync(opened).mode & 0o777).toString(8)).toBe('600');
    }
  });

  test('says what is wrong: a binary on a terminal, no reader, a wrong key, a file that is none', async () => {
    const onTerminal = await runIsobar(['seal', ...toBoth], { columns: 80 });
    expect(onTerminal.exitCode).toBe(2);
    expect(onTerminal.remarks.join()).toContain('--output FILE');
    expect(await runIsobar(['seal'])).toMatchObject({ exitCode: 2 });
    const noReader = await runIsobar(['seal', '--to', primary.keyPath]);
    expect(noReader.exitCode).toBe(78);
    expect(noReader.remarks.join()).toContain('a private key');
    const missing = await runIsobar(['seal', '--to', join(directory.path, 'none.pem')]);
    expect(missing).toMatchObject({ exitCode: 1 });
    const sealed = opensslEncrypt(content, [primary]);
    const wrongKey = await runIsobar(['unseal', '--key', successor.keyPath], {
      standardInput: sealed,
    });
    expect(wrongKey.exitCode).toBe(1);
    expect(wrongKey.remarks.join()).toContain('not-for-us');
    const noEnvelope = await runIsobar(['unseal', '--key', primary.keyPath], {
      standardInput: content,
    });
    expect(noEnvelope.remarks.join()).toContain('not-an-envelope');
    expect([...wrongKey.bytes, ...noEnvelope.bytes]).toEqual([]);
  });
});
