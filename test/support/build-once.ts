import { execFileSync } from 'node:child_process';

import { packageRoot } from '../../common/runtime/package-root.ts';

/** Vitest's global set-up: threads and child processes of tests run compiled code, so it must be today's. */
export function setup(): void {
  execFileSync('npx', ['tsc', '-p', 'tsconfig.build.json'], {
    cwd: packageRoot(),
    stdio: ['ignore', 'inherit', 'inherit'],
  });
}
