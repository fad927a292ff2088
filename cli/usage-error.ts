import { OperatingError } from '../common/runtime/operating-error.ts';

/** A command line that can't be meant; exit code 2. The message shows a right one. */
export class UsageError extends OperatingError<'usage'> {
  override readonly name = 'UsageError';

  constructor(message: string) {
    super('usage', message);
  }
}
