import { OperatingError } from '../runtime/operating-error.ts';

/**
 * `address-invalid`, `tls-files-unreadable`: the configuration is at fault. `listen-failed`, `connect-failed`: the
 * operating system said no; retryable where time may help.
 */
export type ChannelErrorCode =
  | 'address-invalid'
  | 'tls-files-unreadable'
  | 'listen-failed'
  | 'connect-failed';

/** What can be wrong with a guest channel besides the bytes on it. The message says what to do. */
export class ChannelError extends OperatingError<ChannelErrorCode> {
  override readonly name = 'ChannelError';
}
