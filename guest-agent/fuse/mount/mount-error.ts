import { OperatingError } from '../../../common/runtime/operating-error.ts';

/**
 * Why the file system can't be mounted:
 * - `fuse-missing`: no /dev/fuse, no fuse module, or a needed program is not installed
 * - `mount-denied`: this user may not open /dev/fuse or mount
 * - `mountpoint-not-directory`, `mountpoint-not-empty`: the path is no empty directory
 * - `mountpoint-busy`: a live Isobar mount is there already
 * - `mountpoint-denied`: the path can't be made or looked at
 * - `mount-failed`: anything else the mount program said
 */
export type MountErrorCode =
  | 'fuse-missing'
  | 'mount-denied'
  | 'mountpoint-not-directory'
  | 'mountpoint-not-empty'
  | 'mountpoint-busy'
  | 'mountpoint-denied'
  | 'mount-failed';

/** Mounting or unmounting failed; the message says what to do. Context: `path`, and `output` of the program. */
export class MountError extends OperatingError<MountErrorCode> {
  override readonly name = 'MountError';
}
