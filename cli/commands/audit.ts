import { join } from 'node:path';

import type { Command } from 'commander';

import type { AuditEntry, AuditHead } from '../../common/audit/audit-entry.ts';
import { listAuditFiles, readAuditFile } from '../../common/audit/audit-files.ts';
import { begunAction, verifyAudit, type AuditFinding } from '../../common/audit/verify-audit.ts';
import type { CommandContext, GlobalOptions } from '../context.ts';
import { locateDataDirectory } from '../data-directory.ts';
import { exitCodes } from '../exit-code.ts';
import { formatTimeUs } from '../text/time.ts';
import { formatCount } from '../text/value.ts';
import { UsageError } from '../usage-error.ts';
import { examples } from './examples.ts';
import { parseSince } from './reading-options.ts';

interface AuditOptions extends GlobalOptions {
  readonly directory?: string;
  readonly json?: boolean;
  readonly since?: string;
  readonly relation?: string;
  readonly expectHead?: string;
}

/** `isobar audit show|verify`: works on the files, whether the site runs or not. */
export function addAuditCommands(program: Command, context: CommandContext): void {
  const audit = program
    .command('audit')
    .description('what neighbouring sites asked of this one, and this one of them');
  examples(audit, [
    ['isobar audit show --since 1h', ''],
    ['isobar help audit verify', 'more about one of them'],
  ]);
  const show = audit
    .command('show')
    .description('the entries of the audit log, oldest first')
    .option('--directory <directory>', 'the log, if it is not audit/ of the data directory')
    .option('--json', 'one JSON document a line, as in the log')
    .option('--since <time>', 'from this time on: 10m, 2026-01-01T00:00Z')
    .option('--relation <name>', 'of this neighbour only')
    .action(async (_options: unknown, self: Command) => {
      await showEntries(self.optsWithGlobals<AuditOptions>(), context);
    });
  examples(show, [
    ['isobar audit show --since 1h', ''],
    ['isobar audit show --relation to-berlin --json', 'for other programs'],
  ]);
  const verify = audit
    .command('verify')
    .description(
      'check that no entry was altered, removed or moved; exit code 1 and the place if one was',
    )
    .option('--directory <directory>', 'the log, if it is not audit/ of the data directory')
    .option('--json', 'one JSON document')
    .option('--expect-head <head>', 'SEQ:HASH that an earlier verify printed, kept elsewhere')
    .action(async (_options: unknown, self: Command) => {
      await verifyLog(self.optsWithGlobals<AuditOptions>(), context);
    });
  examples(verify, [
    ['isobar audit verify', 'prints the head of the log: keep it on another machine'],
    [`isobar audit verify --expect-head 7:${'ab'.repeat(32)}`, 'also finds a tail cut off since'],
  ]);
}

function directoryOf(options: AuditOptions, context: CommandContext): string {
  if (options.directory !== undefined) return options.directory;
  return join(
    locateDataDirectory(options.dataDir, context.environment, context.userId).path,
    'audit',
  );
}

async function showEntries(options: AuditOptions, context: CommandContext): Promise<void> {
  const { output } = context;
  const sinceUs = parseSince(options.since, context.clock.wallUs()) ?? Number.NEGATIVE_INFINITY;
  const directory = directoryOf(options, context);
  for (const file of listAuditFiles(directory)) {
    for await (const line of readAuditFile(file.path)) {
      if ('problem' in line) {
        if (line.isTorn) continue;
        output.remark(`${file.name} line ${line.lineNumber}: ${line.problem}`);
        context.setExitCode(exitCodes.failure);
        continue;
      }
      const { entry } = line;
      const isShown =
        entry.atUs >= sinceUs &&
        (options.relation === undefined || entry.relation === options.relation);
      if (!isShown) continue;
      await output.line(options.json === true ? JSON.stringify(entry) : formatEntry(entry));
    }
  }
}

const arrows = { in: '<-', out: '->', local: '--' } as const;

function formatEntry(entry: AuditEntry): string {
  const { seq, atUs, relation, direction, action, object, outcome } = entry;
  const who = relation ?? 'this site';
  const about = object === '' ? '' : `  ${object}`;
  return `${formatTimeUs(atUs)}  ${seq}  ${arrows[direction]} ${who}  ${action}  ${outcome}${about}`;
}

async function verifyLog(options: AuditOptions, context: CommandContext): Promise<void> {
  const { output } = context;
  const directory = directoryOf(options, context);
  const expected = parseHead(options.expectHead);
  const verdict = await verifyAudit(directory, expected);
  const { finding, head, tornLine } = verdict;
  if (options.json === true) {
    await output.line(JSON.stringify({ isWhole: finding === undefined, ...verdict }));
  } else if (finding === undefined) {
    const entries = `${formatCount(verdict.entryCount)} entries in ${verdict.fileCount} files`;
    await output.line(`${output.style.green('whole')}  ${entries}`);
    await output.line(`head   ${head.seq}:${head.hash}`);
    const begun = verdict.notes.find(({ action }) => action === begunAction);
    if (begun !== undefined) await output.line(`begun  ${formatTimeUs(begun.atUs)}`);
  } else {
    await output.line(`${output.style.red('broken')}  ${placeOf(finding)}`);
    await output.line(`  ${finding.problem}`);
    await output.line(`  whole up to ${head.seq}:${head.hash}`);
  }
  for (const { seq, atUs, action, object } of options.json === true ? [] : verdict.notes) {
    if (action === begunAction) continue;
    output.remark(`entry ${seq} of ${formatTimeUs(atUs)} says: ${action} ${object}`);
  }
  if (tornLine !== undefined && options.json !== true) {
    const place = `${tornLine.file} line ${tornLine.lineNumber}`;
    output.remark(`${place} has no end: it is being written, or a crash cut it off`);
  }
  if (finding !== undefined) context.setExitCode(exitCodes.failure);
}

function placeOf({ file, lineNumber, offsetBytes, seq }: AuditFinding): string {
  if (file === null || lineNumber === null) return `${file ?? 'at the end'}, entry ${seq}`;
  return `${file} line ${lineNumber} (byte ${offsetBytes}), entry ${seq}`;
}

/** @throws UsageError */
function parseHead(text: string | undefined): AuditHead | undefined {
  if (text === undefined) return undefined;
  const [, seq, hash] = /^(\d{1,15}):([0-9a-f]{64})$/.exec(text) ?? [];
  if (seq === undefined || hash === undefined) {
    throw new UsageError(`'${text}' is no head: give SEQ:HASH as isobar audit verify prints it`);
  }
  return { seq: Number(seq), hash };
}
