import type { Command } from 'commander';
import type { z } from 'zod';

import type { ControlClient } from '../../common/control/control-client.ts';
import { ControlError } from '../../common/control/control-client.ts';
import { stageStatusSchema } from '../../common/control/stage-answer.ts';
import type { StageCounts } from '../../common/runtime/stage-counters.ts';
import { connectClients } from '../clients.ts';
import type { CommandContext, GlobalOptions, Output } from '../context.ts';
import { exitCodes } from '../exit-code.ts';
import { formatDurationMs } from '../text/duration.ts';
import { formatTable } from '../text/table.ts';
import { formatAge } from '../text/time.ts';
import { formatCount } from '../text/value.ts';
import { upStatusSchema, type UpStatus } from '../up/up-status.ts';
import { examples } from './examples.ts';

interface StatusOptions extends GlobalOptions {
  readonly json?: boolean;
}

export function addStatusCommand(program: Command, context: CommandContext): void {
  const command = program
    .command('status')
    .description(
      'what runs, and what each stage of the data path counts; exit code 1 if a part is missing',
    )
    .option('--json', 'one JSON document')
    .action(async (_options: unknown, self: Command) => {
      await showStatus(self.optsWithGlobals<StatusOptions>(), context);
    });
  examples(command, [
    ['isobar status', ''],
    ["isobar status --json | jq '.stages[] | select(.failed > 0)'", 'what failed anywhere'],
  ]);
}

interface Stage extends StageCounts {
  readonly process: string;
  readonly stage: string;
}

async function showStatus(options: StatusOptions, context: CommandContext): Promise<void> {
  const clients = connectClients(context, options);
  const parts = [
    ['guest-agent', clients.guest],
    ['host-collector', clients.collector],
    ['primary-site', clients.reader],
  ] as const;
  const [up, ...answers] = await Promise.all([
    ask(clients.up, upStatusSchema),
    ...parts.map(([, client]) => ask(client, stageStatusSchema)),
  ]);
  // Nothing at all runs: then the one thing to say is how to start it.
  if (up instanceof ControlError && answers.every((answer) => answer instanceof ControlError)) {
    throw up;
  }
  const stages: Stage[] = [];
  const problems: string[] = [];
  for (const [index, [process]] of parts.entries()) {
    const answer = answers[index];
    if (answer instanceof ControlError) problems.push(answer.message);
    else if (answer !== undefined) {
      for (const [stage, counts] of Object.entries(answer.stages)) {
        stages.push({ process, stage, ...counts });
      }
    }
  }
  const machine = up instanceof ControlError ? null : up;
  if (options.json === true) {
    await context.output.line(JSON.stringify({ up: machine, stages, problems }));
  } else {
    if (machine !== null) await printProcesses(machine, context);
    await printStages(stages, context.output);
    for (const problem of problems) context.output.remark(problem);
  }
  if (problems.length > 0) context.setExitCode(exitCodes.failure);
}

/** A part that does not answer is a finding, not the end of the report. */
async function ask<Schema extends z.ZodType>(
  client: ControlClient,
  schema: Schema,
): Promise<z.output<Schema> | ControlError> {
  try {
    return await client.get('/v1/status', schema);
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

async function printStages(stages: readonly Stage[], output: Output): Promise<void> {
  if (stages.length === 0) return;
  const emphasize = (count: number): string =>
    count === 0 ? '0' : output.style.red(formatCount(count));
  const rows = stages.map((stage) => [
    stage.process,
    stage.stage,
    formatCount(stage.accepted),
    formatCount(stage.forwarded),
    emphasize(stage.dropped),
    emphasize(stage.failed),
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
