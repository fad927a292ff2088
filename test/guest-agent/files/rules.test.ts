import assert from 'node:assert/strict';

import {
  type Arbitrary,
  array,
  boolean,
  check,
  constant,
  constantFrom,
  defaultReportMessage,
  nat,
  oneof,
  property,
  record,
} from 'fast-check';
import { describe, expect, test } from 'vitest';

import { failure } from '../../../guest-agent/files/linux.ts';
import { type ModelHandle, RulesModel } from './rules-model.ts';
import { type Description, ScriptedKernel } from './scripted-kernel.ts';

const names = ['a', 'b', 'a.tmp', 'b.tmp', 'a.1'];
const name = constantFrom(...names);
const slot = nat({ max: 3 });
const text = constantFrom('1', '2,3', '4\n', '5\n6', '\0', 'long line of text\n', '\n');

const operation = oneof(
  {
    weight: 4,
    arbitrary: record({
      kind: constant('open' as const),
      slot,
      name,
      mode: constantFrom('r+', 'w', 'a'),
    }),
  },
  { weight: 6, arbitrary: record({ kind: constant('write' as const), slot, text }) },
  {
    weight: 2,
    arbitrary: record({
      kind: constant('pwrite' as const),
      slot,
      text,
      offset: nat({ max: 9 }),
    }),
  },
  {
    weight: 1,
    arbitrary: record({
      kind: constant('ftruncate' as const),
      slot,
      length: nat({ max: 9 }),
    }),
  },
  {
    weight: 2,
    arbitrary: record({ kind: constant('flush' as const), slot, fails: boolean() }),
  },
  { weight: 1, arbitrary: record({ kind: constant('fsync' as const), slot }) },
  { weight: 4, arbitrary: record({ kind: constant('close' as const), slot }) },
  {
    weight: 1,
    arbitrary: record({
      kind: constant('truncate' as const),
      name,
      length: nat({ max: 9 }),
    }),
  },
  { weight: 1, arbitrary: record({ kind: constant('unlink' as const), name }) },
  { weight: 3, arbitrary: record({ kind: constant('rename' as const), name, to: name }) },
  { weight: 1, arbitrary: record({ kind: constant('restart' as const) }) },
);
type Operation = typeof operation extends Arbitrary<infer Value> ? Value : never;
/** A step of a process that has its file open. */
type FileStep = Exclude<Extract<Operation, { slot: number }>, { kind: 'open' }>;

interface Process {
  readonly file: Description;
  readonly model: ModelHandle;
}

/** Runs the file system and the model side by side; a slot is a process with at most one open file. */
class Comparison {
  readonly kernel = new ScriptedKernel({ cacheBytesMax: 400 });
  readonly model = new RulesModel();
  readonly #processes = new Map<number, Process>();

  run(step: Operation): void {
    const { kernel, model } = this;
    switch (step.kind) {
      case 'open': {
        if (this.#processes.has(step.slot)) return;
        const path = `unencrypted/${step.name}`;
        if (step.mode === 'r+' && !model.files.has(step.name)) {
          assert.equal(kernel.tryOpen(path, 'r+'), failure.ENOENT);
          return;
        }
        const file = kernel.open(path, step.mode);
        this.#processes.set(step.slot, { file, model: model.open(step.name, step.mode) });
        return;
      }
      case 'truncate':
        if (!model.files.has(step.name)) return;
        assert.equal(kernel.truncate(`unencrypted/${step.name}`, step.length), 0);
        model.truncate(step.name, step.length);
        return;
      case 'unlink': {
        const result = kernel.unlink(`unencrypted/${step.name}`);
        assert.equal(result, model.files.has(step.name) ? 0 : failure.ENOENT);
        model.unlink(step.name);
        return;
      }
      case 'rename': {
        const result = kernel.rename(`unencrypted/${step.name}`, `unencrypted/${step.to}`);
        assert.equal(result, model.files.has(step.name) ? 0 : failure.ENOENT);
        kernel.commit();
        model.rename(step.name, step.to);
        return;
      }
      case 'restart':
        kernel.restart();
        model.restart();
        this.#processes.clear();
        return;
      case 'write':
      case 'pwrite':
      case 'ftruncate':
      case 'flush':
      case 'fsync':
      case 'close': {
        const process = this.#processes.get(step.slot);
        if (process !== undefined) this.#withFile(process, step);
      }
    }
  }

  #withFile({ file, model: handle }: Process, step: FileStep): void {
    const { kernel, model } = this;
    switch (step.kind) {
      case 'write':
        model.write(handle, file.offset, step.text);
        assert.equal(kernel.write(file, step.text), step.text.length);
        return;
      case 'pwrite':
        model.write(handle, step.offset, step.text);
        assert.equal(kernel.pwrite(file, step.offset, step.text), step.text.length);
        return;
      case 'ftruncate':
        if (handle.isAppend || handle.table === null) return;
        model.resize(handle, step.length);
        assert.equal(kernel.ftruncate(file, step.length), 0);
        return;
      case 'flush': {
        const fails = step.fails && model.wouldSave(handle);
        if (fails) kernel.store.failNext(failure.EINVAL);
        model.flush(handle, !fails);
        assert.equal(kernel.flush(file), fails ? failure.EINVAL : 0);
        return;
      }
      case 'fsync':
        model.flush(handle);
        model.publish(handle);
        assert.equal(kernel.fsync(file), 0);
        return;
      case 'close':
        model.close(handle);
        assert.equal(kernel.close(file), 0);
        this.#processes.delete(step.slot);
        return;
    }
  }

  check(): void {
    const { kernel, model } = this;
    assert.deepEqual(kernel.names('unencrypted').toSorted(), [...model.files.keys()].toSorted());
    for (const [fileName, file] of model.files) {
      const path = `unencrypted/${fileName}`;
      const seen = [fileName, kernel.read(path), kernel.sizeBytes(path)];
      assert.deepEqual(seen, [fileName, file.content, file.content.length]);
    }
    assert.deepEqual(
      kernel.store.rows.map((row) => [row.table, row.text, row.isPublished]),
      model.rows.map((row) => [`unencrypted/${row.table}`, row.text, row.isPublished]),
    );
  }

  /** Everything closed and removed: nothing may be left in memory. */
  end(): void {
    for (const number of this.#processes.keys()) this.run({ kind: 'close', slot: number });
    this.check();
    for (const fileName of this.model.files.keys()) this.run({ kind: 'unlink', name: fileName });
    const { counts: _counts, ...held } = this.kernel.fileSystem.snapshot();
    assert.deepEqual(held, {
      fileCount: 0,
      directoryCount: 0,
      handleCount: 0,
      heldCount: 0,
      scratchBytes: 0,
      bufferBytes: 0,
      cacheBytes: 0,
    });
  }
}

describe('Rules of capture', () => {
  test("random processes, renames, truncations, failures and restarts: names, bytes and rows are the model's", () => {
    const result = check(
      property(array(operation, { maxLength: 60, size: 'max' }), (steps) => {
        const comparison = new Comparison();
        for (const step of steps) {
          comparison.run(step);
          comparison.check();
        }
        comparison.end();
      }),
      { numRuns: 400 },
    );
    expect(defaultReportMessage(result)).toBeUndefined();
  });
});
