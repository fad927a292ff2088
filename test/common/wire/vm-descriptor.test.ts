import { generateKeyPairSync } from 'node:crypto';

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { problemsOf } from '../../../common/config/load-config.ts';
import {
  compileDataPointPattern,
  encryptedDataPoint,
  infraDataPoint,
  infraQuantities,
  kpiDataPoint,
  patternProblem,
} from '../../../common/wire/data-point.ts';
import { vmDescriptorSchema } from '../../../common/wire/vm-descriptor.ts';

const head = { apiVersion: 'isobar/v1', kind: 'VirtualMachine', id: 'vm1' };

/** Each problem as a person reads it, by path. */
function problemsIn(document: unknown): Record<string, string> {
  const parsed = vmDescriptorSchema.safeParse(document);
  if (parsed.success) return {};
  return Object.fromEntries(
    problemsOf(parsed.error, document).map(({ path, value, rule }) => [path, `${value}: ${rule}`]),
  );
}

function specifierProblems(...specifiers: readonly unknown[]): Record<string, string> {
  return problemsIn({ ...head, monitoring: { specifiers } });
}

describe('a VM descriptor: all problems at once', () => {
  test('rules over several fields are reported beside errors of fields, each with its own path', () => {
    const problems = problemsIn({
      ...head,
      id: 'v m',
      monitoring: {
        specifiers: [
          { id: 'a', dataPoints: 'encrypted/**', format: 'mean', holdMs: -1 },
          { id: 'a', dataPoints: 'kpi/**', monitoringIntervalMs: 'often' },
          { id: 'a', dataPoints: 'kpi/**', holdMs: 5, colour: 'red' },
          { dataPoints: 'encrypted/x', predicate: { condition: 'above' } },
          { id: 'b', dataPoints: 'kpi/**', monitoringIntervalMs: 1, deliveryIntervalMs: 200_000 },
        ],
        latenessMaxMs: -5,
      },
    });
    expect(Object.keys(problems).toSorted()).toEqual([
      'id',
      'monitoring.latenessMaxMs',
      'monitoring.specifiers[0].format',
      'monitoring.specifiers[0].holdMs',
      'monitoring.specifiers[1].id',
      'monitoring.specifiers[1].monitoringIntervalMs',
      'monitoring.specifiers[2].colour',
      'monitoring.specifiers[2].holdMs',
      'monitoring.specifiers[2].id',
      'monitoring.specifiers[3].id',
      'monitoring.specifiers[3].predicate',
      'monitoring.specifiers[3].predicate.threshold',
      'monitoring.specifiers[4].deliveryIntervalMs',
    ]);
    expect(problems['monitoring.specifiers[2].id']).toBe(
      '"a": ids are unique in a VM, and specifiers[0] has this one; choose another',
    );
  });

  test('a wrong field of a predicate is not hidden behind a missing condition', () => {
    const predicate = { kind: 'egde', hysteresis: -1, delta: 'x', limit: 3 };
    const problems = specifierProblems({ id: 'a', dataPoints: 'kpi/**', predicate });
    expect(Object.keys(problems).map((path) => path.split('.').at(-1))).toEqual([
      'condition',
      'kind',
      'hysteresis',
      'delta',
      'limit',
    ]);
    expect(problems['monitoring.specifiers[0].predicate.condition']).toContain('(missing)');
  });

  test('a wrong field of a probe is not hidden behind a wrong kind', () => {
    const problems = problemsIn({ ...head, probe: { kind: 'proces', pid: -1 } });
    expect(Object.keys(problems)).toEqual(['probe.kind', 'probe.pid']);
  });

  test('crossed limits of outside are reported beside a wrong kind', () => {
    const predicate = { condition: 'outside', lower: 5, upper: 1, kind: 'x' };
    expect(specifierProblems({ id: 'a', dataPoints: 'kpi/**', predicate })).toMatchObject({
      'monitoring.specifiers[0].predicate.lower': '5: must not exceed upper, 1',
      'monitoring.specifiers[0].predicate.kind': expect.any(String),
    });
  });

  test.each([7, null, 'text', [], { monitoring: 3 }, { monitoring: { specifiers: [null, 7] } }])(
    'a document of another shape is refused, not thrown over: %j',
    (document) => {
      expect(Object.keys(problemsIn(document))).not.toEqual([]);
    },
  );
});

describe('primarySitePublicKey', () => {
  const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const pem = publicKey.export({ type: 'spki', format: 'pem' }).toString();

  test('is one or several public keys or certificates in PEM', () => {
    for (const primarySitePublicKey of [pem, pem.repeat(16)]) {
      expect(vmDescriptorSchema.parse({ ...head, primarySitePublicKey })).toMatchObject({
        primarySitePublicKey,
      });
    }
    expect('primarySitePublicKey' in vmDescriptorSchema.parse(head)).toBe(false);
  });

  test.each([
    ['no key', 'no PEM block'],
    [pem.replaceAll('PUBLIC', 'PRIVATE'), 'a private key'],
    [pem.replace('MF', 'XX'), 'not a readable certificate or public key'],
    [pem.repeat(17), '17 recipients, at most 16'],
    ['x'.repeat(32_769), '32768'],
  ])('is refused with what is the matter: %#', (primarySitePublicKey, rule) => {
    const problems = problemsIn({ ...head, primarySitePublicKey });
    expect(JSON.stringify(problems)).toContain(rule);
  });
});

describe('patterns over data points', () => {
  test.each([
    'kpi/**',
    '**',
    '*/**',
    '*/*/*',
    'kpi/users/column1',
    'kpi/dir%2Ffile/*',
    'kpi/*/%C3%A9',
    'enc*/*',
    'encrypted/a*b',
    'infra/cpu/*_ratio',
    'kpi/**/column1',
  ])('%s is taken', (dataPoints) => {
    expect(specifierProblems({ id: 'a', dataPoints })).toEqual({});
  });

  test.each([
    ['kpis/**', 'write kpi/FILE/COLUMN, encrypted/FILE or infra/RESOURCE/QUANTITY'],
    ['kpi/w/*[', '"*[" is written *%5B here'],
    ['???', '"???" is written %3F%3F%3F here'],
    ['kpi/users', 'matches no data point'],
    ['kpi/dir/file/column1', '%2F for a / in FILE'],
    ['infra/CPU/*', 'matches no data point'],
    ['kpi//x', 'leave one / out'],
    ['kpi/50%/x', 'write a % as %25'],
    ['kpi/dir%2ffile/x', 'is written dir%2Ffile here'],
    ['/kpi/**', 'leave one / out'],
  ])('%s would measure nothing, so it is refused with what to write', (pattern, advice) => {
    const problems = problemsIn({
      ...head,
      monitoring: {
        specifiers: [{ id: 'a', dataPoints: pattern }],
        visibleToIntermediaries: ['infra/**', pattern],
      },
    });
    expect(problems['monitoring.specifiers[0].dataPoints']).toContain(advice);
    expect(problems['monitoring.visibleToIntermediaries[1]']).toContain(advice);
    expect(Object.keys(problems)).toHaveLength(2);
  });

  test.each(['infra/cpu/usage_ratoi', 'infra/cpu/*_bytes', 'infra/gpu/**', '*nfra/**/ratio'])(
    '%s names no quantity that a host measures, so it is refused with the list of those there are',
    (pattern) => {
      const problems = problemsIn({
        ...head,
        monitoring: {
          specifiers: [
            { id: 'a', dataPoints: 'infra/cpu/*' },
            { id: 'b', dataPoints: pattern },
          ],
          visibleToIntermediaries: [pattern],
          latenessMaxMs: -1,
        },
      });
      for (const path of ['specifiers[1].dataPoints', 'visibleToIntermediaries[0]']) {
        for (const quantity of infraQuantities) {
          expect(problems[`monitoring.${path}`]).toContain(`infra/${quantity}`);
        }
      }
      expect(Object.keys(problems)).toHaveLength(3);
    },
  );

  test.each([
    ['kpi/*/x', 'kpi/a/x', true],
    ['kpi/*/x', 'kpi/a/b/x', false],
    ['kpi/a*b*/x', 'kpi/a1b2b3/x', true],
    ['kpi/a*b/x', 'kpi/abc/x', false],
    ['**', '', true],
    ['**/x', 'x', true],
    ['kpi/**', 'kpi', true],
    ['kpi/**/x', 'kpi/x', true],
    ['kpi/**/x', 'kpi/a/b/x', true],
    ['kpi/**/a/x', 'kpi/a/b/a/x', true],
    ['**/a/**/x', 'a/b/x', true],
    ['*', 'a/b', false],
    ['a.c', 'abc', false],
  ])('%s of %s: %s', (pattern, dataPoint, isMatch) => {
    expect(compileDataPointPattern(pattern)(dataPoint)).toBe(isMatch);
  });

  test('property: a pattern matches as the regular expression does that it stands for', () => {
    fc.assert(
      fc.property(textOf('a', 'b', '/', '*', '**'), textOf('a', 'b', '/'), (pattern, dataPoint) => {
        const isMatch = compileDataPointPattern(pattern)(dataPoint);
        expect(isMatch).toBe(patternExpression(pattern).test(dataPoint));
      }),
      { numRuns: 2_000 },
    );
  });

  test('property: what matches a data point is never refused', () => {
    const name = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 8 });
    const dataPoint = fc.oneof(
      fc.tuple(name, name).map(([file, column]) => kpiDataPoint(file, column)),
      name.map((file) => encryptedDataPoint(file)),
      fc.constant(infraDataPoint('cpu', 'time_us')),
    );
    fc.assert(
      fc.property(dataPoint, (literal) => {
        expect(patternProblem(literal)).toBeUndefined();
        expect(compileDataPointPattern(literal)(literal)).toBe(true);
      }),
    );
  });
});

/** The same in words of a regular expression, which takes exponential time for some. */
function patternExpression(pattern: string): RegExp {
  const source = pattern
    .split('/')
    .map((segment) => (segment === '**' ? '\u0000' : segment.replaceAll('*', '[^/]*')))
    .join('/')
    .replaceAll('/\u0000', '(?:/.*)?')
    .replaceAll('\u0000/', '(?:.*/)?')
    .replaceAll('\u0000', '.*');
  return new RegExp(`^${source}$`, 's');
}

function textOf(...units: readonly string[]): fc.Arbitrary<string> {
  return fc.string({ unit: fc.constantFrom(...units), maxLength: 9 });
}
