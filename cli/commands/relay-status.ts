import type { Command } from 'commander';

import {
  relayPaths,
  relayStatusSchema,
  type RelayStatus,
} from '../../common/control/relay-answer.ts';
import type { CommandContext } from '../context.ts';
import { exitCodes } from '../exit-code.ts';
import { connectProcess } from '../single-process.ts';
import { formatDurationMs } from '../text/duration.ts';
import { formatTable } from '../text/table.ts';
import { formatAge } from '../text/time.ts';
import { formatCount } from '../text/value.ts';
import { examples } from './examples.ts';
import { describeSilence, printStages, stagesOf } from './status.ts';

interface RelayStatusOptions {
  readonly config: string;
  readonly json?: boolean;
}

/** Adds `isobar relay status`. */
export function addRelayStatusCommand(relay: Command, context: CommandContext): void {
  const command = relay
    .command('status')
    .description(
      'neighbours, the VMs that pass through, and what each stage counts; exit code 1 if a neighbour does not answer',
    )
    .requiredOption('--config <file>', 'the configuration that the relay runs with')
    .option('--json', 'one JSON document')
    .action(async (options: RelayStatusOptions) => {
      await showRelayStatus(options, context);
    });
  examples(command, [
    ['isobar relay status --config relay.json', ''],
    ["isobar relay status --config relay.json --json | jq '.vms[]'", 'for other programs'],
  ]);
}

async function showRelayStatus(
  { config, json }: RelayStatusOptions,
  context: CommandContext,
): Promise<void> {
  const { output } = context;
  const client = connectProcess(config, 'relay');
  const status = await client.get(relayPaths.status, relayStatusSchema);
  if (json === true) await output.line(JSON.stringify(status));
  else await print(status, context);
  const silent = status.neighbours.filter(({ isLive }) => !isLive);
  for (const { relation, failure } of silent) {
    output.remark(describeSilence(relation, failure));
  }
  if (silent.length > 0) context.setExitCode(exitCodes.failure);
}

async function print(status: RelayStatus, context: CommandContext): Promise<void> {
  const { output } = context;
  const { style, columns } = output;
  if (status.listens !== null) await output.line(`listens  ${status.listens}`);
  if (status.control !== null) await output.line(`control  ${status.control}`);
  await output.line(`log      ${formatCount(status.logBytes)} bytes`);
  await output.line(`buffered ${formatCount(status.bufferedBytes)} bytes`);
  await output.line('');
  const neighbours = status.neighbours.map(({ relation, direction, isLive, delays }) => [
    relation,
    direction,
    isLive ? style.green('live') : style.red('silent'),
    delays === null ? '-' : formatCount(delays.delayedFrames),
  ]);
  const neighbourColumns = [
    { title: 'NEIGHBOUR', widthMin: 9 },
    { title: 'DIRECTION' },
    { title: 'STATE' },
    { title: 'DELAYED', alignment: 'right' },
  ] as const;
  for (const line of formatTable(neighbourColumns, neighbours, columns)) await output.line(line);
  await output.line('');
  await printRelayedVms(status, context);
  await printSubscriptions(status, context);
  await printStages(stagesOf('relay', status.stages), output);
}

/**
 * HEAD is the newest frame here, BEHIND how many more the VM's host has told of, DELAYED how many were over a quota when they
 * came.
 */
async function printRelayedVms({ vms }: RelayStatus, context: CommandContext): Promise<void> {
  if (vms.length === 0) return;
  const { output, clock } = context;
  const nowUs = clock.wallUs();
  const rows = vms.map(({ vm, from, state, reportedAtUs, epoch, head, originHead, delays }) => [
    vm,
    from ?? '-',
    state === 'running' ? output.style.green(state) : output.style.yellow(state),
    reportedAtUs === null ? '-' : formatAge(reportedAtUs, nowUs),
    epoch === null ? '-' : String(epoch),
    formatCount(head),
    originHead === null ? '-' : formatCount(Math.max(0, originHead - head)),
    delays === null ? '-' : formatCount(delays.delayedFrames),
  ]);
  const columns = [
    { title: 'VM', widthMin: 8 },
    { title: 'FROM', widthMin: 8 },
    { title: 'STATE' },
    { title: 'HEARD', alignment: 'right' },
    { title: 'EPOCH', alignment: 'right' },
    { title: 'HEAD', alignment: 'right' },
    { title: 'BEHIND', alignment: 'right' },
    { title: 'DELAYED', alignment: 'right' },
  ] as const;
  for (const line of formatTable(columns, rows, output.columns)) await output.line(line);
  await output.line('');
}

/** What extra consumers asked for: * stands for every VM. */
async function printSubscriptions(
  { subscriptions }: RelayStatus,
  context: CommandContext,
): Promise<void> {
  if (subscriptions.length === 0) return;
  const { output, clock } = context;
  const nowUs = clock.wallUs();
  const rows = subscriptions.map(({ relation, vm, kind, expiresAtUs }) => [
    relation,
    `${vm ?? '*'}/${kind}`,
    formatDurationMs((expiresAtUs - nowUs) / 1_000),
  ]);
  const columns = [
    { title: 'ON DEMAND', widthMin: 9 },
    { title: 'STREAM', widthMin: 8 },
    { title: 'FOR', alignment: 'right' },
  ] as const;
  for (const line of formatTable(columns, rows, output.columns)) await output.line(line);
  await output.line('');
}
