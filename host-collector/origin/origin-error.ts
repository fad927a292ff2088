import { OperatingError } from '../../common/runtime/operating-error.ts';

export type OriginErrorCode = 'commit-failed' | 'stopped' | 'inbox-full';

/** Why rows were not taken. After `commit-failed` nothing of the batch is durable: fetch again from the cursor. */
export class OriginError extends OperatingError<OriginErrorCode> {
  override readonly name = 'OriginError';
}
