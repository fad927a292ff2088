import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { packageRoot } from '../../common/runtime/package-root.ts';

/** Shells that completion is known for. */
export const shells = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof shells)[number];

/** How each shell is made to use it; shown in the help. */
export const installCommands: Readonly<Record<Shell, string>> = {
  bash: 'source <(isobar completion bash)',
  zsh: 'source <(isobar completion zsh)',
  fish: 'isobar completion fish | source',
};

/**
 * The script that makes a shell complete `isobar`. It asks the program itself (the hidden command `__complete`), so it
 * never goes stale and knows the VMs and data points that exist now.
 */
export function completionScript(shell: Shell): string {
  return readFileSync(join(packageRoot(), 'cli', 'completion', `isobar.${shell}`), 'utf8');
}
