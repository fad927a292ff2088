import { runProcess } from '../common/runtime/run-process.ts';
import { buildHostCollector } from './build-host-collector.ts';
import { hostCollectorConfigSchema } from './config.ts';

/** The host collector process. */
await runProcess({
  name: 'host-collector',
  schema: hostCollectorConfigSchema,
  logLevelOf: ({ logLevel }) => logLevel,
  dataDirectoryOf: ({ dataDirectory }) => dataDirectory,
  build: (config, deps) => buildHostCollector(config, deps).service,
});
