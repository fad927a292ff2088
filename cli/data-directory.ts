import { homedir } from 'node:os';
import { join, resolve } from 'node:path';

/** Where everything of one `isobar up` lives. Two data directories are two independent instances. */
export interface DataDirectory {
  readonly path: string;
  readonly mount: string;
  readonly logs: string;
  readonly config: string;
  /** Control sockets; mode 0700, emptied when `isobar up` ends. */
  readonly run: string;
  readonly sockets: {
    readonly up: string;
    readonly guestAgent: string;
    readonly hostCollector: string;
    readonly primarySite: string;
    /** Between guest agent and host collector. */
    readonly guestChannel: string;
  };
}

/**
 * The data directory: `choice` (--data-dir), or $ISOBAR_DATA_DIR, or /var/lib/isobar for root, or
 * $XDG_STATE_HOME/isobar, or ~/.local/state/isobar (XDG Base Directory Specification).
 */
export function locateDataDirectory(
  choice: string | undefined,
  environment: NodeJS.ProcessEnv,
  userId: number,
): DataDirectory {
  const path = resolve(choice ?? environment['ISOBAR_DATA_DIR'] ?? byConvention());
  const run = join(path, 'run');
  return {
    path,
    mount: join(path, 'mount'),
    logs: join(path, 'logs'),
    config: join(path, 'config'),
    run,
    sockets: {
      up: join(run, 'up.sock'),
      guestAgent: join(run, 'guest-agent.sock'),
      hostCollector: join(run, 'host-collector.sock'),
      primarySite: join(run, 'primary-site.sock'),
      guestChannel: join(run, 'guest-channel.sock'),
    },
  };

  function byConvention(): string {
    if (userId === 0) return '/var/lib/isobar';
    const stateHome = environment['XDG_STATE_HOME'];
    // The specification has relative paths ignored.
    if (stateHome?.startsWith('/') === true) return join(stateHome, 'isobar');
    return join(homedir(), '.local', 'state', 'isobar');
  }
}
