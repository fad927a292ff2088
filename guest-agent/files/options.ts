import { defaultNamePatterns, type NamePatterns } from './name-rules.ts';

/** Bounds of the file system; what exceeds one gets the errno named beside it. */
export interface FileSystemOptions {
  /** One file's or handle's bytes, and a logger's unfinished line: EFBIG. */
  readonly fileBytesMax: number;
  /** Files and directories together, scratch ones included: ENOSPC. */
  readonly filesMax: number;
  /** Directories besides the two areas: ENOSPC. */
  readonly directoriesMax: number;
  /** Open files: ENFILE. */
  readonly handlesMax: number;
  /** Scratch files' bytes, and those of open files without a name: ENOSPC. */
  readonly scratchBytesMax: number;
  /** Bytes that handles hold before their save: ENOSPC. */
  readonly bufferBytesMax: number;
  /** Contents kept for readers; the least recently used are read again from the database. */
  readonly cacheBytesMax: number;
  /** A path below its area, in UTF-8 bytes; a table's name: ENAMETOOLONG. */
  readonly pathBytesMax: number;
  /** What statfs(2) shows as the size of the file system. */
  readonly capacityBytes: number;
  /** Permission bits of `encrypted/` and `unencrypted/`. */
  readonly areaMode: number;
  /** The areas' owner. */
  readonly areaUserId: number;
  readonly areaGroupId: number;
  readonly names: NamePatterns;
}

export const defaultFileSystemOptions: FileSystemOptions = {
  fileBytesMax: 1024 * 1024,
  filesMax: 10_000,
  directoriesMax: 1_000,
  handlesMax: 4_096,
  scratchBytesMax: 32 * 1024 * 1024,
  bufferBytesMax: 64 * 1024 * 1024,
  cacheBytesMax: 8 * 1024 * 1024,
  pathBytesMax: 1_024,
  capacityBytes: 1024 * 1024 * 1024,
  areaMode: 0o1777,
  areaUserId: 0,
  areaGroupId: 0,
  names: defaultNamePatterns,
};
