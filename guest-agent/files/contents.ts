import type { ContentReader } from '../store/store-request.ts';
import type { FileNode } from './node.ts';

const noBytes = new Uint8Array(0);
/** What an entry costs besides its bytes, roughly: the map's slot and the array's header. */
const entryBytes = 160;

/**
 * What readers get: each file's last good content, the most recently used of them in memory, the others read again from
 * the store. Arrays handed out are never changed afterwards. Not for files whose bytes are in `scratch`.
 */
export class Contents {
  readonly #reader: ContentReader;
  readonly #cacheBytesMax: number;
  readonly #cache = new Map<FileNode, Uint8Array>();
  #cachedBytes = 0;

  constructor(reader: ContentReader, cacheBytesMax: number) {
    this.#reader = reader;
    this.#cacheBytesMax = cacheBytesMax;
  }

  get cachedBytes(): number {
    return this.#cachedBytes;
  }

  of(file: FileNode): Uint8Array {
    if (file.scratch !== null) return file.scratch.view();
    const cached = this.#cache.get(file);
    if (cached !== undefined) {
      this.#cache.delete(file);
      this.#cache.set(file, cached);
      return cached;
    }
    if (file.sizeBytes === 0 && file.pendingCount === 0) return noBytes;
    if (file.location === null) return noBytes;
    const content = this.#reader.content(file.area, file.node);
    // While a request is in flight, what was read may already hold it: good to show, not to keep.
    if (file.pendingCount === 0) {
      file.sizeBytes = content.length;
      this.#keep(file, content);
    }
    return content;
  }

  /** The file's last good content is now `content`, which the caller won't change any more. */
  replace(file: FileNode, content: Uint8Array): void {
    file.sizeBytes = content.length;
    this.forget(file);
    this.#keep(file, content);
  }

  forget(file: FileNode): void {
    const cached = this.#cache.get(file);
    if (cached === undefined) return;
    this.#cachedBytes -= costBytes(cached);
    this.#cache.delete(file);
  }

  #keep(file: FileNode, content: Uint8Array): void {
    this.#cache.set(file, content);
    this.#cachedBytes += costBytes(content);
    for (const [oldest, bytes] of this.#cache) {
      if (this.#cachedBytes <= this.#cacheBytesMax) break;
      this.#cache.delete(oldest);
      this.#cachedBytes -= costBytes(bytes);
    }
  }
}

function costBytes(content: Uint8Array): number {
  return content.buffer.byteLength + entryBytes;
}
