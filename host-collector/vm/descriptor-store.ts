import { z } from 'zod';

import { formatProblem, problemsOf, type ConfigProblem } from '../../common/config/load-config.ts';
import { OperatingError } from '../../common/runtime/operating-error.ts';
import type { Database } from '../../common/sqlite/database.ts';
import {
  vmDescriptorSchema,
  vmIdSchema,
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

const storedRow = z.object({ vm: vmIdSchema, revision: z.int(), document: z.string() });
type StoredRow = z.output<typeof storedRow>;
const storedRows = z.array(storedRow);

/** A VM whose stored descriptor this version refuses: it is set aside, and nothing is measured of it until it is changed. */
export interface RefusedDescriptor {
  readonly vm: VmId;
  readonly revision: number;
  /** Every problem, and what to do. */
  readonly reason: string;
}

/**
 * The VM descriptors of this host, durable. Changes are compare-and-set on the revision. What another version stored
 * and this one refuses stays as it is, apart from the others.
 */
export class DescriptorStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Those that this version takes, ascending by id. */
  list(): readonly VmDescriptor[] {
    return this.#rows().flatMap((row) => {
      const read = readStored(row);
      return read instanceof DescriptorError ? [] : [read];
    });
  }

  /** Those that this version refuses, ascending by id. */
  refused(): readonly RefusedDescriptor[] {
    return this.#rows().flatMap((row): RefusedDescriptor[] => {
      const read = readStored(row);
      const { vm, revision } = row;
      return read instanceof DescriptorError ? [{ vm, revision, reason: read.message }] : [];
    });
  }

  /** @throws DescriptorError `vm-unknown`; `descriptor-invalid` when this version refuses what another one stored. */
  read(vm: string): VmDescriptor {
    const read = readStored(this.#row(vm));
    if (read instanceof DescriptorError) throw read;
    return read;
  }

  /** The id of a VM that is here, refused or not. @throws DescriptorError `vm-unknown`. */
  find(vm: string): VmId {
    return this.#row(vm).vm;
  }

  /**
   * Adds a VM. The same document again changes nothing, so that a repeated request is harmless.
   * @throws DescriptorError `descriptor-invalid` with all problems, `vm-exists` when another one has the id, `vm-limit`.
   */
  add(document: unknown): VmDescriptor {
    const descriptor = checkDescriptor(document);
    const add = this.#database.transaction((): VmDescriptor => {
      const known = this.#rows();
      const same = known.find(({ vm }) => vm === descriptor.id);
      if (same !== undefined) {
        const read = readStored(same);
        if (JSON.stringify(read) === JSON.stringify(descriptor)) return descriptor;
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
   * So a descriptor that is refused for its monitoring part becomes one that is not.
   * @throws DescriptorError `vm-unknown`, `revision-conflict`, `descriptor-invalid` with all problems.
   */
  setMonitoring(vm: string, expectedRevision: number, monitoring: unknown): VmDescriptor {
    const change = this.#database.transaction((): VmDescriptor => {
      const before = this.#row(vm);
      if (before.revision !== expectedRevision) {
        throw new DescriptorError(
          'revision-conflict',
          `VM ${vm} has revision ${before.revision}, not ${expectedRevision}: read it again and repeat the change`,
        );
      }
      const document = storedDocument(before.document);
      const revision = before.revision + 1;
      const after = checkDescriptor({ ...document, monitoring, revision });
      this.#write(after);
      return after;
    });
    return change.immediate();
  }

  /** With it goes what is remembered of its hypervisor. @throws DescriptorError `vm-unknown`. */
  remove(vm: VmId): void {
    this.#database.prepare('DELETE FROM collector_process WHERE vm = ?').run(vm);
    const { changes } = this.#database
      .prepare('DELETE FROM collector_descriptor WHERE vm = ?')
      .run(vm);
    if (changes === 0) throw new DescriptorError('vm-unknown', `there is no VM ${vm}`);
  }

  #rows(): readonly StoredRow[] {
    return storedRows.parse(
      this.#database
        .prepare('SELECT vm, revision, document FROM collector_descriptor ORDER BY vm')
        .all(),
    );
  }

  #row(vm: string): StoredRow {
    const found = this.#database
      .prepare('SELECT vm, revision, document FROM collector_descriptor WHERE vm = ?')
      .get(vm);
    if (found !== undefined) return storedRow.parse(found);
    throw new DescriptorError(
      'vm-unknown',
      `there is no VM ${vm}: isobar vm list shows those there are`,
    );
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

/** The error has every problem, and what to do. */
function readStored(row: StoredRow): VmDescriptor | DescriptorError {
  const document = storedDocument(row.document);
  const parsed = vmDescriptorSchema.safeParse(document);
  if (parsed.success) return parsed.data;
  const problems = problemsOf(parsed.error, document);
  const lines = [
    `VM ${row.vm} is set aside: this version refuses its stored descriptor (revision ${row.revision})`,
    ...problems.map((problem) => formatProblem(problem)),
    `Give it another monitoring part with isobar vm set-monitoring ${row.vm} FILE --revision ${row.revision}, ` +
      `or remove it with isobar vm remove ${row.vm} and add it again`,
    `What is stored: ${row.document.slice(0, storedCharsShownMax)}`,
  ];
  return new DescriptorError('descriptor-invalid', lines.join('\n'), problems);
}

const storedCharsShownMax = 200;

/** Nothing of it when it is no document at all: then every field that must be there is missing. */
function storedDocument(text: string): object {
  try {
    const document: unknown = JSON.parse(text);
    return typeof document === 'object' && document !== null ? document : {};
  } catch (error) {
    if (error instanceof SyntaxError) return {};
    throw error;
  }
}
