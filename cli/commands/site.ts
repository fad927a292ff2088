import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';

import { Argument, Option, type Command } from 'commander';

import { ConfigError, parseConfig } from '../../common/config/load-config.ts';
import {
  fingerprintOf,
  formatFingerprint,
  parseFingerprint,
} from '../../common/identity/fingerprint.ts';
import { IdentityError } from '../../common/identity/identity-error.ts';
import {
  acceptRevocationLists,
  createInvitation,
  fingerprintsToCompare,
  invitationSchema,
  trustInvitation,
  withdrawTrust,
  type Invitation,
} from '../../common/identity/invitation.ts';
import { SiteAuthority } from '../../common/identity/site-authority.ts';
import {
  readSiteDocument,
  readTextIfThere,
  requireSite,
  siteDocumentSchema,
  siteFiles,
  siteNameSchema,
} from '../../common/identity/site-files.ts';
import { readSiteStatus } from '../../common/identity/site-status.ts';
import type { CommandContext } from '../context.ts';
import { UsageError } from '../usage-error.ts';
import { examples } from './examples.ts';
import { repeatable } from './repeatable.ts';
import { addSiteStatusCommand, siteOption } from './site-status.ts';

interface SiteOptions {
  readonly site: string;
}

interface RevokeOptions extends SiteOptions {
  readonly authority?: string;
  readonly leaf?: boolean;
  readonly signing?: boolean;
  readonly serial?: string;
}

const roles = ['producer', 'consumer'] as const;

/** Adds what makes and changes a site's identity below `site`. */
export function addSiteCommands(site: Command, context: CommandContext): void {
  addInit(site, context);
  addInvite(site, context);
  addTrust(site, context);
  addSiteStatusCommand(site, context);
  addRevoke(site, context);
  addRotate(site, context);
  addRevocationList(site, context);
}

function addInit(site: Command, context: CommandContext): void {
  const command = site
    .command('init')
    .description('make the directory of a site: its name, its authority, its certificates')
    .argument('<directory>', 'is made if it is not there')
    .requiredOption('--name <name>', 'name of the site, in all its certificates')
    .option('--listen <host:port>', 'where neighbours dial this site; may be repeated', repeatable)
    .action(async (directory: string, options: { name: string; listen?: readonly string[] }) => {
      const document = parseConfig(
        siteDocumentSchema,
        {
          apiVersion: 'isobar/v1',
          kind: 'Site',
          name: options.name,
          listen: options.listen ?? [],
        },
        'command line',
      );
      const path = resolve(directory);
      await new SiteAuthority(context, path).init(document);
      context.output.remark(
        `${document.name} is in ${path}; its authority is\n  ${await fingerprintIn(path, 'authority')}`,
      );
    });
  examples(command, [
    ['isobar site init /etc/isobar/site --name site-a --listen site-a.example:8883', ''],
    ['isobar site init . --name site-b', 'a site that only dials others'],
  ]);
}

function addInvite(site: Command, context: CommandContext): void {
  const command = site
    .command('invite')
    .description('print an invitation for a neighbour; it holds nothing secret')
    .requiredOption('--relation <name>', 'what both sites call their relation', checkedName)
    .addOption(
      new Option('--as <role>', 'what this site is in it').choices(roles).makeOptionMandatory(),
    )
    .addOption(siteOption())
    .action(async (options: SiteOptions & { relation: string; as: (typeof roles)[number] }) => {
      const path = resolve(options.site);
      const invitation = await createInvitation(path, options.relation, options.as);
      await context.output.line(JSON.stringify(invitation, undefined, 2));
      const fingerprints = invitation.authorities.map((pem) => shown(fingerprintOf(pem)));
      context.output.remark(
        [
          'Tell the neighbour this fingerprint on another way, by telephone say:',
          ...fingerprints,
        ].join('\n'),
      );
    });
  examples(command, [
    ['isobar site invite --relation a-b --as producer > invitation.json', ''],
    ['isobar site invite --relation a-b --as consumer --site /etc/isobar/site', ''],
  ]);
}

function addTrust(site: Command, context: CommandContext): void {
  const command = site
    .command('trust')
    .description("pin a neighbour's authority, after its fingerprint has been compared")
    .argument('<invitation>', 'the file that the neighbour sent; - reads standard input')
    .option(
      '--fingerprint <sha256>',
      'what the neighbour told; without, you are asked; may be repeated',
      repeatable,
    )
    .addOption(siteOption())
    .action(async (file: string, options: SiteOptions & { fingerprint?: readonly string[] }) => {
      const path = resolve(options.site);
      const invitation = await readInvitation(file, context);
      const confirmed =
        options.fingerprint?.map((text) => checkedFingerprint(text)) ??
        (await askToCompare(path, invitation, context));
      const { relation, role } = await trustInvitation(context.clock, path, invitation, confirmed);
      context.output.remark(`${invitation.site} is trusted as ${role} of relation ${relation}`);
      const { warnings } = await readSiteStatus(path, context.clock.wallUs() / 1_000);
      for (const warning of warnings.filter((each) => each.includes(`(${relation})`))) {
        context.output.remark(context.output.errorStyle.yellow(warning));
      }
    });
  examples(command, [
    ['isobar site trust invitation.json', 'shows the fingerprint and asks'],
    ["isobar site trust invitation.json --fingerprint 'SHA256 3f2a 99c1 ...'", 'asks nothing'],
  ]);
}

function addRevoke(site: Command, context: CommandContext): void {
  const command = site
    .command('revoke')
    .description('trust a neighbour no longer, or withdraw our own leaked certificate')
    .argument('[relation]', 'whose connections are cut')
    .option('--authority <sha256>', 'only this authority of the neighbour, after its rotation')
    .option('--leaf', "revoke this site's present TLS certificate, and make a new one")
    .option('--signing', 'the same for the certificate that signs requests and statements')
    .option('--serial <hex>', 'the same for one that may have been replaced already')
    .addOption(siteOption())
    .action(async (relation: string | undefined, options: RevokeOptions) => {
      const path = resolve(options.site);
      const { leaf = false, signing = false, serial } = options;
      const named = [relation !== undefined, leaf, signing, serial !== undefined];
      if (named.filter(Boolean).length !== 1) {
        throw new UsageError(
          'name a relation, or give one of --leaf, --signing, --serial: isobar site revoke a-b',
        );
      }
      if (relation === undefined) {
        const authority = new SiteAuthority(context, path);
        const revoked =
          serial === undefined
            ? await authority.revoke(leaf ? 'leaf' : 'signing')
            : await authority.revokeSerial(checkedSerial(serial));
        context.output.remark(
          `certificate ${revoked} is revoked; neighbours that are not asked by a running process get the list by hand: isobar site crl show`,
        );
        return;
      }
      const fingerprint =
        options.authority === undefined ? undefined : checkedFingerprint(options.authority);
      await withdrawTrust(context.clock, path, relation, fingerprint);
      context.output.remark(`relation ${relation}: trust is withdrawn`);
    });
  examples(command, [
    ['isobar site revoke a-b', 'the neighbour is out, within seconds'],
    ["isobar site revoke a-b --authority '3f2a 99c1 ...'", 'the end of its rotation'],
    ['isobar site revoke --leaf', 'our key for TLS leaked'],
    ['isobar site revoke --signing', 'our key for signatures leaked'],
    ['isobar site revoke --serial 4f0c21', 'a key leaked that was replaced before'],
  ]);
}

function addRotate(site: Command, context: CommandContext): void {
  const command = site
    .command('rotate')
    .description('new keys, without interrupting connections')
    .addArgument(new Argument('<what>', 'which').choices(['leaf', 'signing', 'authority']))
    .option('--activate', 'authority: the prepared one takes over; all neighbours have pinned it')
    .option('--yes', 'with --activate: they have, ask nobody')
    .addOption(siteOption())
    .action(async (what: string, options: SiteOptions & { activate?: boolean; yes?: boolean }) => {
      const path = resolve(options.site);
      const authority = new SiteAuthority(context, path);
      if (what === 'leaf' || what === 'signing') {
        await authority.rotate(what);
        const name = what === 'leaf' ? 'TLS' : 'signing';
        context.output.remark(`the ${name} certificate has a new key`);
      } else if (options.activate === true) {
        if (options.yes !== true) await askWhetherPinned(path, context);
        await authority.activateAuthority();
        const fingerprint = await fingerprintIn(path, 'authority');
        context.output.remark(`the new authority issues now:\n  ${fingerprint}`);
      } else {
        await authority.prepareAuthority();
        context.output.remark(
          `the next authority is prepared:\n  ${await fingerprintIn(path, 'next-authority')}\nsend each neighbour a new isobar site invite to trust; when all of them have, add --activate`,
        );
      }
    });
  examples(command, [
    ['isobar site rotate leaf', ''],
    ['isobar site rotate signing', ''],
    ['isobar site rotate authority', 'first: neighbours trust a new invitation'],
    ['isobar site rotate authority --activate', 'then, when all of them have'],
  ]);
}

function addRevocationList(site: Command, context: CommandContext): void {
  const crl = site.command('crl').description('lists of revoked certificates');
  examples(crl, [
    ['isobar site crl show > crl.pem', ''],
    ['isobar help site crl accept', 'more about one of them'],
  ]);
  const show = crl
    .command('show')
    .description("print this site's list, as PEM, for its neighbours")
    .addOption(siteOption())
    .action(async (options: SiteOptions) => {
      const files = siteFiles(resolve(options.site));
      requireSite(files);
      const text = await readTextIfThere(files.revocationList);
      if (text === undefined) {
        const message = `${files.revocationList} is not there yet: let a process of the site run`;
        throw new IdentityError('site-unusable', message);
      }
      await context.output.line(text.trimEnd());
    });
  examples(show, [['isobar site crl show > crl.pem', '']]);
  const accept = crl
    .command('accept')
    .description("take a neighbour's newer list; what it revokes is cut")
    .argument('<relation>', 'whose list it is')
    .argument('<file>', 'PEM; - reads standard input')
    .addOption(siteOption())
    .action(async (relation: string, file: string, options: SiteOptions) => {
      const text = await readText(file, context);
      await acceptRevocationLists(context.clock, resolve(options.site), relation, text);
      context.output.remark(`the list of relation ${relation} is in force`);
    });
  examples(accept, [['isobar site crl accept a-b crl.pem', '']]);
}

async function readInvitation(file: string, context: CommandContext): Promise<Invitation> {
  const text = await readText(file, context);
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch (cause) {
    const rule = cause instanceof Error ? cause.message : String(cause);
    throw new ConfigError('config-unreadable', file, [{ path: '', value: '(unreadable)', rule }]);
  }
  return parseConfig(invitationSchema, document, file);
}

async function readText(file: string, context: CommandContext): Promise<string> {
  if (file === '-') return context.readStandardInput();
  try {
    return await readFile(file, 'utf8');
  } catch (cause) {
    const rule = cause instanceof Error ? cause.message : String(cause);
    throw new ConfigError('config-unreadable', file, [{ path: '', value: '(unreadable)', rule }]);
  }
}

function checkedName(text: string): string {
  const parsed = siteNameSchema.safeParse(text);
  if (parsed.success) return parsed.data;
  const rules = parsed.error.issues.map(({ message }) => message).join('; ');
  throw new UsageError(`'${text}' is no name of a relation: ${rules}`);
}

function checkedFingerprint(text: string): string {
  const fingerprint = parseFingerprint(text);
  if (fingerprint !== undefined) return fingerprint;
  throw new UsageError(`'${text}' is no SHA-256 fingerprint: 64 hexadecimal digits`);
}

function checkedSerial(text: string): string {
  const serial = text.replaceAll(':', '');
  if (/^[0-9A-Fa-f]{1,40}$/.test(serial)) return serial;
  throw new UsageError(`'${text}' is no serial: up to 40 hexadecimal digits`);
}

/** On a terminal alone; a script has to say what it trusts. */
async function askToCompare(
  path: string,
  invitation: Invitation,
  context: CommandContext,
): Promise<readonly string[]> {
  const fingerprints = await fingerprintsToCompare(context.clock, path, invitation);
  if (fingerprints.length === 0) return [];
  if (context.ask === undefined) {
    throw new UsageError(
      'without a terminal nobody can compare: add --fingerprint with what the neighbour told',
    );
  }
  const { site, relation } = invitation;
  context.output.remark(
    [`${site} (relation ${relation}) must read the same to you:`, ...fingerprints.map(shown)].join(
      '\n',
    ),
  );
  const answer = await context.ask('Is it the same in every digit? (yes/no) ');
  if (answer.trim().toLowerCase() === 'yes') return fingerprints;
  throw new UsageError('nothing is trusted: only a plain yes is');
}

function shown(fingerprint: string): string {
  return `  ${formatFingerprint(fingerprint)}`;
}

/**
 * Whoever has not pinned the prepared authority refuses this site once it has taken over, and only that site knows.
 * @throws UsageError without a yes
 */
async function askWhetherPinned(path: string, context: CommandContext): Promise<void> {
  const files = siteFiles(path);
  const { neighbours } = readSiteDocument(files);
  const next = await readTextIfThere(files.certificate('next-authority'));
  // Activating says what is wrong when none is prepared.
  if (neighbours.length === 0 || next === undefined) return;
  const lines = [
    'A neighbour that has not pinned the prepared authority refuses this site from then on:',
    shown(fingerprintOf(next)),
    `isobar site status of each of them must show it for its relation:`,
    ...neighbours.map(({ relation, site }) => `  ${relation} (${site})`),
  ];
  if (context.ask === undefined) {
    throw new UsageError(
      [...lines, 'Without a terminal nobody can say so: add --yes when they do'].join('\n'),
    );
  }
  context.output.remark(lines.join('\n'));
  const answer = await context.ask('Do all of them show it? (yes/no) ');
  if (answer.trim().toLowerCase() === 'yes') return;
  throw new UsageError('the present authority stays: only a plain yes changes it');
}

async function fingerprintIn(
  directory: string,
  stem: 'authority' | 'next-authority',
): Promise<string> {
  const cert = await readFile(siteFiles(directory).certificate(stem), 'utf8');
  return formatFingerprint(fingerprintOf(cert));
}
