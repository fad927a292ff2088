import type { Command } from 'commander';
import type { z } from 'zod';

import {
  collectorPaths,
  collectorStatusSchema,
  type CollectorNeighbour,
} from '../../common/control/collector-answer.ts';
import { ControlError, type ControlClient } from '../../common/control/control-client.ts';
import {
  readerStatusSchema,
  type IntegrityRecord,
  type ReaderVmStatus,
} from '../../common/control/reader-answer.ts';
import { stageStatusSchema } from '../../common/control/stage-answer.ts';
import type { StageCounts } from '../../common/runtime/stage-counters.ts';
import { configOption, connectClients } from '../clients.ts';
import type { CommandContext, Output, ProcessOptions } from '../context.ts';
import { exitCodes } from '../exit-code.ts';
import { connectAnyProcess } from '../single-process.ts';
import { formatDurationMs } from '../text/duration.ts';
import { printable } from '../text/style.ts';
import { formatTable } from '../text/table.ts';
import { formatAge, formatTimeUs } from '../text/time.ts';
import { formatCount } from '../text/value.ts';
import { upStatusSchema, type UpStatus } from '../up/up-status.ts';
import { UsageError } from '../usage-error.ts';
import { examples } from './examples.ts';

interface StatusOptions extends ProcessOptions {
  readonly json?: boolean;
}

export function addStatusCommand(program: Command, context: CommandContext): void {
  const command = program
    .command('status')
    .description(
      'what runs, and what each stage of the data path counts; exit code 1 if a part is missing or keeps failing',
    )
    .option('--json', 'one JSON document')
    .addOption(configOption('process'))
    .action(async (_options: unknown, self: Command) => {
      await showStatus(self.optsWithGlobals<StatusOptions>(), context);
    });
  examples(command, [
    ['isobar status', ''],
    ['isobar status --config primary-site.json', 'of one process that runs alone'],
    ["isobar status --json | jq '.stages[] | select(.failed > 0)'", 'what failed anywhere'],
  ]);
}

/** What one stage of a process counts. */
export interface Stage extends StageCounts {
  readonly process: string;
  readonly stage: string;
}

interface Vm {
  readonly vm: string;
  readonly state: string;
  readonly revision: number;
  readonly guestTrouble: GuestTrouble | null;
}

type GuestTrouble = NonNullable<
  z.output<typeof collectorStatusSchema>['vms'][number]['guestTrouble']
>;

/** What has come of a VM's streams to the reader. */
type Stream = ReaderVmStatus;

interface Report {
  readonly up: UpStatus | null;
  /** Whom a collector that runs alone delivers to. */
  readonly neighbours: readonly CollectorNeighbour[];
  readonly vms: readonly Vm[];
  readonly streams: readonly Stream[];
  readonly stages: readonly Stage[];
  /** Frames that the reader refused, or found to be wrong. */
  readonly integrity: readonly IntegrityRecord[];
  /** Parts that are missing and channels that keep failing, each with what to do. */
  readonly problems: readonly string[];
}

async function showStatus(options: StatusOptions, context: CommandContext): Promise<void> {
  const report = await gather(await asked(context, options), context.clock.wallUs());
  if (options.json === true) {
    await context.output.line(JSON.stringify(report));
  } else {
    if (report.up !== null) await printProcesses(report.up, context);
    await printNeighbours(report.neighbours, context.output);
    await printVms(report.vms, context.output);
    await printStreams(report.streams, context);
    await printLost(report.streams, context.output);
    await printIntegrity(report.integrity, context);
    await printStages(report.stages, context.output);
    for (const problem of report.problems) context.output.remark(problem);
  }
  if (report.problems.length > 0) context.setExitCode(exitCodes.failure);
}

/** Whom to ask; nobody is missed who is not among them. */
type Asked = Readonly<Partial<Record<'up' | 'guest' | 'collector' | 'reader', ControlClient>>>;

/** @throws ControlError when the process of `--config` does not answer */
async function asked(context: CommandContext, options: StatusOptions): Promise<Asked> {
  const { config } = options;
  if (config === undefined) {
    const { up, guest, collector, reader } = connectClients(context, options);
    return { up, guest, collector, reader };
  }
  const client = connectAnyProcess(config);
  const { name } = await client.process();
  switch (name) {
    case 'guest-agent':
      return { guest: client };
    case 'host-collector':
      return { collector: client };
    case 'primary-site':
      return { reader: client };
    default:
      throw new UsageError(`a ${name} runs there: isobar ${name} status --config ${config}`);
  }
}

/** @throws ControlError `not-running` when nothing at all runs: then how to start it is the one thing to say */
async function gather(clients: Asked, nowUs: number): Promise<Report> {
  const [up, guest, collector, reader] = await Promise.all([
    ask(clients.up, '/v1/status', upStatusSchema),
    ask(clients.guest, '/v1/status', stageStatusSchema),
    ask(clients.collector, collectorPaths.status, collectorStatusSchema),
    ask(clients.reader, '/v1/status', readerStatusSchema),
  ]);
  const errors = [guest, collector, reader].filter((answer) => answer instanceof ControlError);
  if (up instanceof ControlError && errors.length === 3) throw up;
  const problems = errors.map((error) => error.message);
  const stages: Stage[] = [];
  const vms: Vm[] = [];
  const streams: Stream[] = [];
  const integrity: IntegrityRecord[] = [];
  const neighbours: CollectorNeighbour[] = [];
  if (guest !== null && !(guest instanceof ControlError)) {
    stages.push(...stagesOf('guest-agent', guest.stages));
  }
  if (collector !== null && !(collector instanceof ControlError)) {
    for (const { vm, vmState, revision, problem, guestTrouble } of collector.vms) {
      if (problem !== undefined) problems.push(problem);
      vms.push({ vm, state: vmState, revision, guestTrouble });
      if (guestTrouble !== null) problems.push(describeTrouble(vm, guestTrouble, nowUs));
    }
    // Where the reader is asked as well, it says whether it is connected.
    for (const neighbour of clients.reader === undefined ? collector.neighbours : []) {
      const { relation, isLive, failure } = neighbour;
      neighbours.push(neighbour);
      if (!isLive) problems.push(describeSilence(relation, failure));
    }
    stages.push(...stagesOf('host-collector', collector.stages));
  }
  if (reader !== null && !(reader instanceof ControlError)) {
    stages.push(...stagesOf('primary-site', reader.stages));
    streams.push(...reader.vms);
    integrity.push(...reader.integrity);
    if (reader.waitingFrames > 0) {
      problems.push(
        `${reader.waitingFrames} sealed frames wait for a key that the reader has not: see keysDirectory`,
      );
    }
    for (const name of reader.setAside) {
      problems.push(`a damaged database of the reader was replaced, and kept as ${name}`);
    }
    if (!reader.isLive) {
      const why = reader.failure === null ? '' : `: ${printable(reader.failure)}`;
      problems.push(`the reader is not connected to its producer${why}`);
    }
  }
  const parts = up instanceof ControlError ? null : up;
  return { up: parts, neighbours, vms, streams, stages, integrity, problems };
}

/** What to do about a neighbour that is not there. */
export function describeSilence(relation: string, failure: string | null): string {
  const why = failure === null ? '' : `: ${printable(failure)}`;
  return `the neighbour of relation ${relation} does not answer${why}; is it up, is its address right, and do both trust each other (isobar site status)?`;
}

function describeTrouble(vm: string, trouble: GuestTrouble, nowUs: number): string {
  const { sinceUs, reason, failureCount } = trouble;
  return (
    `the guest channel of ${vm} keeps failing since ${formatTimeUs(sinceUs)} (${formatAge(sinceUs, nowUs)}, ` +
    `${formatCount(failureCount)} times in a row): ${printable(reason)}; rows stay in the guest until it works`
  );
}

/** The stages that a process answers, with its name. */
export function stagesOf(process: string, stages: Readonly<Record<string, StageCounts>>): Stage[] {
  return Object.entries(stages).map(([stage, counts]) => ({ process, stage, ...counts }));
}

/** A part that does not answer is a finding, not the end of the report. */
async function ask<Schema extends z.ZodType>(
  client: ControlClient | undefined,
  path: string,
  schema: Schema,
): Promise<z.output<Schema> | ControlError | null> {
  if (client === undefined) return null;
  try {
    return await client.get(path, schema);
  } catch (error) {
    if (error instanceof ControlError) return error;
    throw error;
  }
}

async function printProcesses(up: UpStatus, context: CommandContext): Promise<void> {
  const { output } = context;
  const nowUs = context.clock.wallUs();
  await output.line(`mount  ${output.style.bold(up.mount)}`);
  await output.line(`data   ${up.dataDirectory}`);
  await output.line(`mqtt   ${up.mqttUrl}`);
  await output.line('');
  const rows = up.processes.map((process) => [
    process.name,
    process.pid === null ? output.style.red('restarting') : String(process.pid),
    formatAge(process.startedAtUs, nowUs),
    process.restartCount === 0 ? '0' : output.style.yellow(String(process.restartCount)),
  ]);
  const columns = [
    { title: 'PROCESS' },
    { title: 'PID', alignment: 'right' },
    { title: 'STARTED', alignment: 'right' },
    { title: 'RESTARTS', alignment: 'right' },
  ] as const;
  for (const line of formatTable(columns, rows, output.columns)) await output.line(line);
  await output.line('');
}

async function printNeighbours(
  neighbours: readonly CollectorNeighbour[],
  output: Output,
): Promise<void> {
  if (neighbours.length === 0) return;
  const { style } = output;
  const rows = neighbours.map(({ relation, isLive }) => [
    relation,
    isLive ? style.green('live') : style.red('silent'),
  ]);
  const columns = [{ title: 'NEIGHBOUR', widthMin: 9 }, { title: 'STATE' }] as const;
  for (const line of formatTable(columns, rows, output.columns)) await output.line(line);
  await output.line('');
}

async function printVms(vms: readonly Vm[], output: Output): Promise<void> {
  if (vms.length === 0) return;
  const rows = vms.map(({ vm, state, revision }) => [
    vm,
    state === 'running' ? output.style.green(state) : output.style.yellow(state),
    String(revision),
  ]);
  const columns = [
    { title: 'VM', widthMin: 8 },
    { title: 'STATE' },
    { title: 'REVISION', alignment: 'right' },
  ] as const;
  for (const line of formatTable(columns, rows, output.columns)) await output.line(line);
  await output.line('');
}

/** Each VM as the reader sees it: what of its newest epoch is missing, how older ones ended, what is lost. */
async function printStreams(streams: readonly Stream[], context: CommandContext): Promise<void> {
  if (streams.length === 0) return;
  const { output } = context;
  const nowUs = context.clock.wallUs();
  const warn = (count: number): string =>
    count === 0 ? '0' : output.style.yellow(formatCount(count));
  const rows = streams.flatMap(({ vm, state, reportedAtUs, epochs, losses }) =>
    epochs.map((epoch, index) => [
      index === 0 ? vm : '',
      index === 0 ? state : '',
      index === 0 && reportedAtUs !== null ? formatAge(reportedAtUs, nowUs) : '',
      String(epoch.number),
      epoch.end === 'unknown' ? output.style.yellow('end unknown') : epoch.end,
      formatCount(epoch.headSeq),
      warn(epoch.missingFrames),
      warn(epoch.lostFrames),
      index === 0 ? warn(losses.reduce((sum, { count }) => sum + count, 0)) : '',
    ]),
  );
  const columns = [
    { title: 'STREAM', widthMin: 8 },
    { title: 'SEEN AS' },
    { title: 'HEARD', alignment: 'right' },
    { title: 'EPOCH', alignment: 'right' },
    { title: 'END' },
    { title: 'HEAD', alignment: 'right' },
    { title: 'MISSING', alignment: 'right' },
    { title: 'GIVEN UP', alignment: 'right' },
    { title: 'ROWS LOST', alignment: 'right' },
  ] as const;
  for (const line of formatTable(columns, rows, output.columns)) await output.line(line);
  await output.line('');
}

/** Which frames are lost, why, and whose word that is: whoever only says so stays visible. */
async function printLost(streams: readonly Stream[], output: Output): Promise<void> {
  const rows = streams.flatMap(({ vm, epochs }) =>
    epochs.flatMap(({ number, lost }) =>
      lost.map(({ fromSeq, throughSeq, reason, declaredBy, isSigned }) => [
        vm,
        String(number),
        fromSeq === throughSeq ? String(fromSeq) : `${fromSeq}-${throughSeq}`,
        formatCount(throughSeq - fromSeq + 1),
        printable(reason),
        declaredBy ?? 'this site',
        declaredBy === null || isSigned ? 'yes' : output.style.yellow('no'),
      ]),
    ),
  );
  if (rows.length === 0) return;
  const columns = [
    { title: 'LOST', widthMin: 8 },
    { title: 'EPOCH', alignment: 'right' },
    { title: 'SEQ', alignment: 'right' },
    { title: 'FRAMES', alignment: 'right' },
    { title: 'REASON' },
    { title: 'DECLARED BY' },
    { title: 'VERIFIED' },
  ] as const;
  for (const line of formatTable(columns, rows, output.columns)) await output.line(line);
  await output.line('');
}

async function printIntegrity(
  records: readonly IntegrityRecord[],
  { output, clock }: CommandContext,
): Promise<void> {
  if (records.length === 0) return;
  const nowUs = clock.wallUs();
  const rows = records.map(({ vm, stream, epoch, finding, count, firstSeq, lastSeq, lastAtUs }) => [
    vm === '' ? 'other VMs' : `${vm} ${stream}`,
    epoch === 0 ? 'others' : String(epoch),
    output.style.red(finding),
    formatCount(count),
    firstSeq === lastSeq ? String(firstSeq) : `${firstSeq}-${lastSeq}`,
    formatAge(lastAtUs, nowUs),
  ]);
  const columns = [
    { title: 'NOT TRUSTED', widthMin: 11 },
    { title: 'EPOCH', alignment: 'right' },
    { title: 'FINDING' },
    { title: 'FRAMES', alignment: 'right' },
    { title: 'SEQ', alignment: 'right' },
    { title: 'LAST', alignment: 'right' },
  ] as const;
  for (const line of formatTable(columns, rows, output.columns)) await output.line(line);
  await output.line('');
}

/** The table that follows the data path, stage by stage. */
export async function printStages(stages: readonly Stage[], output: Output): Promise<void> {
  if (stages.length === 0) return;
  const { yellow, red } = output.style;
  const rows = stages.map((stage) => [
    stage.process,
    stage.stage,
    formatCount(stage.accepted),
    formatCount(stage.forwarded),
    // Duplicates, for one, are no loss.
    coloured(stage.dropped, yellow),
    coloured(stage.failed, red),
    stage.lagMs === null ? '-' : formatDurationMs(stage.lagMs),
  ]);
  const columns = [
    { title: 'PROCESS', widthMin: 8 },
    { title: 'STAGE', widthMin: 8 },
    { title: 'ACCEPTED', alignment: 'right' },
    { title: 'FORWARDED', alignment: 'right' },
    { title: 'DROPPED', alignment: 'right' },
    { title: 'FAILED', alignment: 'right' },
    { title: 'LAG', alignment: 'right' },
  ] as const;
  for (const line of formatTable(columns, rows, output.columns)) await output.line(line);
}

function coloured(count: number, colour: (text: string) => string): string {
  return count === 0 ? '0' : colour(formatCount(count));
}
