import { runProcess } from '../../common/runtime/run-process.ts';
import { buildRelay } from './build-relay.ts';
import { relayConfigSchema } from './relay-config.ts';

/** The relay process. */
await runProcess({
  name: 'relay',
  schema: relayConfigSchema,
  build: (config, deps) => buildRelay(config, deps).service,
});
