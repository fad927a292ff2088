import type { Contents } from './contents.ts';
import type { ByteBudget } from './growing-bytes.ts';
import type { Handle } from './handle.ts';
import type { FileNode } from './node.ts';

/** The size that fstat(2) through the handle shows. */
export function handleSizeBytes(handle: Handle): number {
  const { own, file } = handle;
  if (file.scratch !== null && handle.location === null) return file.scratch.length;
  if (own === null) return file.sizeBytes;
  return handle.isAppend ? file.sizeBytes + own.length - handle.sentBytes : own.length;
}

/** What reads see (DESIGN: "Whose bytes"). */
export class HandleReads {
  readonly #contents: Contents;
  readonly #buffers: ByteBudget;

  constructor(contents: Contents, buffers: ByteBudget) {
    this.#contents = contents;
    this.#buffers = buffers;
  }

  /** Through a handle, or the file itself for one of a former process. */
  read(handle: Handle | undefined, file: FileNode, offset: number, byteCount: number): Uint8Array {
    const content =
      handle === undefined ? this.#contents.of(file) : this.#visible(handle, offset, byteCount);
    return content.subarray(offset, offset + byteCount);
  }

  /** What a read through the handle sees: its own bytes, or one save of the file from its first byte to its last. */
  #visible(handle: Handle, offset: number, byteCount: number): Uint8Array {
    const { file, own } = handle;
    if (handle.location === null || own === null) {
      return this.#pinnedContent(handle, offset, byteCount);
    }
    if (!handle.isAppend) return own.view();
    const content = this.#contents.of(file);
    if (own.length === handle.sentBytes) return content;
    const joined = new Uint8Array(content.length + own.length - handle.sentBytes);
    joined.set(content);
    joined.set(own.view().subarray(handle.sentBytes), content.length);
    return joined;
  }

  #pinnedContent(handle: Handle, offset: number, byteCount: number): Uint8Array {
    const { file, pinned } = handle;
    if (pinned !== null && offset > 0 && offset < pinned.length) return pinned;
    this.unpin(handle);
    const content = this.#contents.of(file);
    const isLong = file.scratch === null && offset === 0 && content.length > byteCount;
    if (isLong && this.#buffers.charge(content.length)) handle.pinned = content;
    return content;
  }

  /** Gives back what the handle's reader kept. */
  unpin(handle: Handle): void {
    if (handle.pinned === null) return;
    this.#buffers.charge(-handle.pinned.length);
    handle.pinned = null;
  }
}
