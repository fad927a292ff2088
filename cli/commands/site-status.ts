import { resolve } from 'node:path';

import { Option, type Command } from 'commander';

import { formatFingerprint } from '../../common/identity/fingerprint.ts';
import { readSiteStatus, type SiteStatus } from '../../common/identity/site-status.ts';
import type { CommandContext } from '../context.ts';
import { exitCodes } from '../exit-code.ts';
import { formatTable } from '../text/table.ts';
import { formatAge } from '../text/time.ts';
import { examples } from './examples.ts';

/** Which site a command is about. */
export function siteOption(): Option {
  return new Option('--site <directory>', 'directory that isobar site init made')
    .env('ISOBAR_SITE_DIR')
    .default('.');
}

/** Adds `isobar site status`. */
export function addSiteStatusCommand(site: Command, context: CommandContext): void {
  const command = site
    .command('status')
    .description(
      'certificates, neighbours, and what needs attention; exit code 1 if something does',
    )
    .option('--json', 'one JSON document')
    .addOption(siteOption())
    .action(async (options: { readonly site: string; readonly json?: boolean }) => {
      const nowUs = context.clock.wallUs();
      const status = await readSiteStatus(resolve(options.site), nowUs / 1_000);
      if (options.json === true) await context.output.line(JSON.stringify(status));
      else await print(status, nowUs, context);
      if (status.warnings.length > 0) context.setExitCode(exitCodes.failure);
    });
  examples(command, [
    ['isobar site status', ''],
    ["isobar site status --json | jq '.warnings[]'", 'for monitoring'],
  ]);
}

async function print(status: SiteStatus, nowUs: number, context: CommandContext): Promise<void> {
  const { output } = context;
  const age = (time: string): string => formatAge(Date.parse(time) * 1_000, nowUs);
  await output.line(`site       ${status.name}`);
  if (status.listen.length > 0) await output.line(`listens    ${status.listen.join(', ')}`);
  const { authority, nextAuthority, leaf, signing, revocationList } = status;
  for (const [title, certificate] of [
    ['authority', authority],
    ['next', nextAuthority],
  ] as const) {
    if (certificate === null) continue;
    await output.line(`${title.padEnd(9)}  ${formatFingerprint(certificate.fingerprint)}`);
    await output.line(`           expires ${age(certificate.expiresAt)}`);
  }
  if (leaf !== null) await output.line(`tls        expires ${age(leaf.expiresAt)}`);
  if (signing !== null) await output.line(`signing    expires ${age(signing.expiresAt)}`);
  if (revocationList !== null) {
    const { issuedAt, revokedCount } = revocationList;
    await output.line(`revoked    ${revokedCount}, list issued ${age(issuedAt)}`);
  }
  if (status.neighbours.length > 0) {
    await output.line('');
    for (const line of neighbourTable(status, age, output.columns)) await output.line(line);
    await output.line('');
    for (const line of authorityLines(status, age)) await output.line(line);
  }
  for (const warning of status.warnings) output.remark(output.errorStyle.yellow(warning));
}

function neighbourTable(
  { neighbours }: SiteStatus,
  age: (time: string) => string,
  columns: number | undefined,
): string[] {
  const rows = neighbours.map(({ relation, site, role, address, revocationList }) => [
    relation,
    site,
    role,
    address ?? '-',
    revocationList === null ? '-' : age(revocationList.issuedAt),
  ]);
  return formatTable(
    [
      { title: 'RELATION', widthMin: 8 },
      { title: 'SITE', widthMin: 4 },
      { title: 'ROLE' },
      { title: 'ADDRESS', widthMin: 7 },
      { title: 'CRL ISSUED' },
    ],
    rows,
    columns,
  );
}

/** Fingerprints are compared in every digit: never cut, so not in the table. */
function authorityLines({ neighbours }: SiteStatus, age: (time: string) => string): string[] {
  return neighbours.flatMap(({ relation, authorities }) =>
    authorities.flatMap(({ fingerprint, expiresAt }) => [
      `${relation}: authority, expires ${age(expiresAt)}`,
      `  ${formatFingerprint(fingerprint)}`,
    ]),
  );
}
