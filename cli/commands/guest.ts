import type { Command } from 'commander';

import { guestStatusSchema, type GuestStatus } from '../../common/control/guest-answer.ts';
import { configOption, connectGuest } from '../clients.ts';
import type { CommandContext, ProcessOptions } from '../context.ts';
import { formatTable } from '../text/table.ts';
import { formatAge } from '../text/time.ts';
import { formatBytes, formatCount } from '../text/value.ts';
import { examples } from './examples.ts';

interface GuestStatusOptions extends ProcessOptions {
  readonly json?: boolean;
}

/** Adds `guest status` below the `guest` command, and the examples of that. */
export function addGuestStatusCommand(guest: Command, context: CommandContext): void {
  const command = guest
    .command('status')
    .description(
      'the stores of the guest agent, saves that are held back, and what was refused and why',
    )
    .option('--json', 'one JSON document')
    .addOption(configOption('guest-agent'))
    .action(async (_options: unknown, self: Command) => {
      await showGuestStatus(self.optsWithGlobals<GuestStatusOptions>(), context);
    });
  examples(guest, [
    ['isobar guest status', ''],
    ['isobar help guest run', 'more about one of them'],
  ]);
  examples(command, [
    ['isobar guest status', ''],
    ['isobar guest status --config guest-agent.json', 'in a VM, of isobar guest run'],
    ["isobar guest status --json | jq '.quarantine[].reason'", 'why files were refused'],
  ]);
}

async function showGuestStatus(
  options: GuestStatusOptions,
  context: CommandContext,
): Promise<void> {
  const status = await connectGuest(context, options).get('/v1/status', guestStatusSchema);
  if (options.json === true) {
    await context.output.line(JSON.stringify(status));
    return;
  }
  for (const line of formatGuestStatus(status, context)) await context.output.line(line);
}

function formatGuestStatus(status: GuestStatus, context: CommandContext): string[] {
  const { columns, style } = context.output;
  const nowUs = context.clock.wallUs();
  const databases = formatTable(
    [
      { title: 'STORE' },
      { title: 'SIZE', alignment: 'right' },
      { title: 'BOUND', alignment: 'right' },
      { title: 'UNACKNOWLEDGED', alignment: 'right' },
      { title: 'LOST', alignment: 'right' },
      { title: 'GENERATION', widthMin: 8 },
    ],
    status.databases.map((database) => [
      database.area,
      formatBytes(database.sizeBytes),
      formatBytes(database.sizeBytesMax),
      formatCount(database.unacknowledgedRows),
      database.lostRows === 0 ? '0' : style.red(formatCount(database.lostRows)),
      database.generation,
    ]),
    columns,
  );
  const held = formatTable(
    [{ title: 'HELD', widthMin: 12 }, { title: 'SINCE', alignment: 'right' }, { title: 'REASON' }],
    status.held.map((save) => [save.path, formatAge(save.sinceUs, nowUs), save.reason]),
    columns,
  );
  const quarantine = formatTable(
    [
      { title: 'REFUSED', widthMin: 12 },
      { title: 'WHEN', alignment: 'right' },
      { title: 'SIZE', alignment: 'right' },
      { title: 'REASON', widthMin: 16 },
    ],
    status.quarantine.map((refused) => [
      refused.path,
      formatAge(refused.atUs, nowUs),
      formatBytes(refused.sizeBytes),
      refused.reason,
    ]),
    columns,
  );
  return [
    `mount  ${style.bold(status.mount)}`,
    '',
    ...databases,
    '',
    ...(status.held.length === 0 ? ['nothing is held back'] : held),
    '',
    ...(status.quarantine.length === 0 ? ['nothing was refused'] : quarantine),
  ];
}
