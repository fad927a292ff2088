import { runProcess } from '../common/runtime/run-process.ts';
import { guestAgentConfigSchema } from './config.ts';
import { SupervisedAgent } from './supervised-agent.ts';

/** The agent process; the supervisor starts it and hands it the mount. */
await runProcess({
  name: 'guest-agent',
  schema: guestAgentConfigSchema,
  ownsParentChannel: true,
  build: (config, deps) => new SupervisedAgent(config, deps),
});
