import { runProcess } from '../../common/runtime/run-process.ts';
import { buildRelay } from './build-relay.ts';
import { relayConfigSchema } from './relay-config.ts';

/** Runs a relay until it is told to stop. */
export function runRelay(): Promise<void> {
  return runProcess({
    name: 'relay',
    schema: relayConfigSchema,
    dataDirectoryOf: ({ dataDirectory }) => dataDirectory,
    logLevelOf: ({ logLevel }) => logLevel,
    build: (config, deps) => buildRelay(config, deps).service,
  });
}
