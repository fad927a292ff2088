import { closeSync, openSync, readFileSync, realpathSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';

import { mustRun } from '../programs/run-program.ts';

type Entry =
  | { readonly kind: 'directory' }
  | { readonly kind: 'link'; readonly target: string }
  | { readonly kind: 'text'; readonly mode: number; readonly text: string }
  | { readonly kind: 'copy'; readonly mode: number; readonly source: string };

/** What merged-/usr systems link to /usr. */
const mergedDirectories = ['bin', 'lib', 'lib64', 'sbin'];
const modes = { directory: 0o040000, file: 0o100000, link: 0o120000 } as const;
const plain = 0o644;
const executable = 0o755;

/**
 * A root file system in memory for a guest, in the kernel's own format (cpio `newc`, Documentation/driver-api/early-userspace/
 * buffer-format.rst of Linux). Everything belongs to root; /bin, /lib, /lib64 and /sbin lead into /usr.
 */
export class Initramfs {
  readonly #entries = new Map<string, Entry>();

  constructor() {
    for (const name of mergedDirectories) {
      this.directory(`/usr/${name}`);
      this.link(`/${name}`, `usr/${name}`);
    }
  }

  directory(path: string): void {
    this.#add(path, { kind: 'directory' });
  }

  link(path: string, target: string): void {
    this.#add(path, { kind: 'link', target });
  }

  text(path: string, text: string, mode: number = plain): void {
    this.#add(path, { kind: 'text', text, mode });
  }

  copy(path: string, source: string, mode: number = plain): void {
    this.#add(path, { kind: 'copy', source: realpathSync(source), mode });
  }

  /** A program or a loadable module, and every shared library of this machine that it needs, each at its own path. */
  async program(path: string, source: string): Promise<void> {
    this.copy(path, source, executable);
    const { stdout } = await mustRun('sh', ['-c', 'ldd "$1" || true', 'sh', source]);
    for (const [, library = ''] of stdout.matchAll(/(\/\S+) \(0x/g)) {
      this.copy(library, library, executable);
    }
  }

  /** Writes the archive, uncompressed, as a guest unpacks it fastest. */
  writeTo(path: string): void {
    const descriptor = openSync(path, 'w');
    try {
      let inode = 1;
      for (const [name, entry] of this.#entries) {
        writeAll(descriptor, archived(name, inode, entry));
        inode += 1;
      }
      writeAll(descriptor, archived('TRAILER!!!', 0, { kind: 'text', text: '', mode: 0 }));
    } finally {
      closeSync(descriptor);
    }
  }

  #add(path: string, entry: Entry): void {
    const [, first = '', rest = ''] = /^\/([^/]+)(\/.*)?$/.exec(path) ?? [];
    const isMerged = rest !== '' && mergedDirectories.includes(first);
    const name = isMerged ? `usr/${first}${rest}` : path.slice(1);
    const parent = dirname(name);
    // The kernel makes no directories by itself, so each comes before what it holds.
    if (parent !== '.' && !this.#entries.has(parent)) this.directory(`/${parent}`);
    this.#entries.set(name, entry);
  }
}

function archived(name: string, inode: number, entry: Entry): Uint8Array {
  const { mode, data } = contentOf(entry);
  const nameBytes = Buffer.from(`${name}\0`);
  const linkCount = entry.kind === 'directory' ? 2 : 1;
  // inode, mode, uid, gid, links, mtime, file size, 4 device numbers, name size, checksum
  const fields = [inode, mode, 0, 0, linkCount, 0, data.length, 0, 0, 0, 0, nameBytes.length, 0];
  const header = `070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`;
  const head = padded(Buffer.concat([Buffer.from(header), nameBytes]));
  return Buffer.concat([head, padded(data)]);
}

function contentOf(entry: Entry): { readonly mode: number; readonly data: Buffer } {
  switch (entry.kind) {
    case 'directory':
      return { mode: modes.directory | executable, data: Buffer.alloc(0) };
    case 'link':
      return { mode: modes.link | 0o777, data: Buffer.from(entry.target) };
    case 'text':
      return { mode: modes.file | entry.mode, data: Buffer.from(entry.text) };
    case 'copy':
      return { mode: modes.file | entry.mode, data: readFileSync(entry.source) };
    default:
      return entry satisfies never;
  }
}

function padded(bytes: Buffer): Buffer {
  const alignment = 4;
  const missing = (alignment - (bytes.length % alignment)) % alignment;
  return missing === 0 ? bytes : Buffer.concat([bytes, Buffer.alloc(missing)]);
}

function writeAll(descriptor: number, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length;) at += writeSync(descriptor, bytes, at);
}
