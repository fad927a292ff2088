const keptCharsMax = 8_192;

/** The end of what a process wrote, to say why it died. */
export class LastWords {
  #text = '';

  add(chunk: Uint8Array): void {
    this.#text = (this.#text + Buffer.from(chunk).toString('utf8')).slice(-keptCharsMax);
  }

  /** The message of the newest error event; else the last lines that are no log events; else that there is nothing. */
  summary(): string {
    const lines = this.#text.split('\n').filter((line) => line !== '');
    const messages = lines.map((line) => errorMessageOf(line)).filter((each) => each !== undefined);
    const plain = lines.filter((line) => !line.startsWith('{'));
    return messages.at(-1) ?? (plain.length > 0 ? plain.join('\n') : 'it said nothing');
  }
}

/** pino's number for error. */
const errorLevel = 50;

function errorMessageOf(line: string): string | undefined {
  if (!line.startsWith('{')) return undefined;
  let event: unknown;
  try {
    event = JSON.parse(line);
  } catch {
    // The beginning of a line may have been cut off.
    return undefined;
  }
  if (typeof event !== 'object' || event === null || !('level' in event)) return undefined;
  if (typeof event.level !== 'number' || event.level < errorLevel) return undefined;
  if ('message' in event && typeof event.message === 'string') return event.message;
  return 'error' in event && typeof event.error === 'string' ? event.error : undefined;
}
