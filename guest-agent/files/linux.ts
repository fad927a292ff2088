/**
 * The kernel's numbers that the file system answers with and looks at.
 * Sources: include/uapi/asm-generic/errno-base.h, errno.h, fcntl.h, linux/fs.h, linux/falloc.h; inode(7).
 */

/** Errnos as a Result carries them: negated. */
export const failure = {
  EPERM: -1,
  ENOENT: -2,
  EIO: -5,
  EBADF: -9,
  EAGAIN: -11,
  EBUSY: -16,
  EEXIST: -17,
  EXDEV: -18,
  ENOTDIR: -20,
  EISDIR: -21,
  EINVAL: -22,
  ENFILE: -23,
  EFBIG: -27,
  ENOSPC: -28,
  ENAMETOOLONG: -36,
  ENOTEMPTY: -39,
  EOPNOTSUPP: -95,
  ESTALE: -116,
} as const;

export const openBits = {
  accessMode: 0o3,
  exclusive: 0o200,
  truncate: 0o1000,
  append: 0o2000,
} as const;

export const modeBits = {
  type: 0o170000,
  regular: 0o100000,
  directory: 0o040000,
  permissions: 0o7777,
  setUserId: 0o4000,
  setGroupId: 0o2000,
  groupExecute: 0o0010,
} as const;

/** Flags of renameat2(2). */
export const renameBits = { noReplace: 1 } as const;

/** Flags of fallocate(2). */
export const allocateBits = { keepSize: 1, punchHole: 2, zeroRange: 16 } as const;
