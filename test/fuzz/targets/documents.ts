import assert from 'node:assert';

import { documentKinds } from '../../../cli/process-kinds.ts';
import { ConfigError, parseConfig } from '../../../common/config/load-config.ts';
import { invitationSchema } from '../../../common/identity/invitation.ts';
import { DescriptorError, checkDescriptor } from '../../../host-collector/vm/descriptor-store.ts';
import type { FuzzRandom } from '../fuzz-random.ts';
import type { FuzzTarget } from '../fuzz-target.ts';

/** Far below the largest body that is taken; above it, what is printed of problems. */
const messageCharsMax = 262_144;
const schemas = [...Object.values(documentKinds).map(({ schema }) => schema), invitationSchema];
const samples = Object.values(documentKinds).map(({ example }) =>
  Buffer.from(JSON.stringify(example)),
);
const predicates = [
  { condition: 'outside', lower: 1, upper: 5, kind: 'edge', edges: 'both', minimumDurationMs: 9 },
  { condition: 'changed-by', delta: 3 },
];
const descriptor = {
  apiVersion: 'isobar/v1',
  kind: 'VirtualMachine',
  id: 'vm1',
  monitoring: {
    specifiers: predicates.map((predicate, index) => ({
      id: `s${index}`,
      dataPoints: 'kpi/**',
      predicate,
    })),
    visibleToIntermediaries: ['infra/**'],
  },
};

/** Documents that people write: all configurations, descriptors, invitations. Each is checked as every kind. */
export const documents: FuzzTarget = {
  name: 'documents',
  dictionary: ['"apiVersion":"isobar/v1",', '"kind":"VirtualMachine",', '"monitoring":', 'null,'],
  // A body that the control socket takes.
  inputBytesMax: 4 * 1_048_576,
  start: () =>
    Promise.resolve({
      samples: [...samples, Buffer.from(JSON.stringify(descriptor))],
      generate: manyProblems,
      run: check,
      checkStillWorks: () => {
        for (const { schema, example } of Object.values(documentKinds)) {
          parseConfig(schema, example, 'example');
        }
        return Promise.resolve();
      },
      stop: () => Promise.resolve(),
    }),
};

/** Far more of something than a document has. */
function manyProblems(random: FuzzRandom): Uint8Array {
  const document = JSON.parse(random.pick(samples).toString()) as Record<string, unknown>;
  const count = random.pick([10, 1_000, 20_000]);
  const named = Object.fromEntries(Array.from({ length: count }, (_, index) => [`k${index}`, 0]));
  const list = Array.from({ length: count }, () => random.pick([0, {}, document]));
  const key = random.pick(Object.keys(document));
  const put = random.pick([named, list, { specifiers: list }]);
  return Buffer.from(
    JSON.stringify(random.once(2) ? { ...document, ...named } : { ...document, [key]: put }),
  );
}

function check(input: Uint8Array): void {
  let document: unknown;
  try {
    document = JSON.parse(Buffer.from(input).toString());
  } catch (error) {
    assert(error instanceof SyntaxError);
    return;
  }
  for (const schema of schemas) {
    refusesOrTakes(() => parseConfig(schema, document, 'document'));
  }
  refusesOrTakes(() => checkDescriptor(document));
}

function refusesOrTakes(read: () => unknown): void {
  try {
    read();
  } catch (error) {
    if (!(error instanceof ConfigError || error instanceof DescriptorError)) throw error;
    assert(error.problems.length > 0, 'a refusal says what is wrong');
    assert(
      error.message.length <= messageCharsMax,
      `a message of ${error.message.length} characters`,
    );
  }
}
