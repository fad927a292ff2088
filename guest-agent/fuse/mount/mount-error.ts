import {
  OperatingError,
  type OperatingErrorOptions,
} from '../../../common/runtime/operating-error.ts';

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

/** What no other path for the mount would mend. */
const setupCodes: readonly MountErrorCode[] = ['fuse-missing', 'mount-denied'];

/** Mounting or unmounting failed; the message says what to do. Context: `path`, and `output` of the program. */
export class MountError extends OperatingError<MountErrorCode> {
  override readonly name = 'MountError';

  constructor(code: MountErrorCode, message: string, options: OperatingErrorOptions = {}) {
    super(code, message, { needsSetup: setupCodes.includes(code), ...options });
  }
}
