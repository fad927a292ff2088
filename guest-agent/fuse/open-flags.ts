/** Flags of open(2) that a backend looks at, as the kernel numbers them (asm-generic/fcntl.h). */
export const openFlag = {
  writeOnly: 0o1,
  readWrite: 0o2,
  accessModeMask: 0o3,
  create: 0o100,
  exclusive: 0o200,
  truncate: 0o1000,
  append: 0o2000,
} as const;

/** Whether a handle opened with `flags` can write. */
export function opensForWriting(flags: number): boolean {
  return (flags & openFlag.accessModeMask) !== 0;
}

/** Whether a handle opened with `flags` can be mapped shared and writable: mmap(2) needs both directions. */
export function opensForReadingAndWriting(flags: number): boolean {
  return (flags & openFlag.accessModeMask) === openFlag.readWrite;
}

/** The type bits of st_mode (inode(7)). */
export const fileType = {
  mask: 0o170000,
  regular: 0o100000,
  directory: 0o040000,
} as const;
