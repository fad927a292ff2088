import { runProcess } from '../common/runtime/run-process.ts';
import { guestAgentConfigSchema } from './config.ts';
import { NativeAgent } from './native-agent.ts';
import { SupervisedAgent } from './supervised-agent.ts';

/**
 * The agent process. With the dev-fuse backend the supervisor starts it and hands it the mount; with fuse-native it mounts
 * by itself.
 */
await runProcess({
  name: 'guest-agent',
  schema: guestAgentConfigSchema,
  dataDirectoryOf: ({ dataDirectory }) => dataDirectory,
  ownsParentChannel: (config) => config.fuseBackend === 'dev-fuse',
  build: (config, deps) =>
    config.fuseBackend === 'dev-fuse'
      ? new SupervisedAgent(config, deps)
      : new NativeAgent(config, deps),
});
