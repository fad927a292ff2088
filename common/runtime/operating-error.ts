/** Scalar facts about a failure, with the unit in each key (`sizeBytes`, `elapsedMs`). */
export type ErrorContext = Readonly<Record<string, string | number | boolean | null>>;

export interface OperatingErrorOptions {
  /** True when the same call may succeed later without anyone changing anything. */
  readonly retryable?: boolean;
  /** True when this machine or its configuration must be changed first: what ends by it exits with EX_CONFIG, 78. */
  readonly needsSetup?: boolean;
  readonly context?: ErrorContext;
  readonly cause?: unknown;
}

/**
 * A failure that operation brings about: bad input, a missing file, a peer that went away. Modules subclass
 * it with a narrower `Code`. The message tells a person what to do; `code` is what programs branch on.
 * Programmer errors are assertions instead.
 */
export class OperatingError<Code extends string = string> extends Error {
  override readonly name: string = 'OperatingError';
  readonly code: Code;
  readonly retryable: boolean;
  readonly needsSetup: boolean;
  readonly context: ErrorContext;

  constructor(code: Code, message: string, options: OperatingErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.retryable = options.retryable ?? false;
    this.needsSetup = options.needsSetup ?? false;
    this.context = options.context ?? {};
  }
}

/** The `code` of a Node system error (`ENOENT`, `ECONNREFUSED`), or undefined for anything else. */
export function systemErrorCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}
