import { parseArgs } from 'node:util';

import { ConfigError, exitCodeConfig, loadConfig } from '../common/config/load-config.ts';
import { OperatingError } from '../common/runtime/operating-error.ts';
import type { Service } from '../common/runtime/service.ts';
import { buildPrimarySite } from './build-primary-site.ts';
import { primarySiteConfigSchema } from './primary-site-config.ts';

const exitCodeFailure = 1;
const exitCodeUsage = 2;
const usage = 'usage: primary-site --config FILE [--check-config]';

await main();

async function main(): Promise<void> {
  const config = readArguments();
  if (config === undefined) return;
  try {
    const parsed = loadConfig(primarySiteConfigSchema, config.path);
    if (config.checksOnly) return;
    const { service } = buildPrimarySite(parsed);
    stopOnSignals(service);
    await service.start();
  } catch (error) {
    if (!(error instanceof OperatingError)) throw error;
    console.error(error.message);
    process.exitCode = error instanceof ConfigError ? exitCodeConfig : exitCodeFailure;
  }
}

function readArguments(): { readonly path: string; readonly checksOnly: boolean } | undefined {
  try {
    const { values } = parseArgs({
      options: { config: { type: 'string' }, 'check-config': { type: 'boolean', default: false } },
    });
    if (values.config !== undefined) {
      return { path: values.config, checksOnly: values['check-config'] };
    }
    console.error(usage);
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : String(error)}\n${usage}`);
  }
  process.exitCode = exitCodeUsage;
  return undefined;
}

/** The first signal drains and ends; the second ends at once, as nothing handles it any more. */
function stopOnSignals(service: Service): void {
  const signals = ['SIGTERM', 'SIGINT'] as const;
  const stop = (): void => {
    for (const signal of signals) process.off(signal, stop);
    service.stop().catch((error: unknown) => {
      console.error(error);
      process.exitCode = exitCodeFailure;
    });
  };
  for (const signal of signals) process.on(signal, stop);
}
