import { createInterface } from 'node:readline';

/** One line from the person at `input`; empty when it is left by Ctrl-C or Ctrl-D. */
export function ask(
  streams: { readonly input: NodeJS.ReadableStream; readonly output: NodeJS.WritableStream },
  question: string,
): Promise<string> {
  const terminal = createInterface({ ...streams, terminal: true });
  return new Promise((resolve) => {
    terminal.on('SIGINT', () => {
      terminal.close();
    });
    terminal.on('close', () => {
      resolve('');
    });
    terminal.question(question, (answer) => {
      resolve(answer);
      terminal.close();
    });
  });
}
