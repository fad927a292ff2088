import { EmbeddedBroker, embeddedBrokerDefaults } from '../../broker/mqtt/embedded-broker.ts';
import { silentLog } from '../../common/runtime/log.ts';
import { Origin } from './origin.ts';
import { dataStream, rowRecord } from './sample-frames.ts';

/**
 * A producing process for end to end tests: `producer-process.js DATABASE PORT COUNT RELATION`. Commits and forwards frames
 * whose values count from where the log ended to COUNT, says `committed COUNT` then, and stays until it is killed.
 */
const [path = '', port = '0', count = '0', relation = 'primary-site'] = process.argv.slice(2);
const framesPerTurn = 5;
const turnMs = 2;

const stream = dataStream('vm1');
const broker = new EmbeddedBroker(
  { log: silentLog },
  { ...embeddedBrokerDefaults, port: Number(port) },
);
await broker.start();
const origin = new Origin(broker, path, { relations: [relation] });
await origin.producer.start();
if (origin.log.head(stream) === undefined) origin.openEpoch(stream);

const timer = setInterval(() => {
  for (let index = 0; index < framesPerTurn; index += 1) {
    const value = origin.log.head(stream)?.seq ?? 0;
    if (value > Number(count)) {
      clearInterval(timer);
      process.stdout.write(`committed ${value - 1}\n`);
      return;
    }
    origin.append(stream, [rowRecord('users', value * 1_000, [value])]);
  }
}, turnMs);
