import { z } from 'zod';

import { formatProblem, problemsOf, type ConfigProblem } from '../../common/config/load-config.ts';
import { OperatingError } from '../../common/runtime/operating-error.ts';
import type { Database } from '../../common/sqlite/database.ts';
import {
  vmDescriptorSchema,
  type VmDescriptor,
  type VmId,
} from '../../common/wire/vm-descriptor.ts';

export type DescriptorErrorCode =
  | 'descriptor-invalid'
  | 'vm-exists'
  | 'vm-unknown'
  | 'vm-limit'
  | 'revision-conflict';

/** Why a descriptor was not taken; `problems` has everything that is wrong with it. */
export class DescriptorError extends OperatingError<DescriptorErrorCode> {
  override readonly name = 'DescriptorError';
  readonly problems: readonly ConfigProblem[];

  constructor(code: DescriptorErrorCode, message: string, problems: readonly ConfigProblem[] = []) {
    super(code, message);
    this.problems = problems;
  }
}

/** VMs of one collector; one more is refused. */
export const vmsMax = 10_000;

const documentRow = z.object({ document: z.string() });
const documentRows = z.array(documentRow);

/** The VM descriptors of this host, durable. Changes are compare-and-set on the revision. */
export class DescriptorStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Ascending by id. @throws DescriptorError `descriptor-invalid` when another version stored what this one refuses. */
  list(): readonly VmDescriptor[] {
    const rows = documentRows.parse(
      this.#database.prepare('SELECT document FROM collector_descriptor ORDER BY vm').all(),
    );
    return rows.map(({ document }) => readStored(document));
  }

  /** @throws DescriptorError `vm-unknown`, `descriptor-invalid` as {@link list}. */
  read(vm: string): VmDescriptor {
    const found = this.#database
      .prepare('SELECT document FROM collector_descriptor WHERE vm = ?')
      .get(vm);
    if (found === undefined) {
      throw new DescriptorError(
        'vm-unknown',
        `there is no VM ${vm}: isobar vm list shows those there are`,
      );
    }
    return readStored(documentRow.parse(found).document);
  }

  /**
   * Adds a VM. The same document again changes nothing, so that a repeated request is harmless.
   * @throws DescriptorError `descriptor-invalid` with all problems, `vm-exists` when another one has the id, `vm-limit`.
   */
  add(document: unknown): VmDescriptor {
    const descriptor = checkDescriptor(document);
    const add = this.#database.transaction((): VmDescriptor => {
      const known = this.list();
      const same = known.find(({ id }) => id === descriptor.id);
      if (same !== undefined) {
        if (JSON.stringify(same) === JSON.stringify(descriptor)) return same;
        throw new DescriptorError(
          'vm-exists',
          `VM ${descriptor.id} exists with revision ${same.revision}: change its monitoring, or remove it first`,
        );
      }
      if (known.length >= vmsMax) {
        throw new DescriptorError('vm-limit', `this collector has ${vmsMax} VMs, its limit`);
      }
      this.#write(descriptor);
      return descriptor;
    });
    return add.immediate();
  }

  /**
   * Replaces the monitoring part, provided that the descriptor still has `expectedRevision`; the new one is one higher.
   * @throws DescriptorError `vm-unknown`, `revision-conflict`, `descriptor-invalid` with all problems.
   */
  setMonitoring(vm: string, expectedRevision: number, monitoring: unknown): VmDescriptor {
    const change = this.#database.transaction((): VmDescriptor => {
      const before = this.read(vm);
      if (before.revision !== expectedRevision) {
        throw new DescriptorError(
          'revision-conflict',
          `VM ${vm} has revision ${before.revision}, not ${expectedRevision}: read it again and repeat the change`,
        );
      }
      const after = checkDescriptor({ ...before, monitoring, revision: before.revision + 1 });
      this.#write(after);
      return after;
    });
    return change.immediate();
  }

  /** @throws DescriptorError `vm-unknown`. */
  remove(vm: VmId): void {
    const { changes } = this.#database
      .prepare('DELETE FROM collector_descriptor WHERE vm = ?')
      .run(vm);
    if (changes === 0) throw new DescriptorError('vm-unknown', `there is no VM ${vm}`);
  }

  #write(descriptor: VmDescriptor): void {
    this.#database
      .prepare(
        `INSERT INTO collector_descriptor (vm, revision, document) VALUES (?, ?, ?)
         ON CONFLICT (vm) DO UPDATE SET revision = excluded.revision, document = excluded.document`,
      )
      .run(descriptor.id, descriptor.revision, JSON.stringify(descriptor));
  }
}

/**
 * `document` as a descriptor with its defaults filled in.
 * @throws DescriptorError `descriptor-invalid` with all problems at once.
 */
export function checkDescriptor(document: unknown): VmDescriptor {
  const parsed = vmDescriptorSchema.safeParse(document);
  if (parsed.success) return parsed.data;
  const problems = problemsOf(parsed.error, document);
  throw new DescriptorError(
    'descriptor-invalid',
    `the VM descriptor has ${problems.length} problem(s)`,
    problems,
  );
}

function readStored(text: string): VmDescriptor {
  const document: unknown = JSON.parse(text);
  const parsed = vmDescriptorSchema.safeParse(document);
  if (parsed.success) return parsed.data;
  const problems = problemsOf(parsed.error, document);
  const lines = [
    'a stored VM descriptor is refused by this version: change it, or remove the VM, with the version that stored it',
    `  ${text.slice(0, 200)}`,
    ...problems.map((problem) => formatProblem(problem)),
  ];
  throw new DescriptorError('descriptor-invalid', lines.join('\n'), problems);
}
