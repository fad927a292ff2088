import { readFile } from 'node:fs/promises';

import type { Command } from 'commander';
import { z } from 'zod';

import { ConfigError, parseConfig } from '../../common/config/load-config.ts';
import {
  collectorPaths,
  vmAnswerSchema,
  vmListAnswerSchema,
} from '../../common/control/collector-answer.ts';
import { vmDescriptorSchema, type VmDescriptor } from '../../common/wire/vm-descriptor.ts';
import { configOption, connectCollector } from '../clients.ts';
import type { CommandContext, ProcessOptions } from '../context.ts';
import { formatTable } from '../text/table.ts';
import { UsageError } from '../usage-error.ts';
import { examples } from './examples.ts';

interface VmOptions extends ProcessOptions {
  readonly json?: boolean;
  readonly revision?: string;
}

export function addVmCommands(program: Command, context: CommandContext): void {
  const vm = program.command('vm').description('the VMs that the host collector measures');
  examples(vm, [
    ['isobar vm list', ''],
    ['isobar help vm add', 'more about one of them'],
  ]);
  const add = vm
    .command('add')
    .description('measure one more VM, from now on')
    .argument('<file>', 'the VM descriptor, a JSON file; - reads standard input')
    .option('--json', 'print the registered descriptor')
    .action(async (file: string, _options: unknown, self: Command) => {
      await addVm(file, self.optsWithGlobals<VmOptions>(), context);
    });
  examples(add, [
    ['isobar config example vm > vm1.json', 'a descriptor to begin with'],
    ['isobar vm add vm1.json', ''],
  ]);
  const list = vm
    .command('list')
    .description('the registered VMs')
    .option('--json', 'one JSON document a line')
    .action(async (_options: unknown, self: Command) => {
      await listVms(self.optsWithGlobals<VmOptions>(), context);
    });
  examples(list, [['isobar vm list', '']]);
  const show = vm
    .command('show')
    .description("a VM's descriptor, as JSON")
    .argument('<vm>', 'id of the VM')
    .option('--json', 'on one line')
    .action(async (id: string, _options: unknown, self: Command) => {
      const options = self.optsWithGlobals<VmOptions>();
      const descriptor = await fetchVm(id, options, context);
      await context.output.line(
        JSON.stringify(descriptor, undefined, options.json === true ? undefined : 2),
      );
    });
  examples(show, [['isobar vm show vm1 > vm1.json', 'to edit it and set it again']]);
  const set = vm
    .command('set-monitoring')
    .description('replace what is measured of a VM, from the next interval boundary on')
    .argument('<vm>', 'id of the VM')
    .argument('<file>', 'a descriptor, or its "monitoring" part; - reads standard input')
    .option(
      '--revision <n>',
      'the revision that the change was made from, where the file holds none',
    )
    .option('--json', 'print the new descriptor')
    .action(async (id: string, file: string, _options: unknown, self: Command) => {
      await setMonitoring(id, file, self.optsWithGlobals<VmOptions>(), context);
    });
  examples(set, [
    ['isobar vm show vm1 > vm1.json && editor vm1.json', ''],
    ['isobar vm set-monitoring vm1 vm1.json', 'refused when someone else changed it meanwhile'],
    ['isobar vm set-monitoring vm1 monitoring.json --revision 3', ''],
  ]);
  const remove = vm
    .command('remove')
    .description('measure a VM no longer; what is stored stays')
    .argument('<vm>', 'id of the VM')
    .action(async (id: string, _options: unknown, self: Command) => {
      const collector = connectCollector(context, self.optsWithGlobals<VmOptions>());
      await collector.call('DELETE', collectorPaths.vm(id), undefined, z.unknown());
      context.output.remark(`${id} is measured no longer`);
    });
  examples(remove, [['isobar vm remove vm1', '']]);
  for (const each of vm.commands) each.addOption(configOption('collector'));
}

async function fetchVm(
  id: string,
  options: VmOptions,
  context: CommandContext,
): Promise<VmDescriptor> {
  const collector = connectCollector(context, options);
  return collector.get(collectorPaths.vm(id), vmAnswerSchema);
}

async function addVm(file: string, options: VmOptions, context: CommandContext): Promise<void> {
  const descriptor = parseConfig(vmDescriptorSchema, await readDocument(file, context), file);
  const collector = connectCollector(context, options);
  const added = await collector.call('POST', collectorPaths.vms, descriptor, vmAnswerSchema);
  if (options.json === true) await context.output.line(JSON.stringify(added));
  else context.output.remark(`${added.id} is measured from now on (revision ${added.revision})`);
}

async function listVms(options: VmOptions, context: CommandContext): Promise<void> {
  const collector = connectCollector(context, options);
  const { vms, refused } = await collector.get(collectorPaths.vms, vmListAnswerSchema);
  for (const { reason } of refused) context.output.remark(reason);
  if (options.json === true) {
    for (const descriptor of vms) await context.output.line(JSON.stringify(descriptor));
    return;
  }
  if (vms.length === 0) {
    if (refused.length > 0) return;
    context.output.remark('no VM is registered; register one with: isobar vm add FILE');
    return;
  }
  const rows = vms.map((descriptor) => [
    descriptor.id,
    String(descriptor.revision),
    descriptor.probe.kind,
    descriptor.guest?.channel ?? '-',
    String(descriptor.monitoring.specifiers.length),
  ]);
  const columns = [
    { title: 'VM', widthMin: 8 },
    { title: 'REVISION', alignment: 'right' },
    { title: 'PROBE' },
    { title: 'GUEST', widthMin: 12 },
    { title: 'SPECIFIERS', alignment: 'right' },
  ] as const;
  for (const line of formatTable(columns, rows, context.output.columns)) {
    await context.output.line(line);
  }
}

async function setMonitoring(
  id: string,
  file: string,
  options: VmOptions,
  context: CommandContext,
): Promise<void> {
  const document = await readDocument(file, context);
  const isDescriptor =
    typeof document === 'object' && document !== null && 'monitoring' in document;
  let change: { readonly revision: number; readonly monitoring: unknown };
  if (isDescriptor) {
    const descriptor = parseConfig(vmDescriptorSchema, document, file);
    if (descriptor.id !== id) {
      throw new UsageError(`${file} describes ${descriptor.id}, not ${id}`);
    }
    const stated = 'revision' in document ? descriptor.revision : undefined;
    change = {
      revision: revisionOf(stated, options.revision, file),
      monitoring: descriptor.monitoring,
    };
  } else {
    const monitoring = parseConfig(vmDescriptorSchema.shape.monitoring, document, file);
    change = { revision: revisionOf(undefined, options.revision, file), monitoring };
  }
  const collector = connectCollector(context, options);
  const changed = await collector.call(
    'PUT',
    collectorPaths.monitoring(id),
    change,
    vmAnswerSchema,
  );
  if (options.json === true) await context.output.line(JSON.stringify(changed));
  else context.output.remark(`${id} is at revision ${changed.revision}`);
}

/** The revision that a change was made from: what the file states, or what the option does. */
function revisionOf(stated: number | undefined, option: string | undefined, file: string): number {
  if (option === undefined) {
    if (stated !== undefined) return stated;
    throw new UsageError(
      `${file} holds no revision: give --revision N, the one that 'isobar vm show' printed when you began the change`,
    );
  }
  const revision = Number(option);
  if (!Number.isInteger(revision) || revision < 1) {
    throw new UsageError(`--revision ${option} is no revision: give a whole number from 1 on`);
  }
  if (stated === undefined || stated === revision) return revision;
  throw new UsageError(
    `${file} holds revision ${stated}, not ${revision}: leave --revision out, or correct the file`,
  );
}

/** @throws ConfigError when the file can't be read or holds no JSON */
async function readDocument(file: string, context: CommandContext): Promise<unknown> {
  try {
    const text = file === '-' ? await context.readStandardInput() : await readFile(file, 'utf8');
    return JSON.parse(text);
  } catch (cause) {
    const rule = cause instanceof Error ? cause.message : String(cause);
    throw new ConfigError('config-unreadable', file, [{ path: '', value: '(unreadable)', rule }]);
  }
}
