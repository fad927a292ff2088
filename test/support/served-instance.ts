import type { Hono } from 'hono';

import { locateDataDirectory } from '../../cli/data-directory.ts';
import { ControlServer } from '../../common/control/control-server.ts';
import { SystemClock } from '../../common/runtime/clock.ts';
import { silentLog } from '../../common/runtime/log.ts';
import { runIsobar, type CommandResult } from './command-line.ts';
import { temporaryDirectory } from './temporary-directory.ts';

/** Runs `isobar` against an instance. */
export type Run = (
  commandLine: readonly string[],
  options?: Parameters<typeof runIsobar>[1],
) => Promise<CommandResult>;

/** Control sockets of an instance, served by `apps`; a part without one is not running. */
export async function withInstance(
  apps: { readonly [Part in 'up' | 'primarySite' | 'hostCollector' | 'guestAgent']?: Hono },
  body: (run: Run, directory: string) => Promise<void>,
): Promise<void> {
  using directory = temporaryDirectory();
  const { sockets } = locateDataDirectory(directory.path, {}, 0);
  const servers = Object.entries(apps).map(
    ([part, app]) =>
      new ControlServer(
        app,
        { clock: new SystemClock(), log: silentLog },
        { name: kebabCase(part), socketPath: sockets[part as keyof typeof apps] },
      ),
  );
  for (const server of servers) await server.start();
  try {
    await body(
      (commandLine, options) => runIsobar([...commandLine, '--data-dir', directory.path], options),
      directory.path,
    );
  } finally {
    for (const server of servers) await server.stop();
  }
}

/** As the parts name themselves: primary-site. */
function kebabCase(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}
