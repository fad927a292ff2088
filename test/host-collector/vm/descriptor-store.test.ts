import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { describe, expect, test } from 'vitest';

import { packageRoot } from '../../../common/runtime/package-root.ts';
import { openDatabase } from '../../../common/sqlite/database.ts';
import { migrateCollector } from '../../../host-collector/origin/collector-schema.ts';
import { vmDescriptorJsonSchema } from '../../../host-collector/vm/descriptor-json-schema.ts';
import { DescriptorError, DescriptorStore } from '../../../host-collector/vm/descriptor-store.ts';

const document = {
  apiVersion: 'isobar/v1',
  kind: 'VirtualMachine',
  id: 'vm1',
  monitoring: { specifiers: [{ id: 'a', dataPoints: 'kpi/**' }] },
};

function openStore(database = openDatabase(':memory:')): DescriptorStore {
  migrateCollector(database);
  return new DescriptorStore(database);
}

function codeOf(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    if (error instanceof DescriptorError) return error.code;
    throw error;
  }
  return 'no error';
}

describe('DescriptorStore', () => {
  test('changes are compare-and-set on the revision', () => {
    const store = openStore();
    store.add(document);
    expect(store.setMonitoring('vm1', 1, { latenessMaxMs: 7 }).revision).toBe(2);
    expect(codeOf(() => store.setMonitoring('vm1', 1, {}))).toBe('revision-conflict');
    expect(store.read('vm1').monitoring.latenessMaxMs).toBe(7);
  });

  test('the same document again changes nothing, another one with the id is refused', () => {
    const store = openStore();
    store.add(document);
    expect(store.add(document).revision).toBe(1);
    expect(codeOf(() => store.add({ ...document, probe: { kind: 'machine' } }))).toBe('vm-exists');
    expect(store.list()).toHaveLength(1);
  });

  test('reports all problems at once', () => {
    const store = openStore();
    const bad = {
      ...document,
      probe: { kind: 'process', pid: -1 },
      colour: 'red',
      monitoring: {
        specifiers: [{ id: 'a b', dataPoints: '**', format: 'mean' }],
        latenessMaxMs: -5,
      },
    };
    let problems: readonly string[] = [];
    try {
      store.add(bad);
    } catch (error) {
      if (error instanceof DescriptorError) problems = error.problems.map(({ path }) => path);
    }
    expect(problems.toSorted()).toEqual([
      'colour',
      'monitoring.latenessMaxMs',
      'monitoring.specifiers[0].format',
      'monitoring.specifiers[0].id',
      'probe.pid',
    ]);
  });

  test.each([
    { dataPoints: '**', format: 'mean' },
    { dataPoints: 'encrypted/x', format: 'max' },
    { dataPoints: 'e*/*', predicate: { condition: 'above', threshold: 1 } },
    { dataPoints: '*/**', format: 'median' },
  ])(
    'processed formats and predicates on encrypted/ are refused at validation: %o',
    (specifier) => {
      const store = openStore();
      const monitoring = { specifiers: [{ id: 'a', ...specifier }] };
      expect(codeOf(() => store.add({ ...document, monitoring }))).toBe('descriptor-invalid');
    },
  );

  test.each(['*/*/*', 'kpi/**', 'infra/cpu/*'])('%s reaches nothing encrypted', (dataPoints) => {
    const monitoring = { specifiers: [{ id: 'a', dataPoints, format: 'mean' }] };
    expect(openStore().add({ ...document, monitoring }).revision).toBe(1);
  });

  test.each([
    ['of a pattern', (text: string) => text.replace('kpi/**', 'kpis/**'), 'dataPoints = "kpis/**"'],
    ['of damage', () => '{"apiVersion":', 'apiVersion'],
    ['of an unknown field', (text: string) => `{"colour": 1, ${text.slice(1)}`, 'colour = 1'],
  ])(
    'one stored VM descriptor that newer rules refuse is set aside with why and what to do, apart from the others: because %s',
    (_why, change, problem) => {
      const database = openDatabase(':memory:');
      const store = openStore(database);
      store.add(document);
      store.add({ ...document, id: 'vm2' });
      const stored = JSON.stringify(store.read('vm1'));
      database
        .prepare("UPDATE collector_descriptor SET document = ? WHERE vm = 'vm1'")
        .run(change(stored));
      expect(store.list().map(({ id }) => id)).toEqual(['vm2']);
      const [refused] = store.refused();
      expect(refused).toMatchObject({ vm: 'vm1', revision: 1 });
      expect(refused?.reason).toContain(problem);
      expect(refused?.reason).toContain('isobar vm set-monitoring vm1 FILE --revision 1');
      expect(codeOf(() => store.read('vm1'))).toBe('descriptor-invalid');
      expect(codeOf(() => store.add(document))).toBe('vm-exists');
      store.remove(store.find('vm1'));
      expect(store.refused()).toEqual([]);
      expect(store.add(document).revision).toBe(1);
    },
  );

  test('another monitoring part makes a refused descriptor one that is taken, by compare-and-set too', () => {
    const database = openDatabase(':memory:');
    const store = openStore(database);
    store.add(document);
    database.exec(
      "UPDATE collector_descriptor SET document = replace(document, 'kpi/**', 'infra/cpu/ratio')",
    );
    expect(codeOf(() => store.setMonitoring('vm1', 2, document.monitoring))).toBe(
      'revision-conflict',
    );
    store.setMonitoring('vm1', 1, document.monitoring);
    expect(store.refused()).toEqual([]);
    expect(store.read('vm1').revision).toBe(2);
  });

  test('the committed JSON Schema is current', () => {
    const path = join(packageRoot(), 'docs/schema/vm-descriptor.schema.json');
    expect(JSON.parse(readFileSync(path, 'utf8'))).toEqual(JSON.parse(vmDescriptorJsonSchema()));
  });
});
