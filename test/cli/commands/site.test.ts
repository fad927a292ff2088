import { X509Certificate } from 'node:crypto';
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { runIsobar, type CommandResult } from '../../support/command-line.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const dayUs = 86_400_000_000;

let parent: ReturnType<typeof temporaryDirectory>;
beforeEach(() => {
  parent = temporaryDirectory();
});
afterEach(() => {
  parent[Symbol.dispose]();
});

function at(name: string): string {
  return join(parent.path, name);
}

async function made(...names: readonly string[]): Promise<void> {
  for (const name of names) {
    const { exitCode } = await runIsobar(['site', 'init', at(name), '--name', name]);
    expect(exitCode).toBe(0);
  }
}

/** `site` invites as `role`; the file of the invitation, and the fingerprint that a person reads out. */
async function invited(site: string, role: string): Promise<{ file: string; fingerprint: string }> {
  const { lines, remarks } = await runIsobar([
    'site',
    'invite',
    '--relation',
    'a-b',
    '--as',
    role,
    '--site',
    at(site),
  ]);
  const file = at(`${site}-invitation.json`);
  writeFileSync(file, lines.join('\n'));
  const fingerprint = remarks.join('\n').split('\n').at(-1)?.trim() ?? '';
  return { file, fingerprint };
}

async function trusted(by: string, site: string, role: string): Promise<CommandResult> {
  const { file, fingerprint } = await invited(site, role);
  return runIsobar(['site', 'trust', file, '--fingerprint', fingerprint, '--site', at(by)]);
}

interface Status {
  readonly warnings: readonly string[];
  readonly authority: { readonly fingerprint: string };
  readonly neighbours: readonly {
    readonly relation: string;
    readonly role: string;
    readonly authorities: readonly unknown[];
  }[];
}

async function statusOf(site: string, clock = new ManualClock(Date.now() * 1_000)) {
  const result = await runIsobar(['site', 'status', '--json', '--site', at(site)], { clock });
  return { exitCode: result.exitCode, status: JSON.parse(result.lines.join('')) as Status };
}

describe('isobar site', () => {
  test('init makes a site whose keys only their owner may read, and never overwrites one', async () => {
    await made('site-a');
    const identity = join(at('site-a'), 'identity');
    const modes = readdirSync(identity, { withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map(({ name }) => [name, (statSync(join(identity, name)).mode & 0o777).toString(8)]);
    expect(Object.fromEntries(modes)).toEqual({
      'authority.crt': '644',
      'authority.key': '600',
      'crl.pem': '644',
      'issued.json': '644',
      'leaf.crt': '644',
      'leaf.key': '600',
      'lock.db': '600',
      'signing.crt': '644',
      'signing.key': '600',
    });
    expect(statSync(identity).mode & 0o777).toBe(0o700);
    const key = readFileSync(join(identity, 'authority.key'), 'utf8');
    const again = await runIsobar(['site', 'init', at('site-a'), '--name', 'site-x']);
    expect(again.exitCode).toBe(1);
    expect(readFileSync(join(identity, 'authority.key'), 'utf8')).toBe(key);
  });

  test('options may stand before arguments, and be repeated', async () => {
    const addresses = ['--listen', 'a.example:1', '--listen', 'a.example:2'];
    const result = await runIsobar(['site', 'init', '--name', 'a', ...addresses, at('a')]);
    expect(result.exitCode).toBe(0);
    const document = readFileSync(join(at('a'), 'site.json'), 'utf8');
    expect(JSON.parse(document)).toMatchObject({ listen: ['a.example:1', 'a.example:2'] });
  });

  test('a wrong name or address is a wrong configuration', async () => {
    const name = await runIsobar(['site', 'init', at('x'), '--name', 'no/slash']);
    const listen = await runIsobar(['site', 'init', at('x'), '--name', 'x', '--listen', 'no-port']);
    expect([name.exitCode, listen.exitCode]).toEqual([78, 78]);
  });

  test('a directory without a site says what makes one', async () => {
    const { exitCode, remarks } = await runIsobar(['site', 'status', '--site', at('nowhere')]);
    expect(exitCode).toBe(78);
    expect(remarks.join('\n')).toContain('isobar site init');
  });

  test('two sites trust each other by invitations and fingerprints', async () => {
    await made('site-a', 'site-b');
    expect((await trusted('site-b', 'site-a', 'producer')).exitCode).toBe(0);
    expect((await trusted('site-a', 'site-b', 'consumer')).exitCode).toBe(0);
    const { exitCode, status } = await statusOf('site-a');
    expect(status.warnings).toEqual([]);
    expect(exitCode).toBe(0);
    expect(status.neighbours).toMatchObject([
      { relation: 'a-b', site: 'site-b', role: 'consumer' },
    ]);
    const shown = await runIsobar(['site', 'status', '--site', at('site-a')]);
    expect(shown.lines.join('\n')).toMatch(/RELATION +SITE[\s\S]*a-b +site-b +consumer/);
  });

  test('an invitation with another fingerprint is refused, and nothing is pinned', async () => {
    await made('site-a', 'site-b', 'site-x');
    const { file } = await invited('site-a', 'producer');
    const other = await invited('site-x', 'producer');
    const result = await runIsobar([
      'site',
      'trust',
      file,
      '--fingerprint',
      other.fingerprint,
      '--site',
      at('site-b'),
    ]);
    expect(result.exitCode).toBe(1);
    expect(result.remarks.join('\n')).toContain('trust nothing');
    expect((await statusOf('site-b')).status.neighbours).toEqual([]);
  });

  test('on a terminal it shows the fingerprint and asks; only a yes is a yes', async () => {
    await made('site-a', 'site-b');
    const { file, fingerprint } = await invited('site-a', 'producer');
    const line = ['site', 'trust', file, '--site', at('site-b')];
    const unasked = await runIsobar(line);
    expect(unasked.exitCode).toBe(2);
    const no = await runIsobar(line, { answer: 'y' });
    expect(no.exitCode).toBe(2);
    expect((await statusOf('site-b')).status.neighbours).toEqual([]);
    const yes = await runIsobar(line, { answer: 'yes' });
    expect(yes.remarks.join('\n')).toContain(fingerprint);
    expect((await statusOf('site-b')).status.neighbours).toHaveLength(1);
  });

  test('an invitation whose authority is made for another site is refused', async () => {
    await made('site-a', 'site-b');
    const { file, fingerprint } = await invited('site-a', 'producer');
    writeFileSync(file, readFileSync(file, 'utf8').replace('"site-a"', '"site-x"'));
    const result = await runIsobar([
      'site',
      'trust',
      file,
      '--fingerprint',
      fingerprint,
      '--site',
      at('site-b'),
    ]);
    expect(result.exitCode).toBe(1);
    expect(result.remarks.join('\n')).toContain('not constrained to certificates of site-x');
  });

  test('status warns before certificates and authorities expire', async () => {
    await made('site-a', 'site-b');
    await trusted('site-a', 'site-b', 'consumer');
    const nowUs = Date.now() * 1_000;
    const soon = await statusOf('site-a', new ManualClock(nowUs + 6 * dayUs));
    expect(soon.exitCode).toBe(1);
    expect(soon.status.warnings.join('\n')).toMatch(/TLS certificate was not renewed/);
    const late = await statusOf('site-a', new ManualClock(nowUs + 3_600 * dayUs));
    expect(late.status.warnings.join('\n')).toMatch(
      /authority of this site expires in 49 days[\s\S]*authority of site-b \(a-b\) expires in 49 days/,
    );
  });

  test('status warns of each authority that a neighbour may still issue from, not of the latest alone', async () => {
    await made('site-a', 'site-b');
    await trusted('site-a', 'site-b', 'consumer');
    const nowUs = Date.now() * 1_000;
    const nearEnd = new ManualClock(nowUs + 3_600 * dayUs);
    const site = ['--site', at('site-b')];
    await runIsobar(['site', 'rotate', 'authority', ...site], { clock: nearEnd });
    await trusted('site-a', 'site-b', 'consumer');
    const ofB = async (days: number) => {
      const { status } = await statusOf('site-a', new ManualClock(nowUs + days * dayUs));
      return status.warnings.filter((warning) => /authority of site-b/.test(warning));
    };
    expect(await ofB(3_600)).toEqual([expect.stringContaining('expires in 49 days')]);
    // Nobody can issue from it any more, and the next one is there.
    expect(await ofB(3_651)).toEqual([]);
  });

  test('an authority rotates: prepared, trusted beside the old one, activated, the old one withdrawn', async () => {
    await made('site-a', 'site-b');
    await trusted('site-b', 'site-a', 'producer');
    const before = (await statusOf('site-a')).status.authority.fingerprint;
    const site = ['--site', at('site-a')];
    expect((await runIsobar(['site', 'rotate', 'authority', '--activate', ...site])).exitCode).toBe(
      1,
    );
    expect((await runIsobar(['site', 'rotate', 'authority', ...site])).exitCode).toBe(0);
    expect((await trusted('site-b', 'site-a', 'producer')).exitCode).toBe(0);
    expect((await statusOf('site-b')).status.neighbours[0]?.authorities).toHaveLength(2);
    expect((await runIsobar(['site', 'rotate', 'authority', '--activate', ...site])).exitCode).toBe(
      0,
    );
    expect((await statusOf('site-a')).status.authority.fingerprint).not.toBe(before);
    const withdrawn = await runIsobar([
      'site',
      'revoke',
      'a-b',
      '--authority',
      before,
      '--site',
      at('site-b'),
    ]);
    expect(withdrawn.exitCode).toBe(0);
    const { neighbours } = (await statusOf('site-b')).status;
    expect(neighbours[0]?.authorities).toHaveLength(1);
    expect(JSON.stringify(neighbours)).not.toContain(before);
  });

  test('status names private keys that are missing or wrong, and certificates that are damaged', async () => {
    await made('site-a');
    const identity = join(at('site-a'), 'identity');
    const other = readFileSync(join(identity, 'leaf.key'), 'utf8');
    rmSync(join(identity, 'authority.key'));
    rmSync(join(identity, 'leaf.key'));
    writeFileSync(join(identity, 'signing.key'), other);
    const { exitCode, status } = await statusOf('site-a');
    expect(exitCode).toBe(1);
    expect(status.warnings).toEqual([
      expect.stringMatching(/^the private key of this site's authority .*: restore it/),
      expect.stringMatching(/^the private key of the TLS certificate .*: let a process/),
      expect.stringMatching(/^the private key of the signing certificate .*: let a process/),
    ]);
    expect(JSON.stringify(status)).not.toContain('PRIVATE');
    writeFileSync(join(identity, 'leaf.crt'), 'damaged');
    expect((await statusOf('site-a')).status.warnings).toContain(
      'the TLS certificate is missing or damaged: let a process of the site run',
    );
  });

  test('an expired invitation is refused, one with a late list is remarked', async () => {
    await made('site-a', 'site-b');
    const { file, fingerprint } = await invited('site-a', 'producer');
    const trust = ['site', 'trust', file, '--fingerprint', fingerprint, '--site', at('site-b')];
    const nowUs = Date.now() * 1_000;
    const late = new ManualClock(nowUs + 11 * 365 * dayUs);
    const expired = await runIsobar(trust, { clock: late });
    expect(expired.exitCode).toBe(1);
    expect(expired.remarks.join('\n')).toContain('ask site-a for a new invitation');
    const nextWeek = new ManualClock(nowUs + 7 * dayUs);
    const { exitCode, remarks } = await runIsobar(trust, { clock: nextWeek });
    expect(exitCode).toBe(0);
    expect(remarks).toContainEqual(
      expect.stringContaining('the revocation list of site-a (a-b) is late'),
    );
  });

  test('status shows fingerprints whole, however narrow the terminal', async () => {
    await made('site-a', 'site-b');
    await trusted('site-b', 'site-a', 'producer');
    const { fingerprint } = (await statusOf('site-a')).status.authority;
    const shown = await runIsobar(['site', 'status', '--site', at('site-b')], { columns: 40 });
    const text = shown.lines.join('\n').replaceAll(/\s/g, '');
    expect(text.toLowerCase()).toContain(fingerprint.toLowerCase());
  });

  test('an authority takes over only after someone said that every neighbour has pinned it', async () => {
    await made('site-a', 'site-b');
    await trusted('site-b', 'site-a', 'producer');
    await trusted('site-a', 'site-b', 'consumer');
    const before = (await statusOf('site-a')).status.authority.fingerprint;
    const site = ['--site', at('site-a')];
    const prepared = await runIsobar(['site', 'rotate', 'authority', ...site]);
    const fingerprint = /SHA256 .*/.exec(prepared.remarks.join('\n'))?.[0] ?? 'none';
    const { exitCode, status } = await statusOf('site-a');
    expect(exitCode).toBe(1);
    expect(status.warnings).toEqual([expect.stringMatching(/prepared.*\(a-b\).*--activate/)]);

    const activate = ['site', 'rotate', 'authority', '--activate', ...site];
    const unasked = await runIsobar(activate);
    const refused = await runIsobar(activate, { answer: 'no' });
    expect([unasked.exitCode, refused.exitCode]).toEqual([2, 2]);
    for (const { remarks } of [unasked, refused]) {
      expect(remarks.join('\n')).toContain('a-b (site-b)');
      expect(remarks.join('\n')).toContain(fingerprint);
    }
    expect((await statusOf('site-a')).status.authority.fingerprint).toBe(before);

    expect((await runIsobar(activate, { answer: 'yes' })).exitCode).toBe(0);
    expect((await statusOf('site-a')).status.authority.fingerprint).not.toBe(before);
    expect((await statusOf('site-a')).status.warnings).toEqual([]);
    await runIsobar(['site', 'rotate', 'authority', ...site]);
    expect((await runIsobar([...activate, '--yes'])).exitCode).toBe(0);
  });

  test('a revoked certificate is in the list that neighbours take', async () => {
    await made('site-a', 'site-b');
    await trusted('site-b', 'site-a', 'producer');
    const revoked = await runIsobar(['site', 'revoke', '--leaf', '--site', at('site-a')]);
    expect(revoked.exitCode).toBe(0);
    const { lines } = await runIsobar(['site', 'crl', 'show', '--site', at('site-a')]);
    const accept = ['site', 'crl', 'accept', 'a-b', '-', '--site', at('site-b')];
    const taken = await runIsobar(accept, { standardInput: lines.join('\n') });
    expect(taken.exitCode).toBe(0);
    expect((await statusOf('site-b')).status.neighbours).toMatchObject([
      { revocationList: { revokedCount: 1 } },
    ]);
    const foreign = await runIsobar(['site', 'crl', 'show', '--site', at('site-b')]);
    const refused = await runIsobar(accept, { standardInput: foreign.lines.join('\n') });
    expect(refused.exitCode).toBe(1);
  });

  test('the signing certificate is rotated and revoked alone, and an earlier one by its serial', async () => {
    await made('site-a');
    const site = ['--site', at('site-a')];
    const read = (stem: string) => readFileSync(join(at('site-a'), 'identity', `${stem}.crt`));
    const { serialNumber } = new X509Certificate(read('signing'));
    const leaf = read('leaf');
    expect((await runIsobar(['site', 'rotate', 'signing', ...site])).exitCode).toBe(0);
    const rotated = new X509Certificate(read('signing'));
    expect(rotated.serialNumber).not.toBe(serialNumber);
    expect((await runIsobar(['site', 'revoke', '--signing', ...site])).exitCode).toBe(0);
    expect(new X509Certificate(read('signing')).serialNumber).not.toBe(rotated.serialNumber);
    expect((await runIsobar(['site', 'revoke', '--serial', serialNumber, ...site])).exitCode).toBe(
      0,
    );
    expect(read('leaf')).toEqual(leaf);
    expect((await statusOf('site-a')).status).toMatchObject({
      revocationList: { revokedCount: 2 },
    });
    const unknown = await runIsobar(['site', 'revoke', '--serial', '4f', ...site]);
    expect(unknown.exitCode).toBe(1);
    for (const wrong of [
      ['--serial', 'xyz'],
      ['--leaf', '--signing'],
      ['a-b', '--leaf'],
    ]) {
      expect((await runIsobar(['site', 'revoke', ...wrong, ...site])).exitCode).toBe(2);
    }
  });

  test('revoke removes a neighbour; without a word it is a wrong usage', async () => {
    await made('site-a', 'site-b');
    await trusted('site-b', 'site-a', 'producer');
    expect((await runIsobar(['site', 'revoke', '--site', at('site-b')])).exitCode).toBe(2);
    expect((await runIsobar(['site', 'revoke', 'a-b', '--site', at('site-b')])).exitCode).toBe(0);
    expect((await statusOf('site-b')).status.neighbours).toEqual([]);
    expect((await runIsobar(['site', 'revoke', 'a-b', '--site', at('site-b')])).exitCode).toBe(1);
  });

  test('nothing that is printed holds key material', async () => {
    await made('site-a');
    const site = ['--site', at('site-a')];
    const printed = [
      await runIsobar(['site', 'status', '--json', ...site]),
      await runIsobar(['site', 'invite', '--relation', 'a-b', '--as', 'producer', ...site]),
      await runIsobar(['site', 'crl', 'show', ...site]),
      await runIsobar(['site', 'rotate', 'leaf', '--debug', ...site]),
      await runIsobar(['site', 'revoke', '--leaf', ...site]),
    ].flatMap(({ lines, remarks }) => [...lines, ...remarks]);
    expect(printed.length).toBeGreaterThan(5);
    expect(printed.join('\n')).not.toContain('PRIVATE KEY');
  });

  test('completion offers its commands, and isobar site run is among them', async () => {
    const { lines } = await runIsobar(['__complete', '--', 'site', '']);
    expect(lines).toEqual(['crl', 'init', 'invite', 'revoke', 'rotate', 'run', 'status', 'trust']);
    expect((await runIsobar(['__complete', '--', 'site', 'rotate', ''])).lines).toEqual([
      'authority',
      'leaf',
      'signing',
    ]);
  });
});
