import type { Attributes, FileSystem, NodeId } from '../file-system.ts';
import { fileType } from '../open-flags.ts';
import { initFlag2, type Negotiation } from '../protocol/init.ts';
import type { ReplyMessage, Validity } from '../protocol/reply-message.ts';
import type { DirectoryHandles } from './directory-handles.ts';

/**
 * How long the kernel believes names and attributes without asking. All changes but two come through the kernel,
 * which then forgets what they made wrong; the two are the size of a file after a failed close or a logger's
 * compaction, both of files that are open for writing. A second bounds what is left of either, and its cost can't
 * be measured: three requests a second instead of three for each open.
 */
const cachedMs = 1_000;

const cached: Validity = { entryMs: cachedMs, attributesMs: cachedMs };
/** A file that is open for writing: its size may change without the kernel's doing. */
const volatileAttributes: Validity = { entryMs: cachedMs, attributesMs: 0 };

/** What the operations of one session share. One thread only. */
export class SessionState {
  readonly fileSystem: FileSystem;
  readonly reply: ReplyMessage;
  readonly directories: DirectoryHandles;
  /** Which agent on this connection this is, below `incarnationsMax`. */
  readonly incarnation: number;
  negotiation: Negotiation | undefined;
  /** Bits of initFlag2 not to take at INIT. */
  readonly declined2: number;
  /** Writable handles of each node that has any; as many as the file system lets be open. */
  readonly #writers = new Map<NodeId, number>();

  constructor(parts: {
    readonly fileSystem: FileSystem;
    readonly reply: ReplyMessage;
    readonly directories: DirectoryHandles;
    readonly incarnation: number;
    readonly negotiation: Negotiation | undefined;
    readonly declined2: number;
  }) {
    this.fileSystem = parts.fileSystem;
    this.reply = parts.reply;
    this.directories = parts.directories;
    this.incarnation = parts.incarnation;
    this.negotiation = parts.negotiation;
    this.declined2 = parts.declined2;
  }

  /** Kernels before 6.6 refuse to map FOPEN_DIRECT_IO handles shared. */
  get directIoAllowsMmap(): boolean {
    return ((this.negotiation?.flags2 ?? 0) & initFlag2.directIoAllowsMmap) !== 0;
  }

  addWriter(node: NodeId): void {
    this.#writers.set(node, (this.#writers.get(node) ?? 0) + 1);
  }

  removeWriter(node: NodeId): void {
    const count = this.#writers.get(node) ?? 0;
    if (count > 1) this.#writers.set(node, count - 1);
    else this.#writers.delete(node);
  }

  validity(attributes: Attributes): Validity {
    const isRegular = (attributes.mode & fileType.mask) === fileType.regular;
    return isRegular && this.#writers.has(attributes.node) ? volatileAttributes : cached;
  }
}
