import assert from 'node:assert';

import { decodeDownstream, decodeUpstream } from '../../../common/wire/control-message.ts';
import type { FuzzRandom } from '../fuzz-random.ts';
import type { FuzzTarget } from '../fuzz-target.ts';
import { goldenControlMessages } from '../golden-files.ts';

/** What a log line may hold of it. */
const ruleCharsMax = 1_024;
const samples = [...goldenControlMessages('up'), ...goldenControlMessages('down')];

/** Control messages between producer and consumer, in either direction. */
export const controlMessages: FuzzTarget = {
  name: 'control-messages',
  dictionary: ['"v":1,', '"kind":"heads",', '"session":"s",', '"epoch":{},', '"extra":0,', '[[],'],
  // More than is taken.
  inputBytesMax: 300_000,
  start: () =>
    Promise.resolve({
      samples,
      generate: manyEntries,
      run: (input) => {
        for (const decode of [decodeUpstream, decodeDownstream]) {
          const decoded = decode(input);
          if (!decoded.ok) assert(decoded.rule.length <= ruleCharsMax, 'a rule fits a log line');
        }
      },
      checkStillWorks: () => {
        for (const sample of samples) {
          assert(decodeUpstream(sample).ok !== decodeDownstream(sample).ok);
        }
        return Promise.resolve();
      },
      stop: () => Promise.resolve(),
    }),
};

/** Far more of what a message may have some of. */
function manyEntries(random: FuzzRandom): Uint8Array {
  const message = JSON.parse(random.pick(samples).toString()) as Record<string, unknown>;
  const key = random.pick(Object.keys(message));
  const entry = random.pick([0, {}, [], message]);
  const entries = Array.from({ length: random.below(20_000) }, () => entry);
  const named = Object.fromEntries(entries.map((each, index) => [`k${index}`, each]));
  const put = random.pick([entries, named, { ...message, ...named }]);
  return Buffer.from(JSON.stringify({ ...message, [key]: put }));
}
