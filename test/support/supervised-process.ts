import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

import { z } from 'zod';

import { compiledEntry } from '../../common/runtime/package-root.ts';

const firstLineSchema = z.union([
  z.object({ mountPath: z.string(), agentProcessId: z.int(), isPrivate: z.boolean() }),
  z.object({ error: z.string() }),
]);
type FirstLine = z.infer<typeof firstLineSchema>;

/** A process that supervises a test agent: supervised-main.ts. */
export interface SupervisedProcess extends AsyncDisposable {
  readonly child: ChildProcess;
  /** What it said when it ran, or why it does not. */
  readonly first: FirstLine;
  /** Its exit code, once it ended. */
  readonly exited: Promise<number | null>;
}

/** Starts one, by `prefix` if given, and waits until it says how that went. Disposal stops it in order, if it still runs. */
export async function startSupervised(
  mountPath: string,
  behaviour: 'serve' | 'hold' | 'refuse' | 'no-resend' | 'endless' | 'second-hangs',
  prefix: readonly string[] = [],
): Promise<SupervisedProcess> {
  const [program, ...args] = [
    ...prefix,
    process.execPath,
    compiledEntry('test/support/supervised-main.ts'),
    mountPath,
    behaviour,
  ];
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'ignore'], cwd: '/' });
  const exited = new Promise<number | null>((resolve) => {
    child.on('exit', resolve);
  });
  const line = await new Promise<string>((resolve) => {
    createInterface({ input: child.stdout }).once('line', resolve);
  });
  return {
    child,
    first: firstLineSchema.parse(JSON.parse(line)),
    exited,
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGTERM');
      await exited;
    },
  };
}

/** The process id of the agent, or a failure that says why there is none. */
export function agentOf(supervised: SupervisedProcess): number {
  if ('error' in supervised.first) throw new Error(supervised.first.error);
  return supervised.first.agentProcessId;
}
